"""An image that is read."""

from __future__ import annotations

from txregistry.errors import NotFound, Unavailable
from txregistry.interfaces import Access
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.records import Record
from txregistry.storage.openstack.http import Stream
from txregistry.storage.openstack.reader import StreamReader


async def open_image(client: Glance, record: Record, path: str, access: Access | None = None) -> StreamReader:
    """Open the image of a record, with the rights of `access` if given. NotFound; Unavailable if its size differs."""
    stream, _ = await client.download(record.image, 0, None, path, access)
    length = stream.headers.get("content-length")
    if length is not None and length != str(record.size):
        stream.close()
        raise Unavailable(path, f"the image {record.image} has {length} bytes, {record.size} are expected")

    async def again(start: int, stop: int) -> tuple[Stream, int]:
        try:
            return await client.download(record.image, start, stop, path, access)
        except NotFound:
            raise Unavailable(path, "the image was deleted while it was read") from None

    return StreamReader(path, record.size, record.modified, stream, again)
