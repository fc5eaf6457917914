"""The Swift driver: a container of OpenStack Swift.

Names are the paths of the layout below `storage_path`, as docker-registry 0.6.5 wrote them. Large objects are static
large objects, whose segments lie below `_txregistry/segments`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NotFound, StorageError
from txregistry.interfaces import (
    IHidesPartials,
    IPartial,
    IReader,
    IStorageDriver,
    ISweeps,
    Page,
    PartialInfo,
    Stat,
    Version,
)
from txregistry.storage.clock import Clock
from txregistry.storage.jobs import all_of, patient
from txregistry.storage.openstack.blocking import BlockingHttp
from txregistry.storage.pool import Lanes
from txregistry.storage.segmented.names import below, beside, home, path_of
from txregistry.storage.segmented.records import HOLD, Record
from txregistry.storage.swift.connection import Connection
from txregistry.storage.swift.container import Container
from txregistry.storage.swift.locks import Locks
from txregistry.storage.swift.partial import SwiftPartial, records_of
from txregistry.storage.swift.reader import open_reader
from txregistry.storage.swift.records import Held
from txregistry.storage.swift.segments import Memory, group_of, move_object, owners, remove_object
from txregistry.storage.swift.sweep import sweep

#: Objects of a directory that are removed at once.
AT_ONCE = 8


@implementer(IStorageDriver, IHidesPartials, ISweeps)
class SwiftDriver:
    """The contract of `IStorageDriver` over a container; the pool, for hashers, belongs to whoever made it."""

    def __init__(self, container: Container, pool: Lanes, clock: Clock, memory: Memory | None = None) -> None:
        self.container, self.pool, self.clock = container, pool, clock
        self._memory = memory or Memory()
        self._locks = Locks(container)

    def prepare(self) -> None:
        """See that one can sign in and the container is there; Unavailable with one clear reason. Blocks."""
        options = self.container.connection.options
        at_once(Connection(options, BlockingHttp(options.cacert)).check())

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object: one GET, the newest of its copies."""

        async def reading() -> tuple[bytes, Version]:
            data, seen = await self.container.get(path, newest=True, limit=limit)
            return data, Version(seen.etag)

        return start(reading())

    def open(self, path: str) -> Deferred[IReader]:
        """A large object: one GET, whose stream the reader goes on with."""
        return open_reader(self.container, path)

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object; with a condition under a lease, as Swift looks too early."""

        async def etag_there() -> str | None:
            try:
                return (await self.container.head(path, newest=True)).etag
            except NotFound:
                return None

        async def putting(in_time: Callable[[], None]) -> Version:
            if await etag_there() != if_match:
                raise LostRace(path)
            in_time()
            return Version(await self.container.put(path, data, if_absent))

        async def conditionally() -> Version:
            if await etag_there() != if_match:  # most often seen without a lease
                raise LostRace(path)
            return await self._locks.alone(path, putting)

        async def plainly() -> Version:
            return Version(await self.container.put(path, data))

        return patient(plainly() if if_match is None and not if_absent else conditionally())

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of an object or a directory."""

        async def looking() -> Stat:
            with suppress(NotFound):
                seen = await self.container.head(path)
                return Stat(seen.size, seen.modified, is_directory=False)
            if not (await self.container.children(f"{path}/", None, 1))[0]:
                raise NotFound(path)
            return Stat(0, 0.0, is_directory=True)

        return start(looking())

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory, in the order of the names."""

        async def listing() -> Page:
            entries, following = await self.container.children(f"{prefix}/" if prefix else "", cursor, limit)
            return Page(tuple(entries), following)

        return start(listing())

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object or all below a path; what is left of partial objects at and below it goes too."""
        return patient(self._remove(path))

    async def _remove(self, path: str) -> None:
        found = await remove_object(self.container, path)
        keys: list[str] = []
        for prefix in (f"{path}/", home(path), below(path)):
            keys += [each.key for each in await self.container.keys(prefix)]
        if not found and not keys:
            raise NotFound(path)
        partials = _paths_of(key for key in keys if key.startswith(below("")))
        await self._each(keys, lambda key: remove_object(self.container, key))
        for partial in partials:
            group = group_of(partial)
            if not await owners(self.container, group):
                segments = [each.key for each in await self.container.keys(group)]
                await self._each(segments, self.container.delete)

    @staticmethod
    async def _each(keys: Sequence[str], remove: Any) -> None:
        for at in range(0, len(keys), AT_ONCE):
            await all_of([start(remove(key)) for key in keys[at : at + AT_ONCE]])

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`; time is told by the server's clock alone."""
        return patient(self._create(path) if create else self._take(path))

    async def _create(self, path: str) -> IPartial:
        records = records_of(self.container, path)
        with suppress(NotFound):
            await records.latest()
            raise LostRace(path)
        record = Record(hold=HOLD, moved=self.clock.seconds())
        return self._held(path, Held(1, await records.append(1, record), record, 0.0))

    async def _take(self, path: str) -> IPartial:
        held = await records_of(self.container, path).latest()
        if held.record.is_held(held.age):
            raise Busy(path)
        partial = self._held(path, held)
        try:
            await partial.claim()
        except LostRace:  # another asked at the same moment
            raise Busy(path) from None
        return partial

    def _held(self, path: str, held: Held) -> SwiftPartial:
        return SwiftPartial(self.container, self.pool, self.clock, self._memory, path, held)

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""

        async def looking() -> PartialInfo:
            record = (await records_of(self.container, path).latest()).record
            return PartialInfo(record.offset, record.state, record.moved)

        return start(looking())

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below a prefix."""

        async def listing() -> Sequence[str]:
            names: list[str] = []
            cursor: str | None = None
            while True:
                entries, cursor = await self.container.children(beside(prefix), cursor, 1000)
                names += [f"{prefix}/{entry.name}".removeprefix("/") for entry in entries]
                if cursor is None:
                    return names

        return start(listing())

    def partials_below(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects at any depth below a prefix."""

        async def listing() -> Sequence[str]:
            return sorted(_paths_of(each.key for each in await self.container.keys(below(prefix))))

        return start(listing())

    def move(self, source: str, target: str) -> Deferred[None]:
        """Copy within the server, then remove; of a large object only the manifest."""
        return patient(move_object(self.container, source, target))

    def settle(self, path: str) -> Deferred[None]:
        """See that it is there: what can be seen is durable."""

        async def looking() -> None:
            await self.container.head(path)

        return start(looking())

    def sweep(self, before: float) -> Deferred[int]:
        """Remove the segments that belong to nothing, and old leases."""
        return patient(sweep(self.container, before))

    def free_space(self) -> Deferred[int | None]:
        """Unknown."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Let go of the connections."""

        async def closing() -> None:
            with suppress(StorageError):  # there is nothing left to save
                await self.container.connection.http.close()

        return patient(closing())


def _paths_of(keys: Iterable[str]) -> set[str]:
    """The paths of the partial objects that keys belong to."""
    return {path for key in keys if (path := path_of(key)) is not None}


def at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to its end what never waits."""
    outcome: list[Any] = []
    start(coroutine).addBoth(outcome.append)
    assert outcome, "it waits for something"
    if outcome[0] is not None:
        outcome[0].raiseException()
