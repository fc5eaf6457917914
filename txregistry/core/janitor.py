"""What dead uploads and dead processes left behind is removed; never what somebody still works on.

A session is dropped only while held, so no other process can be writing to it. Several janitors do no harm.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txregistry.core.links import entries
from txregistry.core.policy import Policy
from txregistry.core.repositories import Repositories
from txregistry.core.v1.layers import Layers
from txregistry.errors import Busy, LostRace, NotFound, StorageError
from txregistry.interfaces import IHidesPartials, IStorageDriver, ISweeps
from txregistry.storage import layout

#: Age in seconds at which temporary objects are leftovers; no request takes that long between two steps.
_TEMPORARY = 3600.0

_log = Logger()


class Janitor:
    """Sweeps one store."""

    def __init__(
        self,
        driver: IStorageDriver,
        repositories: Repositories,
        policy: Policy,
        clock: IReactorTime,
        v1_layers: Layers | None = None,
    ) -> None:
        self._driver = driver
        self._repositories = repositories
        self._policy = policy
        self._clock = clock
        self._v1_layers = v1_layers

    async def sweep(self) -> int:
        """Remove expired sessions and leftovers; how many. A failure of the storage is logged: there is a next time."""
        now = self._clock.seconds()
        removed = 0
        try:
            for name in await self._repositories.with_uploads():
                for child, directory in await entries(self._driver, layout.uploads(name)):
                    if directory:
                        removed += await self._drop_if_old(layout.upload(name, child), now - self._policy.upload_expiry)
            if IHidesPartials.providedBy(self._driver):
                for path in await IHidesPartials(self._driver).partials_below(layout.REPOSITORIES):
                    removed += await self._drop_if_old(path, now - self._policy.upload_expiry)
            if self._v1_layers is not None:
                removed += await self._v1_layers.sweep(now - self._policy.upload_expiry)
            for path in await self._driver.partials(layout.TMP):
                removed += await self._drop_if_old(path, now - _TEMPORARY)
            if ISweeps.providedBy(self._driver):
                removed += await ISweeps(self._driver).sweep(now - _TEMPORARY)
        except StorageError as error:
            _log.warn("the sweep of dead uploads ended early: {error!r}", error=error)
        if removed:
            _log.info("swept {removed} dead uploads and temporary objects", removed=removed)
        return removed

    async def _drop_if_old(self, path: str, before: float) -> bool:
        try:
            modified = (await self._driver.peek(path)).modified
        except NotFound:
            return await self._remove_if_old(path, before)
        if modified >= before:
            return False
        try:
            partial = await self._driver.partial(path)
            await partial.cancel()
        except (Busy, LostRace, NotFound):
            return False
        return True

    async def _remove_if_old(self, path: str, before: float) -> bool:
        """A directory without an upload in it: distribution leaves those of cancelled uploads for ever."""
        try:
            if (await self._driver.stat(path)).modified >= before:
                return False
            await self._driver.remove(path)
        except NotFound:
            return False
        return True
