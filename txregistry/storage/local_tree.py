"""The verbs of the local driver as plain blocking calls: the jobs that it gives to the pool."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import heapq
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice

from txregistry.errors import LostRace, NotFound, StorageError, TooLarge, Unavailable
from txregistry.interfaces import Entry, Page, Stat, Version
from txregistry.storage.local_files import Files, parent_of

#: Largest object whose version `put(if_match=)` compares, in bytes.
COMPARED = 64 << 20

#: Children of a directory that can be listed in place.
FEW = 32

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def version_of(data: bytes) -> Version:
    """The version of a small object: a hash of its bytes, as inode numbers and times are used twice."""
    return Version(hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class _Nameless:
    """A written file that is to become the object at `path`."""

    tree: Tree
    path: str
    fd: int
    temporary: str

    def rename(self) -> None:
        """Give it its name."""
        self.tree.disk.rename(self.temporary, self.tree.full(self.path))


class Tree(Files):
    """The tree below `root`. Failures are StorageErrors; safe to use from any thread."""

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
                self.settled(path, fd)
            finally:
                self.drop_temporary(fd, temporary)
        return version_of(data)

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write small objects that get their names in this order, and are durable together."""
        with self.errors(objects[0][0], writing=True), self.written(objects) as files:
            self.name_all([(file.path, file.path, file.rename) for file in files])

    @contextlib.contextmanager
    def written(self, objects: Sequence[tuple[str, bytes]]) -> Iterator[Sequence[_Nameless]]:
        """Files with the contents of small objects, durable, but still without their names.

        All are written before the first is synced, and so are the directories made that they go to: what the file
        system is told of in one go it makes durable in one go.
        """
        files: list[_Nameless] = []
        try:
            for path, data in objects:
                files.append(_Nameless(self, path, *self.temporary()))
                self.write_all(files[-1].fd, [data], 0)
            for file in files:
                self.directories.make(parent_of(file.path))
            for file in files:
                self.disk.sync_file(file.fd)
            yield files
            for file in files:
                self.settled(file.path, file.fd)
        finally:
            for file in files:
                self.drop_temporary(file.fd, file.temporary)

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
        return self._page(self._scan(prefix, None), cursor, limit)

    def list_few(self, prefix: str, cursor: str | None, limit: int) -> Page | None:
        """The same; None of a directory with more than FEW children, which take their time."""
        found = self._scan(prefix, FEW + 1)
        return None if len(found) > FEW else self._page(found, cursor, limit)

    def children_with(self, prefix: str, below: str, after: str, limit: int) -> Sequence[str]:
        """Sorted names of children below which `below` is there."""
        try:
            with self.errors(prefix):
                directory = self.full(prefix)
                names = sorted(name for name in self.disk.names(directory) if name > after)
                there = self.disk.exist(directory, (f"{name}/{below}" for name in names))
                return list(islice(compress(names, there), limit))
        except NotFound:
            return ()

    def _scan(self, directory: str, most: int | None) -> Sequence[tuple[str, bool]]:
        try:
            with self.errors(directory):
                return self.disk.scan(self.full(directory), most)
        except NotFound:
            return ()

    @staticmethod
    def _page(found: Sequence[tuple[str, bool]], cursor: str | None, limit: int) -> Page:
        if cursor is None and len(found) <= limit:
            return Page(tuple(Entry(name, is_directory) for name, is_directory in sorted(found)), None)
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
        """Make durable what somebody else wrote."""
        with self.errors(path):
            found = self.disk.stat(self.full(path))
            self._sync_object(path)
            with self.directories.durable(parent_of(path), make=False):
                pass
        self._settled.note(path, found)

    def is_settled(self, path: str) -> bool:
        """Whether an object is known to be durable as it is."""
        if path not in self._settled or not self.directories.remembers(parent_of(path)):
            return False
        with self.errors(path):
            return self._settled.holds(path, self.disk.stat(self.full(path)))

    def settled(self, path: str, fd: int) -> None:
        """Note that an open file is durable under the name that it was given."""
        self._settled.note(path, self.disk.stat_open(fd))

    def _sync_object(self, path: str) -> None:
        with self._opened(path) as fd:
            self.disk.sync_file(fd)

    def free_space(self) -> int:
        """Bytes that can still be written."""
        with self.errors(""):
            return self.disk.free(self.root)
