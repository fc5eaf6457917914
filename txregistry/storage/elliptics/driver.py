"""The Elliptics driver: what `Tree` does, in the threads of the pool."""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import StorageError
from txregistry.interfaces import (
    Chunks,
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
from txregistry.storage.elliptics import mending, partial, watching
from txregistry.storage.elliptics.groups import Groups, Stamps, quorum_of
from txregistry.storage.elliptics.partial import EllipticsPartial
from txregistry.storage.elliptics.session import Options, Sessions
from txregistry.storage.elliptics.tree import PIECE, Opened, Tree
from txregistry.storage.pool import Lanes

_log = Logger()

#: Seconds between two looks at the groups.
BEAT = 2.0


@implementer(IReader)
class _Reader:
    """An object as it was when it was opened; its bytes are kept for a while when it is replaced or removed."""

    def __init__(self, tree: Tree, pool: Lanes, path: str, opened: Opened) -> None:
        self.tree, self.pool, self.path, self.opened = tree, pool, path, opened
        self.size, self.modified = opened.size, opened.modified

    def chunks(self, start: int, stop: int) -> Chunks:
        """The bytes from `start` up to `stop`."""
        return _Chunks(self, start, stop)

    def close(self) -> None:
        """Nothing is held."""


class _Chunks:
    """The bytes of a range; see `Chunks`. A job of the pool for each piece, so a slow client holds no thread."""

    def __init__(self, reader: _Reader, start: int, stop: int) -> None:
        self._reader, self._at, self._stop = reader, start, stop

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        reader, at = self._reader, self._at
        size = min(PIECE, self._stop - at)
        if size <= 0:
            raise StopAsyncIteration
        if reader.opened.segments:
            piece = await reader.pool.run(reader.tree.piece, reader.path, reader.opened, at, size)
        else:
            piece = reader.opened.data[at : at + size]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        self._stop = self._at


@implementer(IStorageDriver, ISweeps)
class EllipticsDriver:
    """A store in groups of Elliptics servers, `quorum` of which make a write (None: see `quorum_of`).

    The pool belongs to whoever made it. `clock` tells seconds of the epoch, which all nodes of a registry must agree
    on to a fraction of the time between two writes of one object by different nodes. With a `timer` the groups are
    looked at from `prepare` to `close`, and those that were down are brought up to date.
    """

    def __init__(
        self,
        options: Options,
        groups: Sequence[int],
        pool: Lanes,
        clock: Clock,
        quorum: int | None = None,
        timer: IReactorTime | None = None,
    ) -> None:
        sessions = Sessions(options)
        stamps = Stamps(clock.seconds, os.urandom)
        self._pool = pool
        self._clock = clock
        self._timer = timer
        self._next: IDelayedCall | None = None
        self.tree = Tree(sessions, groups, min(quorum or quorum_of(len(groups)), len(groups)), stamps)
        self.tree.end_partial = self._end_partial

    def _end_partial(self, groups: Groups, path: str) -> bool:
        return partial.end_partial(self.tree, groups, path)

    def prepare(self) -> None:
        """See that enough groups answer; StorageError with one clear reason. Blocks."""
        watching.prepare(self.tree)
        self._wait(0.0)

    def _wait(self, seconds: float) -> None:
        if self._timer is not None and not self.tree.closing:
            self._next = self._timer.callLater(seconds, self._beat)

    def _beat(self) -> None:
        self._next = None
        looked = self._pool.run(watching.beat, self.tree)
        # What cannot be done now is tried again: an outage is told to whoever asks for something.
        looked.addErrback(lambda failure: failure.trap(StorageError))
        looked.addErrback(lambda failure: _log.failure("the look at the groups failed", failure))
        looked.addCallback(lambda _: self._wait(BEAT))

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object."""
        return self._pool.run_small(self.tree.read, path, limit)

    def open(self, path: str) -> Deferred[IReader]:
        """A large object."""
        return self._pool.run_small(self._open, path)

    def _open(self, path: str) -> IReader:
        return _Reader(self.tree, self._pool, path, self.tree.open(path))

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object."""
        return self._pool.run_small(self.tree.put, path, data, if_absent, if_match)

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`."""
        return start(self._partial(path, create))

    async def _partial(self, path: str, create: bool) -> IPartial:
        held = EllipticsPartial(self.tree, self._pool, self._clock, path)
        try:
            await self._pool.run_small(held.create if create else held.reopen)
        except BaseException:
            await held.close()
            raise
        return held

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""
        return self._pool.run_small(partial.peek, self.tree, path)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below `prefix`."""
        return self._pool.run_small(self.tree.partials, prefix)

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of a path."""
        return self._pool.run_small(self.tree.stat, path)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory, in the order of their names."""
        return self._pool.run_small(self.tree.list, prefix, cursor, limit)

    def move(self, source: str, target: str) -> Deferred[None]:
        """Give an object another path."""
        return self._pool.run_small(self.tree.move, source, target)

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object, or a directory with all below it."""
        return self._pool.run_small(self.tree.remove, path)

    def settle(self, path: str) -> Deferred[None]:
        """See that as many groups have it as a write needs."""
        return self._pool.run_small(self.tree.settle, path)

    def free_space(self) -> Deferred[int | None]:
        """The servers do not tell."""
        return self._pool.run_small(lambda: None)

    def sweep(self, before: float) -> Deferred[int]:
        """Remove bytes that nothing has named since `before`, after groups that were down were brought up to date."""
        return self._pool.run(self._sweep, before)

    def _sweep(self, before: float) -> int:
        watching.beat(self.tree)
        return mending.sweep(self.tree, before)

    def close(self) -> Deferred[None]:
        """Close all sockets that are idle, and the others when their jobs end."""
        self.tree.closing = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return self._pool.run_small(self._close)

    def _close(self) -> None:
        self.tree.standing.close()
        self.tree.sessions.close()
