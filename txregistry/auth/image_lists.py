"""Which images a repository has by word of the index, kept beside its tags as old servers did."""

from __future__ import annotations

import json

from txregistry.errors import NoSpace, NotFound, ReadOnly, TooLarge, V1NotFound
from txregistry.interfaces import IStorageDriver
from txregistry.model.v1.image import parse_ancestry
from txregistry.model.v1.names import ImageId, V1Repository
from txregistry.storage import layout

#: Largest list, in bytes, and largest answer of the index.
LIST_LIMIT = 4 * 1024 * 1024
#: Largest ancestry, in bytes.
_ANCESTRY_LIMIT = 1024 * 1024
#: Ancestries that are read for one decision.
_MOST_ANCESTRIES = 1000

#: Ids in the index's order.
Images = tuple[str, ...]


class ImageLists:
    """The lists of a store. `driver` is the engine itself: what a cache says is no ground to let anybody in."""

    def __init__(self, driver: IStorageDriver) -> None:
        self._driver = driver

    async def load(self, repository: V1Repository) -> Images:
        """The ids that were stored last; none without."""
        data = await self._read(_path(repository), LIST_LIMIT)
        return (parse_ancestry(data) if data is not None else None) or ()

    async def save(self, repository: V1Repository, images: Images) -> bool:
        """Store the ids, unless they are there; False where the engine takes no writes, so that none are stored."""
        data = json.dumps(images).encode("ascii")
        if await self._read(_path(repository), LIST_LIMIT) == data:
            return True
        try:
            await self._driver.put(_path(repository), data)
        except (NoSpace, ReadOnly):
            return False
        return True

    async def reaches(self, listed: Images, image_id: str) -> bool:
        """Whether an image is listed, or is an ancestor of a listed one."""
        if image_id in listed:
            return True
        covered: set[str] = set()
        read = 0
        # Clients list parents first: from the end, most others are covered by the first ancestry that is read.
        for other in reversed(listed):
            if other in covered:
                continue
            read += 1
            if read > _MOST_ANCESTRIES:
                break
            ancestry = await self._ancestry(other)
            if image_id in ancestry:
                return True
            covered.update(ancestry)
        return False

    async def _ancestry(self, image_id: str) -> Images:
        try:
            path = layout.v1_image(ImageId.parse(image_id).text, "ancestry")
        except V1NotFound:
            return ()
        data = await self._read(path, _ANCESTRY_LIMIT)
        return (parse_ancestry(data) if data is not None else None) or ()

    async def _read(self, path: str, limit: int) -> bytes | None:
        try:
            data, _ = await self._driver.read(path, limit)
        except (NotFound, TooLarge):
            return None
        return data


def _path(repository: V1Repository) -> str:
    return layout.v1_repository_part(repository.namespace, repository.name, "_images_list")
