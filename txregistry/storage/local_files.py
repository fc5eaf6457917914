"""What the local driver does to files: how they are written, get their names, and become durable.

    _txregistry/tmp/put/<random>        files being written; each locked by its writer until it has its name
    _txregistry/tmp/removed/<random>    directories on their way out
    _txregistry/tmp/locks/<hh>          a lock for each of 256 groups of paths, never removed

An object gets its name by rename, under the lock of its path: two processes that compare and replace never both win.
The lock is held for the comparison and the rename alone, never during an fsync, and one thread never wants two.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence

from txregistry.errors import NoSpace, NotFound, ReadOnly, StorageError, Unavailable
from txregistry.storage.disk import IOV_MAX, Disk, is_local
from txregistry.storage.layout import TMP
from txregistry.storage.local_directories import Directories, Settled

PUT = f"{TMP}/put"
REMOVED = f"{TMP}/removed"
LOCKS = f"{TMP}/locks"

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def parent_of(path: str) -> str:
    """The directory that holds a path; empty for the root."""
    return path.rpartition("/")[0]


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two names or descriptors lead to one file."""
    return (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)


class Files:
    """What every verb of the tree below `root` is made of; safe to use from any thread."""

    def __init__(self, root: str, disk: Disk) -> None:
        self.root = os.path.abspath(root)
        self.disk = disk
        self.directories = Directories(self.root, disk)
        self.full = self.directories.full
        #: Whether a call that only asks for what the kernel has at hand never waits for a network.
        self.local = False
        #: The boot of this machine, during which what was written is there; empty on another machine's disk.
        self.boot = b""
        self._identity: os.stat_result | None = None
        self._settled = Settled()

    def prepare(self) -> None:
        """Make the root and our own directories, and try what the driver needs; StorageError with one clear reason."""
        try:
            self._make_root(self.root)
            if not stat.S_ISDIR(self.disk.stat(self.root).st_mode):
                raise Unavailable("", f"storage path {self.root} is not a directory")
            self._identity = self.disk.stat(self.root)
            self.local = is_local(self.root)
            self.boot = self.disk.boot() if self.local else b""
            for directory in (PUT, REMOVED, LOCKS):
                self.directories.make(directory)
            fd, temporary = self.temporary()  # a file that can be written and locked
            try:
                self.write_all(fd, [b"\n"], 0)
            finally:
                self.drop_temporary(fd, temporary)
        except OSError as error:
            raise Unavailable("", f"storage path {self.root} cannot be written: {error.strerror}") from error

    def _make_root(self, path: str) -> None:
        try:
            self.disk.stat(path)
        except FileNotFoundError:
            self._make_root(os.path.dirname(path))
            with contextlib.suppress(FileExistsError):  # another worker starts at the same moment
                self.disk.make_directory(path)
            self.disk.sync_directory(os.path.dirname(path))

    # -- errors -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def errors(self, path: str, writing: bool = False) -> Iterator[None]:
        """Turn an OSError of the block into the StorageError that it means for `path`."""
        try:
            yield
        except OSError as error:
            raise self.error(path, error, writing) from error

    def error(self, path: str, error: OSError, writing: bool = False) -> StorageError:
        """The StorageError that an OSError means; what is missing is NotFound, unless it was to be written."""
        reason = error.strerror or str(error)
        if error.errno in _MISSING and not writing:
            return NotFound(path) if self._present() else Unavailable(path, "the storage root is gone")
        if error.errno in _FULL:
            return NoSpace(path, reason)
        if error.errno == errno.EROFS:
            return ReadOnly(path, reason)
        return Unavailable(path, reason)

    def check_root(self) -> None:
        """Unavailable when the root is gone."""
        if not self._present():
            raise Unavailable("", "the storage root is gone")

    def _present(self) -> bool:
        """Whether the root is still what it was at the start: a file system that went away is an outage, not a 404."""
        try:
            found = self.disk.stat(self.root)
        except OSError:
            return False
        return self._identity is None or same_file(found, self._identity)

    # -- parts ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Hold the lock of a path's group, against threads and processes alike."""
        group = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=1).hexdigest()
        fd = self._open_ours(LOCKS, group, os.O_RDWR | os.O_CREAT)
        try:
            self.disk.lock(fd, wait=True)
            yield
        finally:
            self.disk.close(fd)

    def temporary(self) -> tuple[int, str]:
        """A new, empty, locked file to be renamed; its descriptor and absolute path."""
        name = secrets.token_hex(16)
        fd = self._open_ours(PUT, name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        path = self.full(f"{PUT}/{name}")
        try:
            self.disk.lock(fd, wait=False)
        except BaseException:
            self.drop_temporary(fd, path)
            raise
        return fd, path

    def drop_temporary(self, fd: int, path: str) -> None:
        """Close a temporary file and remove its name, if it still has that one."""
        with contextlib.suppress(OSError):  # gone, or left for the sweep
            self.disk.unlink(path)
        self.disk.close(fd)

    def _open_ours(self, directory: str, name: str, flags: int) -> int:
        try:
            return self.disk.open(self.full(f"{directory}/{name}"), flags)
        except FileNotFoundError:
            self.check_root()
            self.directories.make(directory)
            return self.disk.open(self.full(f"{directory}/{name}"), flags)

    def write_all(self, fd: int, pieces: Sequence[bytes], at: int) -> int:
        """Write all the pieces from offset `at` on; the offset behind them."""
        left: list[bytes | memoryview] = [piece for piece in pieces if piece]
        begin = 0
        while begin < len(left):
            count = self.disk.pwritev(fd, left[begin : begin + IOV_MAX], at)
            if count <= 0:
                raise OSError(errno.EIO, "a write took no bytes")
            at += count
            while begin < len(left) and count >= len(left[begin]):
                count -= len(left[begin])
                begin += 1
            if count:
                left[begin] = memoryview(left[begin])[count:]
        return at

    def into(self, path: str, lock: str, action: Callable[[], None]) -> None:
        """Run `action`, which gives something the name `path`, durably and under the lock of `lock`."""
        self.name_all([(path, lock, action)])

    def name_all(self, names: Sequence[tuple[str, str, Callable[[], None]]]) -> None:
        """The same for several, given as (path, lock, action), in this order; all of them durable at the end.

        An action is run a second time, after making the directories anew, when it met FileNotFoundError: somebody may
        have removed one that was known to be there.
        """
        left = list(names)
        for last in (False, True):
            try:
                with contextlib.ExitStack() as stack:
                    for directory in dict.fromkeys(parent_of(path) for path, _, _ in names):
                        stack.enter_context(self.directories.durable(directory))
                    while left:
                        _, lock, action = left[0]
                        with self.locked(lock):
                            action()
                        del left[0]
                return
            except FileNotFoundError:
                if last:
                    raise

    def discard(self, directory: str) -> None:
        """Take a directory out of the tree at once, not durably, then remove what is in it. OSErrors."""
        self.directories.make(REMOVED)
        gone = f"{REMOVED}/{secrets.token_hex(16)}"
        with self.directories.removing(directory), self.locked(directory):
            self.disk.rename(self.full(directory), self.full(gone))
        with contextlib.suppress(OSError):  # the rest is left for the sweep
            self.clear(self.full(gone))

    def clear(self, directory: str) -> None:
        """Remove a directory, given by its absolute path, and all below it. OSErrors."""
        for name, _ in self.disk.scan(directory):
            path = f"{directory}/{name}"
            try:
                self.disk.unlink(path)
            except IsADirectoryError:
                self.clear(path)
        self.disk.remove_directory(directory)
