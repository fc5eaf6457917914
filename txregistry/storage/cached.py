"""A driver with a Redis beside it, which keeps small objects that were read, for all nodes of a registry.

The store comes first, always: a change is made there and then told to Redis, and without Redis everything goes on. A
reader that was slower than a change may fill in the old bytes; that is why every entry has a life, counted from the
moment before the store was read, and why a change leaves a mark that keeps late readers out for a while.

Whoever decides something by what it reads must read the store. So `CachedDriver.read` does, and only what serves
clients asks for `CachedDriver.cached`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import alsoProvides, implementer

from txregistry.concurrency import start
from txregistry.errors import NotFound, StorageError, TooLarge
from txregistry.interfaces import (
    ICaches,
    IHidesPartials,
    IPartial,
    IProvesFresh,
    IReader,
    IRedirects,
    IStorageDriver,
    ISweeps,
    Page,
    PartialInfo,
    Stat,
    Version,
)
from txregistry.storage.cache_keys import CacheKeys, Place
from txregistry.storage.redis_cache import CHANGED, ORIGINAL, RedisCache
from txregistry.storage.wrapped import WrappedPartial

T = TypeVar("T")

#: Largest object that is cached, in bytes: nearly all manifests and documents, and none that fills a Redis.
LARGEST = 256 * 1024
#: The version of what came from a key of the original's form, which has none. It matches nothing.
NO_VERSION = Version("cached")

#: What the driver below may offer besides. What is seen there now says nothing of what is in Redis.
_OFFERS = (IHidesPartials, ISweeps, IRedirects, IProvesFresh)


@implementer(IStorageDriver, ICaches)
class CachedDriver:
    """What `inner` stores; changes are told to `cache`, under the keys that `keys` says.

    `cached` is the same driver, whose `read` may be answered by Redis.
    """

    def __init__(self, inner: IStorageDriver, cache: RedisCache, keys: CacheKeys, clock: IReactorTime) -> None:
        self._inner = inner
        self._cache = cache
        self._keys = keys
        self._clock = clock
        self._declare()

    def prepare(self) -> None:
        """Prepare the driver below if it needs it, and reach for Redis."""
        prepare: Callable[[], None] | None = getattr(self._inner, "prepare", None)
        if prepare is not None:
            prepare()
            self._declare()
        self._cache.start()

    def _declare(self) -> None:
        for offer in _OFFERS:
            if offer.providedBy(self._inner) and not offer.providedBy(self):
                alsoProvides(self, offer)

    @property
    def cached(self) -> IStorageDriver:
        """The same store for whoever only serves what it reads."""
        return _CachedReads(self._inner, self._cache, self._keys, self._clock)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object, from the store."""
        return self._inner.read(path, limit)

    def open(self, path: str) -> Deferred[IReader]:
        """A large object."""
        return self._inner.open(path)

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""
        return self._inner.peek(path)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below `prefix`."""
        return self._inner.partials(prefix)

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of a path."""
        return self._inner.stat(path)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory."""
        return self._inner.list(prefix, cursor, limit)

    def settle(self, path: str) -> Deferred[None]:
        """Make durable what another wrote."""
        return self._inner.settle(path)

    def free_space(self) -> Deferred[int | None]:
        """Bytes that can still be written."""
        return self._inner.free_space()

    # -- changing -------------------------------------------------------------------------------------------------

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object."""
        return self._change(lambda: self._inner.put(path, data, if_absent, if_match), [path])

    def move(self, source: str, target: str) -> Deferred[None]:
        """Give an object another path."""
        return self._change(lambda: self._inner.move(source, target), [source, target])

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object, or a directory with all below it."""
        return self._change(lambda: self._inner.remove(path), [path], path)

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`."""
        return start(self._partial(path, create))

    async def _partial(self, path: str, create: bool) -> IPartial:
        return _Partial(await self._inner.partial(path, create), self._change, path)

    def _change(
        self, change: Callable[[], Deferred[T]], paths: Sequence[str], directory: str | None = None
    ) -> Deferred[T]:
        """Change the store, then tell Redis which paths changed, with all that lay below `directory`.

        Redis is told whatever became of the change: one that failed may have been made.
        """
        if not any(map(self._keys.place, paths)):
            return change()
        return start(self._changed(change, paths, directory))

    async def _changed(self, change: Callable[[], Deferred[T]], paths: Sequence[str], directory: str | None) -> T:
        places = [place for path in paths if (place := self._keys.place(path)) is not None]
        if directory is not None:
            places += await self._below(directory)
        keys = [key for place in places for key in place.cleared]
        try:
            result = await change()
        except Exception:
            # Of a cancelled change too, which has ended by now; telling of it is not cancelled with it.
            await self._cache.forget(keys)
            raise
        await self._cache.forget(keys)
        return result

    async def _below(self, path: str) -> Sequence[Place]:
        """The places of all that lies below a directory."""
        found = []
        place = self._keys.place(path)
        waiting = [] if place is None or place.single else [path]
        while waiting:
            directory = waiting.pop()
            cursor: str | None = None
            while True:
                page = await self._inner.list(directory, cursor)
                for entry in page.entries:
                    below = f"{directory}/{entry.name}"
                    place = self._keys.place(below)
                    if place is not None:
                        found.append(place)
                        if entry.is_directory:
                            waiting.append(below)
                cursor = page.cursor
                if cursor is None:
                    break
        return found

    def close(self) -> Deferred[None]:
        """Let go of Redis and of the driver below."""
        return start(self._close())

    async def _close(self) -> None:
        await self._cache.close()
        await self._inner.close()

    # -- what only some drivers offer -----------------------------------------------------------------------------

    def sweep(self, before: float) -> Deferred[int]:
        """Remove temporary objects, which are never cached."""
        return ISweeps(self._inner).sweep(before)

    def partials_below(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects at any depth below `prefix`."""
        return IHidesPartials(self._inner).partials_below(prefix)

    def redirect(self, path: str, seconds: int) -> Deferred[str]:
        """A signed URL."""
        return IRedirects(self._inner).redirect(path, seconds)

    def read_now(self, path: str, limit: int) -> bytes | None:
        """A small object as it is in the store."""
        return IProvesFresh(self._inner).read_now(path, limit)

    def exists_now(self, path: str) -> bool:
        """Whether there is an object or a directory in the store."""
        return IProvesFresh(self._inner).exists_now(path)


class _CachedReads(CachedDriver):
    """The driver whose `read` asks Redis first."""

    def _declare(self) -> None:
        # It may read what the store does not hold any more; whoever wants to know asks the driver itself.
        return

    @property
    def cached(self) -> IStorageDriver:
        return self

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        place = self._keys.place(path)
        if place is None or not self._cache.usable(place.looked_at):
            return self._inner.read(path, limit)
        return start(self._read(path, limit, place))

    async def _read(self, path: str, limit: int, place: Place) -> tuple[bytes, Version]:
        values = await self._cache.get(place.looked_at)
        present = [(key, value) for key, value in zip(place.looked_at, values or (), strict=False) if value is not None]
        for key, value in present:
            found = self._decode(key, value)
            if found is not None:
                if len(found[0]) > limit:
                    raise TooLarge(path, f"{len(found[0])} bytes, {limit} at most")
                return found
        if values is None or present:
            return await self._inner.read(path, limit)
        begun = self._clock.seconds()
        data, version = await self._inner.read(path, limit)
        if len(data) <= LARGEST:
            if place.mark is not None and await self._is_final(path, place.mark, data, limit):
                await self._fill(place.final, data, version, begun + self._keys.lives.long)
            else:
                await self._fill(place.key, data, version, begun + place.life)
        return data, version

    async def _is_final(self, path: str, mark: str, data: bytes, limit: int) -> bool:
        """Whether an object was finished when these bytes were in it.

        What is there while its mark is not never changes again; what was read before may be older, so it must still
        be there after.
        """
        try:
            await self._inner.stat(mark)
            return False
        except NotFound:
            pass
        except StorageError:
            return False  # what was read is good, whatever fails now
        try:
            again, _ = await self._inner.read(path, limit)
        except StorageError:
            return False
        return again == data

    async def _fill(self, key: bytes, data: bytes, version: Version, until: float) -> None:
        value = data if key.startswith(ORIGINAL) else f"{until:.3f} {version}\n".encode() + data
        await self._cache.fill(key, value, until - self._clock.seconds())

    def _decode(self, key: bytes, value: bytes) -> tuple[bytes, Version] | None:
        """What a key holds; None for the mark of a change, and for what outlived its time because Redis was late."""
        if key.startswith(ORIGINAL):
            return value, NO_VERSION
        if value == CHANGED:
            return None
        head, _, data = value.partition(b"\n")
        until, _, version = head.decode().partition(" ")
        return (data, Version(version)) if self._clock.seconds() < float(until) else None


class _Partial(WrappedPartial):
    """A partial object whose end is told to Redis."""

    def __init__(self, inner: IPartial, change: Callable[..., Deferred[Any]], path: str) -> None:
        super().__init__(inner)
        self._change, self._path = change, path

    def commit(self, path: str) -> Deferred[None]:
        return self._change(lambda: self.inner.commit(path), [path, self._path], self._path)

    def cancel(self) -> Deferred[None]:
        return self._change(self.inner.cancel, [self._path], self._path)
