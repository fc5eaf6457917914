"""The names of images, which follow V1 tags for those who look at Glance. Nothing here depends on them.

An image has one name: that of the tag that was set last. What is missed while Glance does not answer, or when a
process ends, is made right again from the tags.
"""

from __future__ import annotations

from contextlib import suppress

from txregistry.errors import NotFound, TooLarge
from txregistry.interfaces import IStorageDriver
from txregistry.storage import layout
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.places import IMAGE_ID, tag_name
from txregistry.storage.glance.records import ALTERNATE, GLANCE, RECORDS, Records

#: Bytes of the longest tag that is read, and how many changes are remembered.
_TAG_LIMIT, _REMEMBERED = 1024, 10000


class Names:
    """Changes of names that are to be made, by name: the V1 image that gets it, or None where it is cleared."""

    def __init__(self, alternate: IStorageDriver, records: Records, client: Glance) -> None:
        self._alternate, self._records, self._client = alternate, records, client
        self._wanted: dict[str, str | None] = {}

    def noted(self, path: str, data: bytes | None) -> bool:
        """What a tag says now, None if it is gone; whether that changes a name."""
        name = tag_name(path)
        if name is None:
            return False
        if len(self._wanted) < _REMEMBERED:
            self._wanted[name] = None if data is None else data.decode("utf-8", "replace").strip()
        return True

    async def below(self, repository: str) -> list[str]:
        """The paths of the tags of a repository."""
        paths = [f"{repository}/{name}" async for name, _ in self._records.entries(repository)]
        return [path for path in paths if tag_name(path) is not None]

    async def apply(self) -> None:
        """Make the changes; one for an image that is on its way to Glance waits for it."""
        for name, known in list(self._wanted.items()):
            if await self._apply(name, known) and self._wanted.get(name, "") == known:
                del self._wanted[name]

    async def _apply(self, name: str, known: str | None) -> bool:
        held = None if known is None else await self._records.load(layout.v1_image(known, "layer"))
        target = held.record.image if held is not None and held.record.state == GLANCE else None
        for image in await self._client.find({"name": f"eq:{name}"}):
            if image.id != target:
                await self._rename(image.id, None)
        if target is not None:
            await self._rename(target, name)
        return held is None or held.record.state != ALTERNATE

    async def _rename(self, image: str, name: str | None) -> None:
        with suppress(NotFound):  # deleted just now
            await self._client.rename(image, name)

    # -- from the tags --------------------------------------------------------------------------------------------

    async def right(self) -> int:
        """Let the names of all images be what the tags say; how many were not."""
        self._wanted.clear()
        wanted = await self._by_tags()
        ours: dict[str, str] = {}
        async for path in self._records.walk(layout.V1_IMAGES, RECORDS):
            held = await self._records.load(path)
            if held is not None and held.record.state == GLANCE:
                ours[held.record.image] = path.split("/")[1]
        changed = 0
        for image in await self._client.find({}):
            known = ours.get(image.id)
            if known is None and IMAGE_ID not in image.properties:
                continue
            names = wanted.get(known or "", [])
            if image.name in names or (not names and image.name is None):
                continue
            await self._rename(image.id, names[0] if names else None)
            changed += 1
        return changed

    async def _by_tags(self) -> dict[str, list[str]]:
        """The names that each V1 image may have."""
        found: dict[str, list[str]] = {}
        async for path in self._records.walk("", layout.V1_REPOSITORIES):
            name = tag_name(f"{layout.V1_REPOSITORIES}/{path}")
            if name is not None:
                with suppress(NotFound, TooLarge):
                    data, _ = await self._alternate.read(f"{layout.V1_REPOSITORIES}/{path}", _TAG_LIMIT)
                    found.setdefault(data.decode("utf-8", "replace").strip(), []).append(name)
        return {known: sorted(names) for known, names in found.items()}
