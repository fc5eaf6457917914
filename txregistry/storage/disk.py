"""The operating system as the local driver sees it: every call goes through one `Disk`.

Nothing here decides anything. It is one object so that a test can put another in its place, which records the calls,
fails one of them, or leaves out an fsync (`txregistry/testing/faults.py`). Paths are absolute; errors are `OSError`s.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

#: File systems whose page cache is on this machine and whose calls do not wait for a network or another process.
#: What is not known here is treated as remote: slower, never wrong.
LOCAL_FILE_SYSTEMS = frozenset(
    ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"]
)
#: Those of them that are nothing but a page cache.
MEMORY_FILE_SYSTEMS = frozenset(["ramfs", "tmpfs"])

#: The most pieces that one `pwritev` takes.
IOV_MAX = os.sysconf("SC_IOV_MAX")


class Disk:
    """Calls of the operating system, one method each."""

    #: Whether no read waits for a disk, as all is in memory; such file systems do not take RWF_NOWAIT.
    in_memory = False

    def boot(self) -> bytes:
        """What is another once everything that was not synced may be lost; empty where that is not known."""
        return boot_id()

    # -- descriptors ------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """A descriptor; a new file gets mode 0666 as the umask leaves it."""
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def close(self, fd: int) -> None:
        """Close a descriptor, and with the last one drop its lock."""
        os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes."""
        return os.pread(fd, size, offset)

    def pread_cached(self, fd: int, size: int, offset: int) -> bytes | None:
        """Up to `size` bytes from the page cache, without waiting for the disk; None when it would have to."""
        buffer = bytearray(size)
        try:
            count = os.preadv(fd, (buffer,), offset, os.RWF_NOWAIT)
        except OSError:
            # EAGAIN is the ordinary miss. Whatever else it is, the blocking read that follows will tell.
            return self.pread(fd, size, offset) if self.in_memory else None
        del buffer[count:]
        return bytes(buffer)

    def pwritev(self, fd: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        """Write some of the bytes; how many."""
        return os.pwritev(fd, pieces, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file off."""
        os.ftruncate(fd, size)

    def copy_range(self, source: int, target: int, size: int, offset: int) -> int:
        """Copy up to `size` bytes at `offset` of both files inside the kernel; how many."""
        return os.copy_file_range(source, target, size, offset, offset)

    def touch(self, fd: int) -> None:
        """Set the time of modification to now."""
        os.utime(fd)

    def sync_file(self, fd: int) -> None:
        """Make the bytes of a file durable; not its name."""
        os.fsync(fd)

    def lock(self, fd: int, wait: bool) -> None:
        """Lock a file for this descriptor alone; BlockingIOError when another has it and `wait` is false.

        `flock`, not POSIX locks: those would be given twice to one process.
        """
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def stat_open(self, fd: int) -> os.stat_result:
        """What is known of an open file."""
        return os.fstat(fd)

    # -- names ------------------------------------------------------------------------------------------------

    def stat(self, path: str) -> os.stat_result:
        """What is known of a path."""
        return os.stat(path)

    def exists(self, path: str) -> bool:
        """Whether there is anything at a path that this process can see."""
        return os.access(path, os.F_OK)

    def exist(self, directory: str, paths: Iterable[str]) -> Iterator[bool]:
        """The same for each of many paths, relative to a directory, which is looked up once."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in paths:
                yield os.access(path, os.F_OK, dir_fd=fd)
        finally:
            os.close(fd)

    def scan(self, path: str, most: int | None = None) -> list[tuple[str, bool]]:
        """Name and whether it is a directory, for each child or for the first `most`, in no order."""
        with os.scandir(path) as entries:
            return [(entry.name, entry.is_dir()) for entry in islice(entries, most)]

    def names(self, path: str) -> list[str]:
        """The name of each child, in no order."""
        return os.listdir(path)

    def make_directory(self, path: str) -> None:
        """Make a directory with mode 0777 as the umask leaves it."""
        os.mkdir(path, 0o777)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError when something has it."""
        os.link(source, target)

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name, which may be another file's."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file's name."""
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free(self, path: str) -> int:
        """Bytes that an ordinary user can still write."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


class UnsyncedDisk(Disk):
    """One that leaves it to the kernel when bytes and names become durable."""

    def sync_file(self, fd: int) -> None:
        """Do nothing."""

    def sync_directory(self, path: str) -> None:
        """Do nothing."""


def boot_id(path: str = "/proc/sys/kernel/random/boot_id") -> bytes:
    """What is another after each boot of the machine; empty where the kernel does not tell."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(64).strip()
    return b""


def file_system(path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
    """The type of the file system that holds a path, such as `ext4`; None where the kernel does not tell."""
    wanted = os.path.realpath(path) + "/"
    best, kind = -1, None
    with contextlib.suppress(OSError), open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            place, _, rest = line.partition(" - ")
            # The kernel writes blanks, tabs, newlines and backslashes of a mount point as \ooo.
            point = place.split()[4].replace("\\040", " ").replace("\\011", "\t")
            point = point.replace("\\012", "\n").replace("\\134", "\\").rstrip("/") + "/"
            if wanted.startswith(point) and len(point) >= best:  # a later mount at the same place covers it
                best, kind = len(point), rest.split()[0]
    return kind


def is_local(path: str) -> bool:
    """Whether reads of cached data in place never wait for a network or another process."""
    return file_system(path) in LOCAL_FILE_SYSTEMS
