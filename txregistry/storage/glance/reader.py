"""An image that is read: one stream, taken up again where it broke."""

from __future__ import annotations

from zope.interface import implementer

from txregistry.errors import NotFound, Unavailable
from txregistry.interfaces import Access, Chunks, IReader
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.records import Record
from txregistry.storage.openstack.http import Stream

#: How often in a row a broken stream is taken up again without a byte in between.
ATTEMPTS = 3


class GlanceChunks:
    """A range of an image; `stream` is one that begins at `start`, None if there is none yet."""

    def __init__(self, reader: GlanceReader, stream: Stream | None, start: int, stop: int) -> None:
        self._reader, self._stream, self._at, self._stop = reader, stream, start, stop
        self._skip = 0
        self._closed = False

    def __aiter__(self) -> GlanceChunks:
        return self

    async def __anext__(self) -> bytes:
        failures = 0
        while not self._closed and self._at < self._stop:
            try:
                piece = await self._next()
            except Unavailable:
                self._end()
                failures += 1
                if self._closed:
                    break
                if failures == ATTEMPTS:
                    raise
                continue
            if piece:
                self._at += len(piece)
                return piece
        self.close()
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        """The next piece; empty if all of it was to be skipped."""
        reader = self._reader
        if self._stream is None:
            try:
                stream, self._skip = await reader.client.download(
                    reader.image, self._at, self._stop, reader.path, reader.access
                )
            except NotFound:
                raise Unavailable(reader.path, "the image was deleted while it was read") from None
            if self._closed:
                stream.close()
                return b""
            self._stream = stream
        piece = await self._stream.read()
        if not piece:
            raise Unavailable(reader.path, f"the image ends at {self._at} of {self._stop} bytes")
        skipped = min(self._skip, len(piece))
        self._skip -= skipped
        return piece[skipped : skipped + self._stop - self._at]

    def close(self) -> None:
        """End it; whoever waits for a piece gets none."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


@implementer(IReader)
class GlanceReader:
    """An image with a stream of all its bytes."""

    def __init__(self, client: Glance, record: Record, path: str, stream: Stream, access: Access | None) -> None:
        self.access = access
        self.client, self.image, self.path = client, record.image, path
        self.size, self.modified = record.size, record.modified
        self._stream: Stream | None = stream

    def chunks(self, start: int, stop: int) -> Chunks:
        """The bytes of a range; the first that begins at 0 goes on with the stream."""
        stream = None
        if start == 0:
            stream, self._stream = self._stream, None
        return GlanceChunks(self, stream, start, stop)

    def close(self) -> None:
        """Let go of the stream, unless a range took it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


async def open_image(client: Glance, record: Record, path: str, access: Access | None = None) -> GlanceReader:
    """Open the image of a record, with the rights of `access` if given. NotFound; Unavailable if its size differs."""
    stream, _ = await client.download(record.image, 0, None, path, access)
    length = stream.headers.get("content-length")
    if length is not None and length != str(record.size):
        stream.close()
        raise Unavailable(path, f"the image {record.image} has {length} bytes, {record.size} are expected")
    return GlanceReader(client, record, path, stream, access)
