"""Disks that fail, and what a file system may leave behind when the power is cut.

`RecordingDisk` notes each call that changes something, with the things that were acknowledged meanwhile (`mark`).
`crash_states` yields the trees that may be found after a power cut at any moment: all that was fsynced, and of the rest
any part, in any order. What was acknowledged before that moment must be whole in each of them.

    disk = RecordingDisk(root)
    driver = LocalDriver(root, ImmediatePool(), clock, disk)
    ... await driver.put("a", b"1"); disk.mark(("a", b"1")) ...
    for state in crash_states(disk):
        state.materialise(directory); look for each of state.acknowledged there

The model is stricter than most file systems: names are durable only by an fsync of their directory, a rename from one
directory to another may leave both names (never none), and unsynced calls take effect in any combination.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from txregistry.storage.disk import Disk

#: What `RecordingDisk(without=)` can leave out: the fsync of files, that of a directory in which an object's name
#: changed, and that of a directory in which another directory was made.
SYNCS = ("file", "directory", "chain")


class FaultyDisk(Disk):
    """A disk whose calls can be made to fail: `fail(name, error)` lets the next call of that name raise `error`.

    `calls` has the name of each call and its first argument, in order.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._faults: list[tuple[str, OSError, int, Callable[[object], bool]]] = []

    def fail(self, name: str, error: OSError, after: int = 0, only: Callable[[object], bool] = lambda _: True) -> None:
        """Let a call of `name` raise `error`, once, after `after` more that `only` accepts by their first argument."""
        assert callable(getattr(Disk, name)), name
        self._faults.append((name, error, after, only))

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name not in Disk.__dict__ or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            argument = args[0] if args else None
            self.calls.append((name, argument))
            for index, (wanted, error, after, only) in enumerate(self._faults):
                if wanted == name and only(argument):
                    if not after:
                        del self._faults[index]
                        raise error
                    self._faults[index] = (wanted, error, after - 1, only)
                    break
            return found(*args, **kwargs)

        return call


@dataclass(frozen=True)
class Change:
    """One effect on the disk. Files and directories are numbered, as their names may change.

    `on` is what an fsync must name to make it durable; `needs` the index of a change without which it does not happen.
    """

    what: str  # "write", "truncate", "name", "unname"
    on: int
    name: str = ""  # of "name" and "unname"
    target: int = 0  # what a "name" names, or an "unname" named
    data: bytes = b""
    at: int = 0  # offset of a "write", size of a "truncate"
    needs: int | None = None

    def describe(self) -> str:
        """The change in a few words."""
        return f"{self.what} {self.name or self.at} of {self.on}"


@dataclass
class Node:
    """A file with its bytes, or a directory with its names."""

    data: bytearray | None = None
    names: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Node:
        """One that can be changed without changing this."""
        return Node(None if self.data is None else bytearray(self.data), dict(self.names))


ROOT = 0


