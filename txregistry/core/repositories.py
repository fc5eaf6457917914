"""Which repositories there are. A repository exists from its first blob or manifest on, not from a started upload."""

from __future__ import annotations

import heapq

from txregistry.core.links import entries
from txregistry.errors import NameUnknown
from txregistry.interfaces import IStorageDriver
from txregistry.model.names import NAME_LIMIT, RepositoryName, is_component
from txregistry.storage import layout

#: What makes a directory a repository.
_MARKS = {"_layers", "_manifests"}
#: Greater than anything that a name can go on with.
_LAST = "\U0010ffff"


class Repositories:
    """The repositories of a store."""

    def __init__(self, driver: IStorageDriver) -> None:
        self._driver = driver

    async def exists(self, name: RepositoryName) -> bool:
        """Whether a repository of this name is there."""
        children = await entries(self._driver, layout.repository(name))
        return any(directory and child in _MARKS for child, directory in children)

    async def require(self, name: RepositoryName) -> None:
        """Do nothing for a repository that exists; NameUnknown for one that does not."""
        if not await self.exists(name):
            raise NameUnknown({"name": str(name)})

    async def names(self, after: str = "", limit: int | None = None) -> list[str]:
        """Up to `limit` names greater than `after`, in byte order."""
        return await self._walk(_MARKS, after, limit)

    async def with_uploads(self) -> list[RepositoryName]:
        """Those that have, or had, upload sessions; some may never have become repositories."""
        return [RepositoryName(name) for name in await self._walk({"_uploads"})]

    async def _walk(self, marks: set[str], after: str = "", limit: int | None = None) -> list[str]:
        """Names whose directory has one of the marks.

        Directories wait in a heap by their full name, so that a name comes out before all greater ones are known,
        and one that cannot hold anything greater than `after` is never opened. Directories that are no part of a name
        are other software's; the registry's own begin with `_`.
        """
        found: list[str] = []
        waiting = [""]
        while waiting and (limit is None or len(found) < limit):
            name = heapq.heappop(waiting)
            path = f"{layout.REPOSITORIES}/{name}" if name else layout.REPOSITORIES
            children = await entries(self._driver, path)
            if name > after and any(child in marks and directory for child, directory in children):
                found.append(name)
            for child, directory in children:
                if child.startswith("_") or not directory or not is_component(child):
                    continue
                full = f"{name}/{child}" if name else child
                if len(full) <= NAME_LIMIT and f"{full}/{_LAST}" > after:
                    heapq.heappush(waiting, full)
        return found
