"""The memory driver: the whole contract without a disk, a thread or a reactor; every Deferred has fired.

It behaves as an engine without directories does: a directory is there as long as something lies below it. A partial
object is a directory in listings. Time passes only on the clock that it was given.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from txregistry.errors import Busy, LostRace, NoSpace, NotFound, StorageError, TooLarge, WrongOffset
from txregistry.interfaces import (
    Chunks,
    Entry,
    IPartial,
    IProvesFresh,
    IReader,
    IStorageDriver,
    Page,
    PartialInfo,
    Stat,
    Tap,
    Version,
)

T = TypeVar("T")

STALLED = 5.0
STATE_LIMIT = 4096
PIECE = 256 * 1024


def _now(function: Callable[..., T], *args: Any) -> Deferred[T]:
    """The outcome of a call as a Deferred that has fired."""
    try:
        return succeed(function(*args))
    except StorageError as error:
        return fail(error)


@dataclass
class _Object:
    data: bytes
    modified: float

    @property
    def version(self) -> Version:
        return Version(hashlib.sha256(self.data).hexdigest())


@dataclass
class _Growing:
    modified: float
    data: bytearray = field(default_factory=bytearray)
    saved: tuple[int, bytes] = (0, b"")
    holder: object | None = None


class Contents:
    """What several memory drivers may share, as the nodes of one registry share a store."""

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self.growing: dict[str, _Growing] = {}

    def used(self) -> int:
        """Bytes in all objects, whole and partial."""
        return sum(len(item.data) for part in (self.objects, self.growing) for item in part.values())

    def leaves(self) -> Iterator[str]:
        """All paths that make the directories above them exist; a partial object is a directory itself."""
        yield from self.objects
        for path in self.growing:
            yield path + "/data"

    def drop_below(self, path: str) -> bool:
        """Remove all that lies below a path; whether there was anything."""
        found = False
        for part in (self.objects, self.growing):
            for name in [name for name in part if name.startswith(path + "/")]:
                del part[name]
                found = True
        return found


class _BytesChunks:
    def __init__(self, data: bytes, start: int, stop: int) -> None:
        self._data, self._at, self._stop = data, start, stop

    def __aiter__(self) -> _BytesChunks:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= self._stop:
            raise StopAsyncIteration
        piece = self._data[self._at : min(self._at + PIECE, self._stop)]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        self._stop = self._at


@implementer(IReader)
class _MemoryReader:
    def __init__(self, found: _Object) -> None:
        self._data = found.data
        self.size = len(found.data)
        self.modified = found.modified

    def chunks(self, start: int, stop: int) -> Chunks:
        return _BytesChunks(self._data, start, stop)

    def close(self) -> None:
        pass


@implementer(IPartial)
class _MemoryPartial:
    def __init__(self, driver: MemoryDriver, path: str, growing: _Growing) -> None:
        self._driver = driver
        self._path = path
        self._growing = growing
        self._ended = False
        self.offset, self.state = growing.saved
        growing.holder = self

    def _do(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        assert not self._ended, "committed, cancelled, closed, or failed"
        try:
            if self._growing.holder is not self or self._driver.contents.growing.get(self._path) is not self._growing:
                raise LostRace(self._path, "another request took it over or finished it")
            return succeed(function(*args))
        except StorageError as error:
            self._ended = True
            return fail(error)

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        if at != self.offset:
            return fail(WrongOffset(self._path, self.offset))
        return self._do(self._write, batch, tap)

    def _write(self, batch: Sequence[bytes], tap: Tap | None) -> None:
        self._driver.take_space(self._path, sum(map(len, batch)))
        for piece in batch:
            self._growing.data += piece
        self._growing.modified = self._driver.clock.seconds()
        if tap is not None:
            tap(batch)
        self.offset = len(self._growing.data)

    def checkpoint(self, state: bytes) -> Deferred[None]:
        assert len(state) <= STATE_LIMIT, "the state is too long"
        return self._do(self._checkpoint, state)

    def _checkpoint(self, state: bytes) -> None:
        self._growing.saved = (self.offset, state)
        self.state = state

    def read(self, tap: Tap) -> Deferred[None]:
        return self._do(self._read, tap)

    def _read(self, tap: Tap) -> None:
        for at in range(0, self.offset, PIECE):
            tap([bytes(self._growing.data[at : at + PIECE])])

    def commit(self, path: str) -> Deferred[None]:
        return self._do(self._commit, path)

    def _commit(self, path: str) -> None:
        data = bytes(self._growing.data)
        self._drop()
        self._driver.contents.objects[path] = _Object(data, self._driver.clock.seconds())

    def cancel(self) -> Deferred[None]:
        return self._do(self._drop)

    def _drop(self) -> None:
        self._ended = True
        del self._driver.contents.growing[self._path]
        self._driver.contents.drop_below(self._path)

    def close(self) -> Deferred[None]:
        self._ended = True
        if self._growing.holder is self:
            self._growing.holder = None
        return succeed(None)


@implementer(IStorageDriver, IProvesFresh)
class MemoryDriver:
    """Objects in a dictionary. `capacity` is in bytes; drivers with the same `contents` see the same store."""

    def __init__(
        self, clock: IReactorTime | None = None, capacity: int | None = None, contents: Contents | None = None
    ) -> None:
        self.clock: IReactorTime = clock or Clock()
        self.capacity = capacity
        self.contents = contents or Contents()

    def take_space(self, path: str, size: int) -> None:
        """NoSpace unless `size` more bytes fit."""
        if self.capacity is not None and self.contents.used() + size > self.capacity:
            raise NoSpace(path, f"more than {self.capacity} bytes")

    def _object(self, path: str) -> _Object:
        try:
            return self.contents.objects[path]
        except KeyError:
            raise NotFound(path) from None

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object."""
        return _now(self._read, path, limit)

    def _read(self, path: str, limit: int) -> tuple[bytes, Version]:
        found = self._object(path)
        if len(found.data) > limit:
            raise TooLarge(path, f"{len(found.data)} bytes, {limit} at most")
        return found.data, found.version

    def open(self, path: str) -> Deferred[IReader]:
        """A large object."""
        return _now(lambda: _MemoryReader(self._object(path)))

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object."""
        return _now(self._put, path, data, if_absent, if_match)

    def _put(self, path: str, data: bytes, if_absent: bool, if_match: Version | None) -> Version:
        there = self.contents.objects.get(path)
        if if_absent and there is not None:
            raise LostRace(path, "something is there already")
        if if_match is not None and (there is None or there.version != if_match):
            raise LostRace(path, "another version is there")
        self.take_space(path, len(data))
        new = self.contents.objects[path] = _Object(bytes(data), self.clock.seconds())
        return new.version

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`."""
        return _now(self._partial, path, create)

    def _partial(self, path: str, create: bool) -> _MemoryPartial:
        now = self.clock.seconds()
        if create:
            if path in self.contents.growing:
                raise LostRace(path, "a partial object is there already")
            self.contents.growing[path] = _Growing(now)
        growing = self._growing(path)
        if growing.holder is not None and now - growing.modified < STALLED:
            raise Busy(path, max(1, math.ceil(STALLED - (now - growing.modified))))
        del growing.data[growing.saved[0] :]
        growing.modified = now
        return _MemoryPartial(self, path, growing)

    def _growing(self, path: str) -> _Growing:
        try:
            return self.contents.growing[path]
        except KeyError:
            raise NotFound(path) from None

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""
        return _now(self._peek, path)

    def _peek(self, path: str) -> PartialInfo:
        growing = self._growing(path)
        return PartialInfo(*growing.saved, growing.modified)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below `prefix`."""
        return succeed([path for path in self.contents.growing if path.rpartition("/")[0] == prefix])

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of a path."""
        return _now(self._stat, path)

    def _stat(self, path: str) -> Stat:
        if path not in self.contents.objects and any(name.startswith(path + "/") for name in self.contents.leaves()):
            return Stat(0, 0.0, True)
        found = self._object(path)
        return Stat(len(found.data), found.modified, False)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory, in the order of their names."""
        above = prefix + "/" if prefix else ""
        children: dict[str, bool] = {}
        for path in self.contents.leaves():
            if path.startswith(above):
                name, below, _ = path[len(above) :].partition("/")
                children[name] = children.get(name, False) or bool(below)
        names = sorted(name for name in children if cursor is None or name > cursor)
        entries = tuple(Entry(name, children[name]) for name in names[:limit])
        return succeed(Page(entries, entries[-1].name if len(names) > limit and entries else None))

    def move(self, source: str, target: str) -> Deferred[None]:
        """Give an object another path."""
        return _now(self._move, source, target)

    def _move(self, source: str, target: str) -> None:
        found = self._object(source)
        del self.contents.objects[source]
        self.contents.objects[target] = found

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object, a partial object, or a directory with all below it."""
        return _now(self._remove, path)

    def _remove(self, path: str) -> None:
        found = self.contents.objects.pop(path, None) or self.contents.growing.pop(path, None)
        if not self.contents.drop_below(path) and found is None:
            raise NotFound(path)

    def settle(self, path: str) -> Deferred[None]:
        """What is there is as durable as memory is."""
        return _now(self._settle, path)

    def _settle(self, path: str) -> None:
        self._stat(path)

    def free_space(self) -> Deferred[int | None]:
        """What is left of the capacity."""
        return succeed(None if self.capacity is None else max(0, self.capacity - self.contents.used()))

    def close(self) -> Deferred[None]:
        """Nothing to let go of."""
        return succeed(None)

    def read_now(self, path: str, limit: int) -> bytes | None:
        """A small object, or None."""
        found = self.contents.objects.get(path)
        return None if found is None or len(found.data) > limit else found.data

    def exists_now(self, path: str) -> bool:
        """Whether there is an object or a directory."""
        return path in self.contents.objects or any(name.startswith(path + "/") for name in self.contents.leaves())