class RecordingDisk(Disk):
    """A disk that notes what changes below `root`; `without` leaves out one kind of fsync (see `SYNCS`).

    What was there at the start counts as durable. Changes are noted one at a time, from whatever thread.
    """

    def __init__(self, root: str, without: str | None = None) -> None:
        assert without is None or without in SYNCS
        self._root = os.path.abspath(root)
        self._without = without
        self._lock = threading.RLock()
        self._open: dict[int, int] = {}
        self._made_directory: dict[int, bool] = {}
        self.nodes: dict[int, Node] = {}  # as they are now
        self._new(Node())
        if os.path.isdir(self._root):
            self._adopt(self._root, ROOT)
        self.start = {number: node.copy() for number, node in self.nodes.items()}
        self.log: list[Change | tuple[str, object]] = []  # changes, ("sync", node) and ("mark", thing)

    def boot(self) -> bytes:
        """Another than that of whoever reads what the cut has left."""
        return b"before-the-cut"

    def mark(self, thing: object) -> None:
        """Note that something was acknowledged at this moment."""
        with self._lock:
            self.log.append(("mark", thing))

    # -- the tree as it is --------------------------------------------------------------------------------------

    def _new(self, node: Node) -> int:
        self.nodes[len(self.nodes)] = node
        return len(self.nodes) - 1

    def _adopt(self, path: str, number: int) -> None:
        for entry in os.scandir(path):
            if entry.is_dir():
                child = self._new(Node())
                self._adopt(entry.path, child)
            else:
                with open(entry.path, "rb") as file:
                    child = self._new(Node(bytearray(file.read())))
            self.nodes[number].names[entry.name] = child

    def _find(self, path: str) -> int | None:
        if path == self._root:
            return ROOT
        if not path.startswith(self._root + "/"):
            return None
        number: int | None = ROOT
        for part in path[len(self._root) + 1 :].split("/"):
            number = self.nodes[number].names.get(part) if number is not None else None
        return number

    def _place(self, path: str) -> tuple[int, str] | None:
        """Directory and name of a path; None outside the root."""
        parent = self._find(os.path.dirname(path))
        return None if parent is None else (parent, os.path.basename(path))

    def _note(self, change: Change) -> int:
        _apply(self.nodes, change)
        self.log.append(change)
        return len(self.log) - 1

    def _name(self, path: str, target: int, makes_directory: bool = False) -> int | None:
        place = self._place(path)
        if place is None:
            return None
        self._made_directory[place[0]] = makes_directory
        return self._note(Change("name", place[0], place[1], target))

    def _unname(self, path: str, needs: int | None = None) -> None:
        place = self._place(path)
        if place is not None:
            self._made_directory[place[0]] = False
            target = self.nodes[place[0]].names.get(place[1], -1)
            self._note(Change("unname", place[0], place[1], target, needs=needs))

    # -- calls ----------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """Open, and note a new file."""
        with self._lock:
            fd = super().open(path, flags)
            number = self._find(path)
            if number is None and flags & os.O_CREAT and self._place(path) is not None:
                number = self._new(Node(bytearray()))
                self._name(path, number)
            if number is not None:
                self._open[fd] = number
            return fd

    def close(self, fd: int) -> None:
        """Close."""
        with self._lock:
            self._open.pop(fd, None)
            super().close(fd)

    def pwritev(self, fd: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        """Write, and note the bytes that were written."""
        with self._lock:
            count = super().pwritev(fd, pieces, offset)
            self._note(Change("write", self._open[fd], data=b"".join(pieces)[:count], at=offset))
            return count

    def truncate(self, fd: int, size: int) -> None:
        """Cut off, and note it."""
        with self._lock:
            super().truncate(fd, size)
            self._note(Change("truncate", self._open[fd], at=size))

    def copy_range(self, source: int, target: int, size: int, offset: int) -> int:
        """Copy, noted as a write."""
        with self._lock:
            count = super().copy_range(source, target, size, offset)
            self._note(Change("write", self._open[target], data=os.pread(source, count, offset), at=offset))
            return count

    def sync_file(self, fd: int) -> None:
        """Note that a file's bytes are durable."""
        with self._lock:
            if self._without != "file":
                super().sync_file(fd)
                self.log.append(("sync", self._open[fd]))

    def sync_directory(self, path: str) -> None:
        """Note that a directory's names are durable."""
        with self._lock:
            number = self._find(path)
            kind = "chain" if number is not None and self._made_directory.get(number) else "directory"
            super().sync_directory(path)
            if number is not None and self._without != kind:
                self.log.append(("sync", number))

    def make_directory(self, path: str) -> None:
        """Make a directory, and note it."""
        with self._lock:
            super().make_directory(path)
            self._name(path, self._new(Node()), makes_directory=True)

    def remove_directory(self, path: str) -> None:
        """Remove a directory, and note it."""
        with self._lock:
            super().remove_directory(path)
            self._unname(path)

    def link(self, source: str, target: str) -> None:
        """Give a second name, and note it."""
        with self._lock:
            super().link(source, target)
            number = self._find(source)
            assert number is not None
            self._name(target, number)

    def rename(self, source: str, target: str) -> None:
        """Rename: a new name, and the old one gone, which cannot happen without the first."""
        with self._lock:
            super().rename(source, target)
            number = self._find(source)
            assert number is not None
            self._unname(source, needs=self._name(target, number))

    def unlink(self, path: str) -> None:
        """Remove a name, and note it."""
        with self._lock:
            super().unlink(path)
            self._unname(path)


def _apply(nodes: dict[int, Node], change: Change) -> None:
    node = nodes[change.on]
    if change.what == "name":
        node.names[change.name] = change.target
    elif change.what == "unname":
        if node.names.get(change.name) == change.target:
            del node.names[change.name]
    else:
        assert node.data is not None
        if change.what == "truncate":
            del node.data[change.at :]
            node.data.extend(bytes(change.at - len(node.data)))
        else:
            node.data.extend(bytes(max(0, change.at - len(node.data))))
            node.data[change.at : change.at + len(change.data)] = change.data


@dataclass(frozen=True)
class CrashState:
    """What may be found after a power cut: `calls` tells how long the log was then, `how` what of it was lost."""

    acknowledged: tuple[object, ...]
    nodes: dict[int, Node]
    calls: int
    how: str

    def files(self) -> dict[str, bytes]:
        """The contents of each file by its path."""
        return {path: bytes(node.data) for path, _, node in self._walk("", ROOT) if node.data is not None}

    def key(self) -> object:
        """Equal for states that look the same from outside."""
        tree = tuple(
            (path, number, None if node.data is None else bytes(node.data))
            for path, number, node in self._walk("", ROOT)
        )
        return tree, len(self.acknowledged)

    def _walk(self, above: str, number: int) -> Iterator[tuple[str, int, Node]]:
        for name, child in sorted(self.nodes[number].names.items()):
            path = f"{above}{name}"
            yield path, child, self.nodes[child]
            yield from self._walk(path + "/", child)

    def materialise(self, directory: str) -> None:
        """Make `directory` look so, whatever was there."""
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        made: dict[int, str] = {}
        for path, number, node in self._walk("", ROOT):
            full = f"{directory}/{path}"
            if node.data is None:
                os.mkdir(full)
            elif number in made:
                os.link(made[number], full)
            else:
                made[number] = full
                with open(full, "wb") as file:
                    file.write(node.data)


def crash_states(disk: RecordingDisk, window: int = 12) -> Iterator[CrashState]:
    """Each state that may be found after a power cut, at every prefix of the calls; equal ones once.

    At each prefix: nothing lost; all lost that was not fsynced; all unsynced bytes lost and names kept; the other way
    round; and of the last `window` unsynced changes each one alone lost, and each one alone kept.
    """
    seen: set[object] = set()
    for length in range(len(disk.log) + 1):
        for state in _states_at(disk, length, window):
            key = state.key()
            if key not in seen:
                seen.add(key)
                yield state


def _states_at(disk: RecordingDisk, length: int, window: int) -> Iterator[CrashState]:
    log = disk.log[:length]
    synced = _synced(log)
    changes = {index: entry for index, entry in enumerate(log) if isinstance(entry, Change)}
    unsynced = changes.keys() - synced
    names = {index for index in unsynced if changes[index].what in ("name", "unname")}
    kept: list[tuple[str, set[int]]] = [
        ("nothing lost", unsynced),
        ("all unsynced lost", set()),
        ("unsynced bytes lost", names),
        ("unsynced names lost", unsynced - names),
    ]
    for index in sorted(unsynced)[-window:]:
        kept.append((f"lost: {changes[index].describe()}", unsynced - {index}))
        kept.append((f"kept alone: {changes[index].describe()}", {index}))
    acknowledged = tuple(entry[1] for entry in log if not isinstance(entry, Change) and entry[0] == "mark")
    for how, keep in kept if unsynced else kept[:1]:
        done: set[int] = set()
        nodes = {number: node.copy() for number, node in disk.start.items()}
        for number in range(len(disk.start), len(disk.nodes)):
            nodes[number] = Node(None if disk.nodes[number].data is None else bytearray())
        for index, change in changes.items():
            if (index in synced or index in keep) and (change.needs is None or change.needs in done):
                _apply(nodes, change)
                done.add(index)
        yield CrashState(acknowledged, nodes, length, how)


def _synced(log: Sequence[Change | tuple[str, object]]) -> set[int]:
    """The changes that an fsync made durable; the new name of a rename with the loss of the old one."""
    synced: set[int] = set()
    last: dict[object, int] = {}
    for index, entry in reversed(list(enumerate(log))):
        if not isinstance(entry, Change):
            if entry[0] == "sync":
                last.setdefault(entry[1], index)
        elif index in synced or last.get(entry.on, -1) > index:
            synced.add(index)
            if entry.needs is not None:
                synced.add(entry.needs)
    return synced


def count_states(disk: RecordingDisk, check: Callable[[CrashState], Sequence[str]]) -> tuple[int, list[str]]:
    """Run `check` on each state; how many there were, and all that it found wrong."""
    wrong: list[str] = []
    total = 0
    for state in crash_states(disk):
        total += 1
        wrong.extend(f"after {state.calls} calls, {state.how}: {text}" for text in check(state))
    return total, wrong
