"""A Glance driver that shows what it wrote only when it is in Glance, for the tests that every engine passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.interfaces import IPartial, Tap, Version
from txregistry.storage.glance.driver import GlanceDriver
from txregistry.storage.glance.places import DIGEST, Places, Thing

#: A whole object of so many bytes goes to Glance, if nothing is asked of what was there before.
LARGE = 1 << 20


class SuitePlaces(Places):
    """Everything but uploads is for Glance, wherever it lies."""

    def thing(self, path: str) -> Thing | None:
        return None if path.startswith(("uploads", "others/", "_txregistry", "many")) else Thing(path, DIGEST, path)

    def beside(self, path: str) -> Thing | None:
        return None

    def above(self, path: str) -> bool:
        return not path.startswith(("uploads", "_txregistry"))


class MovingDriver(GlanceDriver):
    """Waits for the background's work."""

    async def _moved(self, path: str) -> None:
        if self._places.thing(path) is not None:
            while not await self.mover.settle(path):
                pass

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        if if_absent or if_match is not None or len(data) < LARGE or self._places.thing(path) is None:
            return super().put(path, data, if_absent, if_match)
        return start(self._put_large(path, data))

    async def _put_large(self, path: str, data: bytes) -> Version:
        thing = self._places.thing(path)
        assert thing is not None
        name = self.records.new_name(path)
        version: Version = await self.alternate.put(name, data)
        await self._tree.install(thing, len(data), name)
        await self._moved(path)
        return version

    async def _move(self, source: str, target: str) -> None:
        await super()._move(source, target)
        await self._moved(target)

    async def _partial(self, path: str, create: bool) -> IPartial:
        partial: IPartial = _MovingPartial(await super()._partial(path, create), self)
        return partial


@implementer(IPartial)
class _MovingPartial:
    def __init__(self, inner: IPartial, driver: MovingDriver) -> None:
        self._inner, self._driver = inner, driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        return self._inner.write(batch, at, tap)

    def commit(self, path: str) -> Deferred[None]:
        return start(self._commit(path))

    async def _commit(self, path: str) -> None:
        await self._inner.commit(path)
        await self._driver._moved(path)
