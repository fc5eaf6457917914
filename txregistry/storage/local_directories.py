"""Directories that survive a power cut, and what is known of the files in them.

A file is durable only if every directory above it has its own name fsynced in its parent, *whoever made it*: one that
another request made a moment ago may vanish with all that is below it. So each is fsynced once for each process,
outermost first, and remembered until it is removed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from txregistry.storage.disk import Disk

#: Directories remembered, and files; about 3 MB each. One blob is one directory, so there is no end to them.
REMEMBERED = 16384


class _Names(dict[str, "_Names"]):
    """The remembered directories as a tree, so that forgetting one forgets all below it."""


class _Stay:
    """Somebody who is putting a name into a directory; `disturbed` once anything on its path was removed."""

    def __init__(self, directory: str, disturbed: bool) -> None:
        self.directory = directory
        self.disturbed = disturbed


def _within(directory: str, other: str) -> bool:
    return not other or directory == other or directory.startswith(other + "/")


class Directories:
    """The directories below `root`; safe to use from any thread. Paths are relative, failures are OSErrors."""

    def __init__(self, root: str, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._lock = threading.Lock()
        self._known = _Names()
        self._count = 0
        self._stays: set[_Stay] = set()
        self._going: list[str] = []

    def full(self, path: str) -> str:
        """The absolute path of a relative one."""
        return f"{self._root}/{path}" if path else self._root

    def make(self, directory: str) -> None:
        """Make a directory and those above it, not durably; FileNotFoundError when somebody removes them meanwhile."""
        try:
            self._disk.make_directory(self.full(directory))
        except FileExistsError:
            return
        except FileNotFoundError:
            parent, _, _ = directory.rpartition("/")
            if not parent:
                raise
            self.make(parent)
            with contextlib.suppress(FileExistsError):
                self._disk.make_directory(self.full(directory))

    @contextlib.contextmanager
    def durable(self, directory: str, make: bool = True) -> Iterator[None]:
        """A name put into `directory` inside this block survives a power cut when the block has ended.

        With `make` the directory and those above it are made where they lack. FileNotFoundError when something was
        removed by another process meanwhile: nothing is remembered then, and a second try starts from the root.
        """
        with self._lock:
            stay = _Stay(directory, any(_within(directory, going) for going in self._going))
            self._stays.add(stay)
        try:
            if not self.remembers(directory):
                self._sync_above(directory, make)
                with self._lock:
                    if not stay.disturbed:
                        self._remember(directory)
            yield
            with contextlib.suppress(FileNotFoundError):  # removed on purpose, with what was just put there
                self._disk.sync_directory(self.full(directory))
            if stay.disturbed:
                # A directory of that name may have been removed and made anew by somebody who has not synced it yet.
                self._sync_again(directory)
        except FileNotFoundError:
            self._forget("")
            raise
        finally:
            with self._lock:
                self._stays.discard(stay)

    @contextlib.contextmanager
    def removing(self, directory: str) -> Iterator[None]:
        """While a directory is removed nothing below it is taken for durable, and is forgotten afterwards."""
        with self._lock:
            self._going.append(directory)
            self._disturb(directory)
        try:
            yield
        finally:
            with self._lock:
                self._going.remove(directory)
            self._forget(directory)

    def _sync_above(self, directory: str, make: bool) -> None:
        for path in _outermost_first(directory):
            if self.remembers(path):
                continue
            if make:
                with contextlib.suppress(FileExistsError):
                    self._disk.make_directory(self.full(path))
            self._disk.sync_directory(self.full(path.rpartition("/")[0]))

    def _sync_again(self, directory: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # what is gone by now was removed on purpose
            for path in _outermost_first(directory):
                self._disk.sync_directory(self.full(path.rpartition("/")[0]))
            self._disk.sync_directory(self.full(directory))

    def remembers(self, directory: str) -> bool:
        """Whether a directory and all above it are known to be durable."""
        with self._lock:
            names: _Names | None = self._known
            for part in directory.split("/") if directory else ():
                names = names.get(part) if names is not None else None
            return names is not None

    def _remember(self, directory: str) -> None:
        if self._count >= REMEMBERED:
            self._known, self._count = _Names(), 0
        names = self._known
        for part in directory.split("/") if directory else ():
            if part not in names:
                names[part] = _Names()
                self._count += 1
            names = names[part]

    def _disturb(self, directory: str) -> None:
        for stay in self._stays:
            if _within(stay.directory, directory):
                stay.disturbed = True

    def _forget(self, directory: str) -> None:
        with self._lock:
            self._disturb(directory)
            if not directory:
                self._known, self._count = _Names(), 0
                return
            parent, _, last = directory.rpartition("/")
            names: _Names | None = self._known
            for part in parent.split("/") if parent else ():
                names = names.get(part) if names is not None else None
            if names is not None:
                names.pop(last, None)


def _outermost_first(directory: str) -> Iterator[str]:
    path = ""
    for part in directory.split("/") if directory else ():
        path = f"{path}/{part}" if path else part
        yield path


class Settled:
    """Files that are known to be durable, each in the state in which it was seen; safe to use from any thread."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._known

    def note(self, path: str, found: os.stat_result) -> None:
        """Remember a file; when there are too many all others are forgotten."""
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[path] = (found.st_ino, found.st_ctime_ns)

    def holds(self, path: str, found: os.stat_result) -> bool:
        """Whether a file is still what was remembered of it."""
        return self._known.get(path) == (found.st_ino, found.st_ctime_ns)
