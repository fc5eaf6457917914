"""What lies in a directory: a log for each, to which every writer only appends; blocking.

A line is a JSON array of a sign, a stamp, a kind and a name: `+` when a name appears, `-` when it goes. For each name
the newest line holds, in whatever order and however often the lines of all groups are read, so that groups need not
agree on one order and a group that missed some gets just those. Compare and swap would let every two writers into one
directory race, and a table would be rewritten for each of its names.

Directories of V1 are listed in the original's index tables too, on servers that have these, since there what the
original wrote is found. A log's line is newer than any of those.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.groups import Failures, Groups, outage
from txregistry.storage.elliptics.stored import IMPOSSIBLE, Stamp

LOGS = "_txregistry/state/elliptics/directories"

FILE, DIRECTORY, PARTIAL = "f", "d", "p"

#: The largest log that is read, in bytes.
LONGEST = 32 * 1024 * 1024

#: A log is rewritten when it has more than twice the lines it needs, and so many more.
SLACK = 200

#: After so many appends to one log this process looks whether it should be rewritten.
LOOK_AFTER = 256

#: How long a `-` is kept for groups that might have missed it, in nanoseconds: a day.
KEPT = 24 * 3600 * 10**9

#: After so long nobody is still writing the object whose name was entered, in nanoseconds: ten minutes.
STALE = 600 * 10**9

#: The stamp of names that the original wrote.
OLDEST = 1

V1_TOPS = ("images", "repositories")

#: For each kind and name, the stamp of its newest line and whether that has a `+`.
Names = dict[tuple[str, str], tuple[int, bool]]


def parent_of(path: str) -> tuple[str, str]:
    """A path's directory and its last component."""
    directory, _, name = path.rpartition("/")
    return directory, name


def above(path: str) -> Iterator[tuple[str, str]]:
    """The directories above a path, the nearest first, each as its own directory and name."""
    while path := parent_of(path)[0]:
        yield parent_of(path)


def is_v1(path: str) -> bool:
    """Whether the original may have written there."""
    return not path or path.split("/", 1)[0] in V1_TOPS


def kind_in_v1(path: str) -> str:
    """What a path of V1 is: that follows from its depth alone."""
    parts = path.split("/")
    return DIRECTORY if len(parts) <= (2 if parts[0] == "images" else 3) else FILE


def merge(names: Names, log: bytes) -> int:
    """Take the lines of a log into `names`; how many lines it has."""
    count = 0
    for line in log.split(b"\n"):
        if line:
            sign, stamp, kind, name = json.loads(line)
            count += 1
            there = names.get((kind, name))
            if there is None or (stamp, sign == "+") > there:
                names[kind, name] = (stamp, sign == "+")
    return count


def lines_of(names: Mapping[tuple[str, str], tuple[int, bool]]) -> list[bytes]:
    """Lines that say so."""
    return [
        json.dumps(["+" if alive else "-", stamp, kind, name]).encode() + b"\n"
        for (kind, name), (stamp, alive) in names.items()
    ]


