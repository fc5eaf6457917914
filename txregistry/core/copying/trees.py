"""What lies in a store, listed in the pieces in which it is copied."""

from __future__ import annotations

from txregistry.core.copying.objects import Objects, each
from txregistry.errors import DigestInvalid
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import Digest
from txregistry.storage import layout

#: What engines keep for themselves below the state, and means nothing to another engine.
_ENGINES_OWN = {f"{layout.STATE}/glance", f"{layout.STATE}/elliptics"}
#: Below the state, what has to come after the rest: the record of a layer after its bytes, and then that of its push.
_RECORD, _PUSHES = "record", f"{layout.STATE}/v1/pushes/"


class Trees:
    """The listings of a store, several directories at a time."""

    def __init__(self, objects: Objects, driver: IStorageDriver, jobs: int) -> None:
        self._objects = objects
        self._driver = driver
        self._jobs = jobs

    async def directories(self, path: str) -> list[str]:
        """The names of the directories in a directory."""
        return sorted(name for name, is_directory in await self.children(path) if is_directory)

    async def files(self, path: str) -> list[str]:
        """The names of the objects in a directory."""
        return sorted(name for name, is_directory in await self.children(path) if not is_directory)

    async def children(self, path: str) -> list[tuple[str, bool]]:
        """All children of a directory as (name, whether it is a directory)."""
        return await self._objects.children(self._driver, path)

    async def below(self, path: str) -> list[str]:
        """The paths of all objects below a directory, at any depth."""
        found: list[str] = []
        level = [path]
        while level:
            deeper: list[str] = []

            async def look(directory: str, deeper: list[str] = deeper) -> None:
                for name, is_directory in await self.children(directory):
                    (deeper if is_directory else found).append(f"{directory}/{name}")

            await each(level, look, self._jobs)
            level = [directory for directory in deeper if directory not in _ENGINES_OWN]
        return sorted(found)

    async def shards(self) -> list[str]:
        """The directories in which blobs are, each with those whose digests begin alike."""
        return [
            f"{layout.BLOBS}/{algorithm}/{shard}"
            for algorithm in await self.directories(layout.BLOBS)
            for shard in await self.directories(f"{layout.BLOBS}/{algorithm}")
        ]

    async def blobs(self, shard: str) -> list[Digest]:
        """The blobs of one of them; what is called as no digest can be is no blob."""
        algorithm = shard.split("/")[-2]
        found = []
        for name in await self.directories(shard):
            try:
                found.append(Digest.parse(f"{algorithm}:{name}"))
            except DigestInvalid:
                continue
        return found

    async def links(self, path: str) -> list[str]:
        """The paths of all links `<algorithm>/<hex>/link` below a directory; some may be deleted ones."""
        return [
            f"{path}/{algorithm}/{name}/link"
            for algorithm in await self.directories(path)
            for name in await self.directories(f"{path}/{algorithm}")
        ]

    async def state(self) -> list[list[str]]:
        """All objects of the state, in groups of which each has to be whole before the next."""
        groups: list[list[str]] = [[], [], []]
        for path in await self.below(layout.STATE):
            last = path.startswith(_PUSHES)
            groups[2 if last else int(path.rpartition("/")[2] == _RECORD)].append(path)
        return groups

    async def v1_repositories(self) -> list[str]:
        """The directories of all V1 repositories."""
        return [
            f"{layout.V1_REPOSITORIES}/{namespace}/{name}"
            for namespace in await self.directories(layout.V1_REPOSITORIES)
            for name in await self.directories(f"{layout.V1_REPOSITORIES}/{namespace}")
        ]
