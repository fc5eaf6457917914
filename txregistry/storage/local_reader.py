"""Open files of the local driver: descriptors that outlive whoever gave them up, and readers over them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txregistry.errors import Unavailable
from txregistry.interfaces import Chunks, IReader, ISendsFiles
from txregistry.storage.local_tree import Tree
from txregistry.storage.pool import Lanes

T = TypeVar("T")

#: Bytes read by one job of the pool.
CHUNK = 512 * 1024

#: Bytes read from the page cache in one go on the reactor's thread.
CACHED = 256 * 1024


class Descriptor:
    """A file descriptor that is closed when the last of its holders lets go, in whatever thread.

    A cancelled wait does not stop its thread: were the file closed meanwhile, its number would be given to another
    file, and the job would go on with that one. So each job has a hold of its own. A job that opens a file puts it
    here at once, as nobody may be left to take its result.
    """

    def __init__(self, close: Callable[[int], None]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._holds = 1
        self._fd = -1
        self.closed = False

    @property
    def fd(self) -> int:
        """The descriptor's number; -1 before `adopt`."""
        return self._fd

    def adopt(self, fd: int) -> None:
        """Take over a file just opened."""
        assert self._fd == -1
        self._fd = fd

    def run(self, lane: Callable[..., Deferred[T]], function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run `function(*args)` in a lane of the pool, which may use the descriptor until it returns."""
        with self._lock:
            assert self._holds, "the file is closed"
            self._holds += 1
        return lane(function, *args).addBoth(self._after_job)

    def _after_job(self, result: T) -> T:
        self._release()
        return result

    def close(self) -> None:
        """Let go of the first hold, its opener's; a second time does nothing."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._release()

    def _release(self) -> None:
        with self._lock:
            self._holds -= 1
            fd = self._fd if not self._holds else -1
        if fd != -1:
            self._close(fd)


@implementer(IReader, ISendsFiles)
class LocalReader:
    """An open file; `cached` says whether to try the page cache before the pool."""

    def __init__(self, tree: Tree, pool: Lanes, path: str, cached: bool) -> None:
        self._tree = tree
        self._pool = pool
        self._path = path
        self._cached = cached
        self._descriptor = Descriptor(tree.disk.close)
        self.size = 0
        self.modified = 0.0

    async def open(self) -> None:
        """Open the file; NotFound, also for a directory."""
        await self._descriptor.run(self._pool.run_small, self.open_now)

    def open_now(self) -> None:
        """The same at once, in whatever thread."""
        with self._tree.errors(self._path):
            self._descriptor.adopt(self._tree.disk.open(self._tree.full(self._path), os.O_RDONLY))
            found = self._tree.regular(self._path, self._descriptor.fd)
            self.size, self.modified = found.st_size, found.st_mtime

    def fileno(self) -> int:
        """The descriptor, for `sendfile`; valid until `close`."""
        return self._descriptor.fd

    def chunks(self, start: int, stop: int) -> Chunks:
        """The bytes from `start` up to `stop`."""
        return _FileChunks(self, start, stop)

    def close(self) -> None:
        """Let go of the file; a running job keeps it open until its end."""
        self._descriptor.close()

    async def piece(self, at: int, size: int) -> bytes:
        """Some of `size` bytes at an offset, at least one; Unavailable behind the end of the file."""
        if self._cached and not self._descriptor.closed:
            found = self._tree.disk.pread_cached(self._descriptor.fd, min(size, CACHED), at)
            if found:
                return found
        data: bytes = await self._descriptor.run(self._pool.run, self._read, at, min(size, CHUNK))
        if not data:
            raise Unavailable(self._path, f"it ends at {at}, before its {self.size} bytes")
        return data

    def _read(self, at: int, size: int) -> bytes:  # in a thread
        with self._tree.errors(self._path):
            return self._tree.disk.pread(self._descriptor.fd, size, at)


class _FileChunks:
    """The bytes of a range; see `Chunks`."""

    def __init__(self, reader: LocalReader, start: int, stop: int) -> None:
        self._reader = reader
        self._at = start
        self._stop = stop

    def __aiter__(self) -> _FileChunks:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= self._stop:
            raise StopAsyncIteration
        data = await self._reader.piece(self._at, self._stop - self._at)
        self._at += len(data)
        return data

    def close(self) -> None:
        self._stop = self._at
