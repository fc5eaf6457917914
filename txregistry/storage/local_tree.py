"""What the local driver does to a directory tree, as plain blocking calls: the jobs that it gives to the pool.

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
import heapq
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence

from txregistry.errors import LostRace, NoSpace, NotFound, ReadOnly, StorageError, TooLarge, Unavailable
from txregistry.interfaces import Entry, Page, Stat, Version
from txregistry.storage.disk import IOV_MAX, Disk
from txregistry.storage.layout import TMP
from txregistry.storage.local_directories import Directories

PUT = f"{TMP}/put"
REMOVED = f"{TMP}/removed"
LOCKS = f"{TMP}/locks"

#: Largest object whose version `put(if_match=)` compares, in bytes.
COMPARED = 64 << 20

#: Files whose durability is remembered by `settle`.
REMEMBERED = 16384

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def version_of(data: bytes) -> Version:
    """The version of a small object: a hash of its bytes, as inode numbers and times are used twice."""
    return Version(hashlib.sha256(data).hexdigest())


def parent_of(path: str) -> str:
    """The directory that holds a path; empty for the root."""
    return path.rpartition("/")[0]


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two names or descriptors lead to one file."""
    return (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)


class Tree:
    """The tree below `root`. Failures are StorageErrors; safe to use from any thread."""

    def __init__(self, root: str, disk: Disk) -> None:
        self.root = os.path.abspath(root)
        self.disk = disk
        self.directories = Directories(self.root, disk)
        self.full = self.directories.full
        self._identity: os.stat_result | None = None
        self._settled: dict[str, tuple[int, int]] = {}

    def prepare(self) -> None:
        """Make the root and our own directories, and try what the driver needs; StorageError with one clear reason."""
        try:
            self._make_root(self.root)
            if not stat.S_ISDIR(self.disk.stat(self.root).st_mode):
                raise Unavailable("", f"storage path {self.root} is not a directory")
            self._identity = self.disk.stat(self.root)
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
        """Run `action`, which gives something the name `path`, durably and under the lock of `lock`.

        It is run a second time, after making the directories anew, when it met FileNotFoundError: somebody may have
        removed one that was known to be there.
        """
        for last in (False, True):
            try:
                with self.directories.durable(parent_of(path)), self.locked(lock):
                    action()
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

    # -- verbs ------------------------------------------------------------------------------------------------

    def read(self, path: str, limit: int) -> tuple[bytes, Version]:
        """A whole small object, from the disk if need be."""
        with self.errors(path):
            return self._read(path, limit)

    def _read(self, path: str, limit: int) -> tuple[bytes, Version]:
        with self._opened(path) as fd:
            size = self.regular(path, fd).st_size
            if size > limit:
                raise TooLarge(path, f"{size} bytes, {limit} at most")
            data = b""
            while piece := self.disk.pread(fd, size - len(data), len(data)):
                data += piece
            return data, version_of(data)

    def read_cached(self, path: str, limit: int) -> tuple[bytes, Version] | None:
        """The same from the page cache alone; None when the disk would have to be waited for, or above the limit."""
        with self.errors(path), self._opened(path) as fd:
            size = self.regular(path, fd).st_size
            data = self.disk.pread_cached(fd, size, 0) if size <= limit else None
            return None if data is None or len(data) != size else (data, version_of(data))

    def stamp(self, path: str, limit: int) -> bytes | None:
        """What is equal as long as an object is: its contents up to `limit` bytes, else what its inode says."""
        try:
            fd = self.disk.open(self.full(path), os.O_RDONLY)
        except OSError:
            return None
        try:
            data = self.disk.pread(fd, limit + 1, 0)
            if len(data) <= limit:
                return b"=" + data
            found = self.disk.stat_open(fd)
            return b"#%d %d %d %d" % (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        except OSError:  # a directory
            return None
        finally:
            self.disk.close(fd)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = self.disk.open(self.full(path), os.O_RDONLY)
        try:
            yield fd
        finally:
            self.disk.close(fd)

    def regular(self, path: str, fd: int) -> os.stat_result:
        """What is known of an open file; NotFound of a directory."""
        found = self.disk.stat_open(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(path)
        return found

    def put(self, path: str, data: bytes, if_absent: bool, if_match: Version | None) -> Version:
        """Write a small object: a synced temporary file, then its name, then the directories."""

        def give_name() -> None:
            if if_absent:
                self._link_or_lose(temporary, path)
                return
            if if_match is not None:
                try:
                    current = self._read(path, COMPARED)
                except (FileNotFoundError, StorageError):
                    current = None
                if current is None or current[1] != if_match:
                    raise LostRace(path, "another version is there")
            self.disk.rename(temporary, self.full(path))

        with self.errors(path, writing=True):
            fd, temporary = self.temporary()
            try:
                self.write_all(fd, [data], 0)
                self.disk.sync_file(fd)
                self.into(path, path, give_name)
            finally:
                self.drop_temporary(fd, temporary)
        return version_of(data)

    def _link_or_lose(self, temporary: str, path: str) -> None:
        try:
            self.disk.link(temporary, self.full(path))
        except FileExistsError:
            raise LostRace(path, "something is there already") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Without hard links the lock keeps others of ours away, though not other programs.
            with contextlib.suppress(FileNotFoundError):
                self.disk.stat(self.full(path))
                raise LostRace(path, "something is there already") from None
            self.disk.rename(temporary, self.full(path))

    def stat(self, path: str) -> Stat:
        """Size, time and kind of a path."""
        with self.errors(path):
            found = self.disk.stat(self.full(path))
        is_directory = stat.S_ISDIR(found.st_mode)
        return Stat(0 if is_directory else found.st_size, found.st_mtime, is_directory)

    def list(self, prefix: str, cursor: str | None, limit: int) -> Page:
        """A page of children in the order of their names; the cursor is the last name of the page before."""
        try:
            with self.errors(prefix):
                found = self.disk.scan(self.full(prefix))
        except NotFound:
            return Page((), None)
        later = found if cursor is None else [child for child in found if child[0] > cursor]
        page = heapq.nsmallest(limit + 1, later)
        entries = tuple(Entry(name, is_directory) for name, is_directory in page[:limit])
        return Page(entries, entries[-1].name if len(page) > limit and entries else None)

    def move(self, source: str, target: str) -> None:
        """Rename an object, durably."""

        def rename() -> None:
            self.disk.stat(self.full(source))  # so that a missing source is told from a missing directory
            self.disk.rename(self.full(source), self.full(target))

        with self.errors(source):
            self._sync_object(source)
            with self.directories.removing(source):
                self.into(target, target, rename)
            self.disk.sync_directory(self.full(parent_of(source)))

    def remove(self, path: str) -> None:
        """Remove an object or a directory with all below it, durably; a directory disappears at once."""
        if not path:
            raise Unavailable(path, "the root is never removed")
        with self.errors(path):
            if stat.S_ISDIR(self.disk.stat(self.full(path)).st_mode):
                self.discard(path)
            else:
                with self.locked(path):
                    self.disk.unlink(self.full(path))
            with contextlib.suppress(FileNotFoundError):  # the parent is removed as well, durably by its remover
                self.disk.sync_directory(self.full(parent_of(path)))

    def settle(self, path: str) -> None:
        """Make durable what somebody else wrote; once for each process and state of the file."""
        with self.errors(path):
            found = self.disk.stat(self.full(path))
            known = (found.st_ino, found.st_ctime_ns)
            if self._settled.get(path) == known and self.directories.remembers(parent_of(path)):
                return
            self._sync_object(path)
            with self.directories.durable(parent_of(path), make=False):
                pass
        if len(self._settled) >= REMEMBERED:
            self._settled.clear()
        self._settled[path] = known

    def _sync_object(self, path: str) -> None:
        with self._opened(path) as fd:
            self.disk.sync_file(fd)

    def free_space(self) -> int:
        """Bytes that can still be written."""
        with self.errors(""):
            return self.disk.free(self.root)