class Directories:
    """The logs, as all jobs of a process use them; what a job may do comes with its `Groups`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._appends: dict[str, int] = {}

    def add(self, groups: Groups, path: str, kind: str, after: Stamp) -> None:
        """Enter a name and all directories above it, the nearest first, later than `after`. Unavailable.

        In this order nobody who takes an empty directory out of the one above can overlook it: see `prune`.
        """
        directory, name = parent_of(path)
        self._append(groups, directory, {(kind, name): (groups.stamps.next(after)[0], True)})
        for directory, name in above(path):
            self._append(groups, directory, {(DIRECTORY, name): (groups.stamps.next()[0], True)})

    def note(self, groups: Groups, directory: str, kind: str, name: str, alive: bool, stamp: int | None = None) -> None:
        """Write one line into one log. Unavailable.

        The stamp of a `-` is that of the tombstone: whoever puts the object again has seen that, and is later.
        """
        self._append(groups, directory, {(kind, name): (stamp or groups.stamps.next()[0], alive)})

    def prune(self, groups: Groups, directory: str, once: bool = False) -> None:
        """Take a directory that is empty out of the one above, and (unless `once`) so on upward. Unavailable."""
        while directory:
            stamp = groups.stamps.next()[0]
            if self.living(groups, directory):
                return
            above_directory, name = parent_of(directory)
            self.note(groups, above_directory, DIRECTORY, name, False, stamp)
            if self.living(groups, directory):  # somebody came in between, and had entered this directory before that
                self.note(groups, above_directory, DIRECTORY, name, True)
                return
            if once:
                return
            directory = above_directory

    def forget(self, groups: Groups, path: str, kind: str, tombstone: Stamp) -> bool:
        """Take out a name behind which nothing is, as a cut write or removal leaves it; whether there was one.

        A name that is later than the tombstone may belong to a write under way, so it must have been there a while.
        """
        directory, name = parent_of(path)
        stamp = self.names(groups, directory, kind).get(name)
        if stamp is None or (stamp > tombstone[0] and stamp > groups.stamps.next()[0] - STALE):
            return False
        self.note(groups, directory, kind, name, False, max(stamp + 1, tombstone[0]))
        return True

    def names(self, groups: Groups, directory: str, kind: str) -> dict[str, int]:
        """The living names of one kind in a log, each with its stamp. Unavailable."""
        return {
            name: stamp for (k, name), (stamp, alive) in self._load(groups, directory).items() if k == kind and alive
        }

    def living(self, groups: Groups, directory: str) -> set[tuple[str, str]]:
        """Kind and name of all that lies in a directory. Unavailable."""
        names = self._load(groups, directory)
        found = {key for key, (_, alive) in names.items() if alive}
        if is_v1(directory):
            for path in self._of_original(groups, directory, groups.groups):
                key = (kind_in_v1(path), parent_of(path)[1])
                if key not in names:
                    found.add(key)
        return found

    def _of_original(self, groups: Groups, directory: str, of: Sequence[int]) -> Iterator[str]:
        for group in of:
            with suppress(Lost, Refused):  # `_load` has seen to it that enough groups answer
                if groups.session.has_indexes(group):
                    for data in groups.session.find_indexes(group, ["docker", directory]):
                        path = data.decode("utf-8", "replace")
                        if path and parent_of(path)[0] == directory:
                            yield path

    def _append(self, groups: Groups, directory: str, names: Names) -> None:
        lines = lines_of(names)
        key = f"{LOGS}/{directory}"
        taken, failures = groups.append(key, lines, groups.groups)
        groups.acknowledge(key, directory, taken, failures)
        with self._lock:
            count = self._appends[directory] = self._appends.get(directory, 0) + 1
            if count >= LOOK_AFTER:
                del self._appends[directory]
        if count >= LOOK_AFTER:
            self._load(groups, directory)

    def bring_up(self, groups: Groups, directory: str) -> bool:
        """Give each group the lines that only others have; whether all of them have the same then. Unavailable."""
        return self._loaded(groups, directory)[1]

    def adopt(self, groups: Groups, directory: str, group: int) -> None:
        """Enter what the original wrote, and a group's own index tables lack. Unavailable."""
        if is_v1(directory):
            names, own = self._load(groups, directory), set(self._of_original(groups, directory, [group]))
            for path in set(self._of_original(groups, directory, groups.groups)) - own:
                if (key := (kind_in_v1(path), parent_of(path)[1])) not in names:
                    self.note(groups, directory, *key, True, OLDEST)

    def _load(self, groups: Groups, directory: str) -> Names:
        return self._loaded(groups, directory)[0]

    def _loaded(self, groups: Groups, directory: str) -> tuple[Names, bool]:
        """The names, and whether every group was seen to have them all."""
        key = f"{LOGS}/{directory}"
        logs: dict[int, bytes] = {}
        failures: Failures = {}
        for group in groups.groups:
            try:
                got = groups.session.read(group, key, 0, LONGEST, checked=False)
            except Refused as error:
                if error.status == wire.ENOENT:
                    logs[group] = b""
                else:
                    failures[group] = error
            except Lost as error:
                failures[group] = error
            else:
                if got.total > len(got.data):
                    failures[group] = Lost(f"group {group}: the log of a directory has {got.total} bytes")
                else:
                    logs[group] = got.data
        if not groups.enough(logs):
            raise outage(directory, failures, f"{len(logs)} of {groups.needed} groups needed answered")
        names: Names = {}
        counts = {group: merge(names, log) for group, log in logs.items()}
        alike = self._bring_up(groups, key, names, logs) and not failures
        for group, log in logs.items():
            if counts[group] > 2 * len(names) + SLACK:
                self._rewrite(groups, key, group, log, names, forget=alike)
        return names, alike

    def _bring_up(self, groups: Groups, key: str, names: Names, logs: dict[int, bytes]) -> bool:
        """Append to each log what only others have; whether all have the same then."""
        if len(set(logs.values())) == 1:
            return True
        failed = False
        for group, log in logs.items():
            own: Names = {}
            merge(own, log)
            lacking = {name: state for name, state in names.items() if own.get(name) != state}
            if lacking:
                _, failures = groups.append(key, lines_of(lacking), [group])
                failed = failed or bool(failures)
        return not failed

    def _rewrite(self, groups: Groups, key: str, group: int, log: bytes, names: Names, forget: bool) -> None:
        """Replace a log that nobody appended to meanwhile by one with a line for each name."""
        old = groups.stamps.next()[0] - KEPT
        kept = {name: state for name, state in names.items() if state[1] or state[0] > old or not forget}
        proof = hashlib.sha512(log).digest() if log else IMPOSSIBLE
        # Without a checksum, as what is appended later has none.
        with suppress(Lost, Refused):
            flags = wire.IO_COMPARE_AND_SWAP | wire.IO_NOCSUM
            groups.session.write(group, key, lines_of(kept or names), flags, proof)


def index(groups: Groups, path: str) -> None:
    """Enter an object of V1, and markers for the directories above it, into the original's index tables.

    For servers of the original only; nothing here depends on it, so that a failure is none.
    """
    for group in groups.groups:
        with suppress(Lost, Refused):
            if not groups.session.has_indexes(group):
                continue
            groups.session.set_indexes(group, path, ["docker", parent_of(path)[0]], path.encode())
            child = path
            while child := parent_of(child)[0]:
                try:
                    groups.session.write(group, child, [b"DIRECTORY"], wire.IO_COMPARE_AND_SWAP, IMPOSSIBLE)
                except Refused as error:
                    if error.status != wire.EBADFD:
                        raise
                    break  # it has its marker, and so have those above
                groups.session.set_indexes(group, child, ["docker", parent_of(child)[0]], child.encode())


def unindex(groups: Groups, path: str) -> None:
    """Take an object out of the original's index tables."""
    for group in groups.groups:
        with suppress(Lost, Refused):
            if groups.session.has_indexes(group):
                groups.session.set_indexes(group, path, [], b"")
