"""The local driver: a directory tree on this machine, or on a network file system that is mounted here.

Modes are 0666 and 0777 as the umask leaves them, and never changed, so that another server of the same user can go on
with the tree. How things are made durable is told in `local_tree.py` and `local_directories.py`, how partial objects
are held in `local_partial.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, execute, fail, succeed
from zope.interface import alsoProvides, implementer

from txregistry.concurrency import start
from txregistry.errors import StorageError
from txregistry.interfaces import (
    IGroups,
    ILooksBelow,
    IPartial,
    IProvesFresh,
    IReader,
    IStorageDriver,
    ISweeps,
    Page,
    PartialInfo,
    Stat,
    Version,
)
from txregistry.storage import local_partial
from txregistry.storage.disk import MEMORY_FILE_SYSTEMS, Disk, file_system
from txregistry.storage.local_partial import LocalPartial
from txregistry.storage.local_reader import LocalReader
from txregistry.storage.local_sweep import sweep
from txregistry.storage.local_tree import Tree
from txregistry.storage.pool import Lanes

#: Largest object that is read in place, on the reactor's thread, in bytes.
IN_PLACE = 64 * 1024

#: No page of the page cache is smaller, in bytes.
PAGE = 4096

#: One of so many calls goes to the pool although it could be made in place: a loop over a thousand links would not let
#: anybody else run until its end.
PAUSE = 128


class WallClock(Protocol):
    """What tells the time that files are stamped with; a reactor does."""

    def seconds(self) -> float:
        """Seconds of the epoch."""
        ...


@implementer(IStorageDriver, IGroups, ILooksBelow, ISweeps)
class LocalDriver:
    """Bytes below `root`.

    The pool belongs to whoever made it. `IProvesFresh` is provided once `prepare` has found a local file system.
    """

    def __init__(self, root: str, pool: Lanes, clock: WallClock, disk: Disk | None = None) -> None:
        self._tree = Tree(root, disk or Disk())
        self._pool = pool
        self._clock = clock
        self._cached = False
        self._in_place = 0

    def prepare(self) -> None:
        """Make the root where it lacks, and see that it can be written; StorageError with one clear reason. Blocks."""
        self._tree.prepare()
        # A read "in place" may only find the page cache; on a network file system even that may wait for the server.
        self._cached = self._tree.local
        if self._cached:
            self._tree.disk.in_memory = file_system(self._tree.root) in MEMORY_FILE_SYSTEMS
            alsoProvides(self, IProvesFresh)

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object: at once if it is cached (with pauses, see PAUSE), else by the pool."""
        if self._may_look():
            try:
                found = self._tree.read_cached(path, min(limit, IN_PLACE))
            except StorageError as error:
                return fail(error)
            if found is not None:
                return succeed(found)
        return self._pool.run_small(self._tree.read, path, limit)

    def _may_look(self) -> bool:
        """Whether the next call may be made in place."""
        if not self._cached:
            return False
        self._in_place = (self._in_place + 1) % PAUSE
        return self._in_place != 0

    def open(self, path: str) -> Deferred[IReader]:
        """A large object; its reader also provides `ISendsFiles`."""
        if not self._may_look():
            return start(self._open(path))
        reader = LocalReader(self._tree, self._pool, path, self._cached)
        try:
            reader.open_now()
        except StorageError as error:
            reader.close()
            return fail(error)
        return succeed(reader)

    async def _open(self, path: str) -> IReader:
        reader = LocalReader(self._tree, self._pool, path, self._cached)
        try:
            await reader.open()
        except BaseException:
            reader.close()
            raise
        return reader

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object."""
        return self._pool.run_small(self._tree.put, path, data, if_absent, if_match)

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> Deferred[None]:
        """Write small objects in one job, durable together."""
        return self._pool.run_small(self._tree.put_all, objects)

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`."""
        return start(self._partial(path, create))

    async def _partial(self, path: str, create: bool) -> IPartial:
        partial = LocalPartial(self._tree, self._pool, path)
        try:
            if create:
                await partial.create(self._clock.seconds())
            else:
                await partial.reopen(self._clock.seconds)
        except BaseException:
            await partial.close()
            raise
        return partial

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""
        return self._pool.run_small(local_partial.peek, self._tree, path)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below `prefix`."""
        return self._pool.run_small(local_partial.partials, self._tree, prefix)

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of a path."""
        if not self._may_look():
            return self._pool.run_small(self._tree.stat, path)
        try:
            return succeed(self._tree.stat(path))
        except StorageError as error:
            return fail(error)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory, in the order of their names; at once if they are few."""
        if self._may_look():
            try:
                page = self._tree.list_few(prefix, cursor, limit)
            except StorageError as error:
                return fail(error)
            if page is not None:
                return succeed(page)
        return self._pool.run_small(self._tree.list, prefix, cursor, limit)

    def children_with(self, prefix: str, below: str, after: str, limit: int) -> Deferred[Sequence[str]]:
        """Names of children below which something is, in one job for all."""
        return self._pool.run_small(self._tree.children_with, prefix, below, after, limit)

    def move(self, source: str, target: str) -> Deferred[None]:
        """Give an object another path."""
        return self._pool.run_small(self._tree.move, source, target)

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object, or a directory with all below it."""
        return self._pool.run_small(self._tree.remove, path)

    def settle(self, path: str) -> Deferred[None]:
        """Make durable what another wrote."""
        if self._may_look():
            try:
                if self._tree.is_settled(path):
                    return succeed(None)
            except StorageError as error:
                return fail(error)
        return self._pool.run(self._tree.settle, path)

    def free_space(self) -> Deferred[int | None]:
        """Bytes that can still be written."""
        return (execute if self._cached else self._pool.run_small)(self._tree.free_space)

    def sweep(self, before: float) -> Deferred[int]:
        """Remove temporary files unchanged since `before` that nobody holds; how many there were."""
        return self._pool.run_small(sweep, self._tree, before)

    def close(self) -> Deferred[None]:
        """Nothing is kept open between calls."""
        return succeed(None)

    def read_now(self, path: str, limit: int) -> bytes | None:
        """A small object, if it is in the page cache."""
        disk = self._tree.disk
        try:
            fd = disk.open(self._tree.full(path), os.O_RDONLY)
        except OSError:
            return None
        try:
            if limit < PAGE:
                data = disk.pread_cached(fd, limit + 1, 0)
                return None if data is None or len(data) > limit else data
            # A read from the page cache may end early, at the end of a page.
            size = disk.stat_open(fd).st_size
            data = None if size > limit else disk.pread_cached(fd, size, 0)
            return None if data is None or len(data) != size else data
        except OSError:
            return None
        finally:
            disk.close(fd)

    def exists_now(self, path: str) -> bool:
        """Whether there is an object or a directory."""
        return self._tree.disk.exists(self._tree.full(path))
