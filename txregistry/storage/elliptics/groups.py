"""Groups of replicas as one store: versions, quorums, compare and swap, repair; blocking.

**What is true** is the newest version that `quorum` groups were asked to take and took. A reader therefore asks enough
groups that they and the groups of any acknowledged write have one in common, and takes the newest. With fewer answers
it cannot know, which is `Unavailable` and never `NotFound`. A group that had an older version gets the newest at once.

**Who wins** of several writers is decided by compare and swap in the first group, in order, that answers; the others
follow, each by compare and swap with what it has, so that a late writer never puts an old version over a new one.

**What is deleted** leaves a tombstone, a version without contents, so that a group that slept through it cannot bring
the object back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from txregistry.errors import LostRace, NoSpace, ReadOnly, StorageError, Unavailable
from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.session import Session
from txregistry.storage.elliptics.stored import (
    ABSENT,
    FOREIGN,
    INLINE,
    LARGEST_RECORD,
    TRAILER_SIZE,
    Stamp,
    Stored,
    decode,
    encode,
)

#: How much of an object is asked for at first; a small one is whole then.
FIRST = INLINE + TRAILER_SIZE

#: How often a writer that loses against others tries again.
ATTEMPTS = 64

#: Where the paths of objects that a group missed are remembered.
BEHIND = "_txregistry/state/elliptics/behind"

#: How much of these notes is read at a time, in bytes.
WINDOW = 1 << 20

Failures = dict[int, Exception]


class Stamps:
    """Stamps for new versions: each later than all before it that this process made or saw."""

    def __init__(self, seconds: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._seconds = seconds
        self._random = random
        self._lock = threading.Lock()
        self._last = 0

    def next(self, after: Stamp = (0, b"")) -> Stamp:
        """A stamp later than `after`."""
        with self._lock:
            self._last = max(self._last + 1, after[0] + 1, int(self._seconds() * 1e9))
            return self._last, self._random(16)


@dataclass(frozen=True, slots=True)
class Seen:
    """An object in all groups that answered, and the newest of them."""

    newest: Stored
    by_group: dict[int, Stored]
    failures: Failures


def quorum_of(groups: int) -> int:
    """How many groups have to take a write if nothing else is configured: most, but of two only one."""
    return 1 if groups == 2 else groups // 2 + 1


class Groups:
    """The groups as a job sees them, with its session. `quorum` of them make a write."""

    def __init__(self, session: Session, groups: Sequence[int], quorum: int, stamps: Stamps) -> None:
        self.session = session
        self.groups = tuple(groups)
        self.quorum = quorum
        self.stamps = stamps

    @property
    def needed(self) -> int:
        """How many groups have to answer a reader, so that no acknowledged write can be hidden from it."""
        return len(self.groups) - self.quorum + 1

    # -- reading ------------------------------------------------------------------------------------------------

    def look(self, key: str) -> Seen:
        """The object in every group that answers. A record that is damaged is no answer."""
        by_group: dict[int, Stored] = {}
        failures: Failures = {}
        for group in self.groups:
            try:
                by_group[group] = self._look(group, key)
            except (Lost, Refused) as error:
                failures[group] = error
        newest = max(by_group.values(), key=lambda stored: stored.stamp, default=ABSENT)
        return Seen(newest, by_group, failures)

    def _look(self, group: int, key: str) -> Stored:
        try:
            got = self.session.read(group, key, 0, FIRST)
            data = got.data
            if FIRST < got.total <= LARGEST_RECORD and len(data) == FIRST:
                tail = self.session.read(group, key, got.total - TRAILER_SIZE, TRAILER_SIZE)
                if decode(tail.data, len(tail.data), 0.0).kind != FOREIGN:  # a long record of ours
                    data = self.session.read(group, key, 0, got.total).data
        except Refused as error:
            if error.status == wire.ENOENT:
                return ABSENT
            raise
        return decode(data, got.total, got.modified)

    def sure(self, key: str, path: str) -> Seen:
        """The same, of as many groups as a reader needs, and with stale ones mended. Unavailable."""
        seen = self.look(key)
        if len(seen.by_group) < self.needed:
            raise outage(path, seen.failures, f"{len(seen.by_group)} of {self.needed} groups needed answered")
        having = self._repair(key, seen)
        if having < min(self.quorum, len(seen.by_group)):
            # It may never have been acknowledged, and the next reader might not find it.
            raise outage(path, seen.failures, "the newest version is in too few groups")
        return seen

    def _repair(self, key: str, seen: Seen) -> int:
        """Give the newest version to groups that lack it; how many have it then."""
        if not seen.newest.raw or not seen.newest.is_whole:
            return len(seen.by_group)
        having = 0
        for group, stored in seen.by_group.items():
            with suppress(Lost, Refused):
                if stored.stamp < seen.newest.stamp:
                    self.advance(group, key, stored, seen.newest)
                having += 1
        for group, error in seen.failures.items():
            if isinstance(error, Refused) and error.status == wire.EILSEQ:
                with suppress(Lost, Refused):
                    self.session.write(group, key, [seen.newest.raw])
        return having

    # -- writing ------------------------------------------------------------------------------------------------

    def advance(self, group: int, key: str, there: Stored, new: Stored) -> None:
        """Let a group that was seen to have `there` have `new`, or something newer. Lost, Refused."""
        for _ in range(ATTEMPTS):
            if there.stamp >= new.stamp:
                return
            try:
                self._replace(group, key, there, new)
            except Refused as error:
                if error.status != wire.EBADFD:
                    raise
                there = self._look(group, key)
            else:
                return
        raise Lost(f"group {group}: {key} changes all the time")

    def _replace(self, group: int, key: str, there: Stored, new: Stored) -> None:
        # Of a large object that the original wrote the hash is not known; nobody else rewrites those.
        flags = wire.IO_COMPARE_AND_SWAP if there.is_whole else 0
        self.session.write(group, key, [new.raw], flags, there.proof)

    def swap(self, key: str, path: str, seen: Seen, kind: int, data: bytes) -> Stored:
        """Replace what was seen by a new version. LostRace if something else is there; Unavailable.

        `seen` comes from `sure`, unless the writer means to replace whatever is there.
        """
        if len(seen.by_group) < self.quorum:
            raise outage(path, seen.failures, f"{len(seen.by_group)} of {self.quorum} groups needed answered")
        new = encode(kind, data, self.stamps.next(seen.newest.stamp))
        taken: list[int] = []
        failures: Failures = dict(seen.failures)
        for group in self.groups:
            there = seen.by_group.get(group)
            if there is None:
                continue
            try:
                if not taken:
                    self._decide(group, key, path, there, seen, new)
                else:
                    self.advance(group, key, there, new)
            except Lost as error:
                failures[group] = error
                if not taken:
                    # It may have been done, so another group must not decide otherwise.
                    raise outage(path, failures, "the group that decides broke off") from error
            except Refused as error:
                failures[group] = error
            else:
                taken.append(group)
        if len(taken) < self.quorum:
            raise outage(path, failures, f"{len(taken)} of {self.quorum} groups needed took the write")
        self.remember(key, tuple(failures), taken)
        return new

    def _decide(self, group: int, key: str, path: str, there: Stored, seen: Seen, new: Stored) -> None:
        if there.stamp < seen.newest.stamp and seen.newest.raw:
            self.advance(group, key, there, seen.newest)
            there = seen.newest
        try:
            self._replace(group, key, there, new)
        except Refused as error:
            if error.status != wire.EBADFD:
                raise
            raise LostRace(path, "something else is there") from None

    def remember(self, key: str, failures: Sequence[int], taken: Sequence[int]) -> None:
        """Note what a group missed, in those that did not: a line for each, in a log of the group's."""
        for missing in failures:
            line = key.encode().hex().encode() + b"\n"
            for group in taken:
                with suppress(Lost, Refused):  # readers mend as well, only not as soon
                    self.session.write(group, f"{BEHIND}/{missing}", [line], wire.IO_APPEND | wire.IO_NOCSUM)

    def missed(self, missing: int, group: int) -> tuple[set[str], int]:
        """The keys that a group has noted for another one, and the length of these notes. Lost, Refused."""
        keys: set[str] = set()
        rest, at, total = b"", 0, 1
        while at < total:
            try:
                got = self.session.read(group, f"{BEHIND}/{missing}", at, WINDOW, checked=False)
            except Refused as error:
                if error.status == wire.ENOENT and not at:
                    return keys, 0
                raise
            at, total = at + len(got.data), got.total
            *lines, rest = (rest + got.data).split(b"\n")
            keys |= {bytes.fromhex(line.decode()).decode() for line in lines}
        return keys, at

    def forget(self, missing: int, group: int, length: int) -> None:
        """Drop notes of this length, after all was mended, unless more have come. Lost, Refused.

        A note that comes in between is lost, and its object left to the readers: they mend what they read.
        """
        if self.size(group, f"{BEHIND}/{missing}") == length:
            self.session.remove(group, f"{BEHIND}/{missing}")

    # -- data -----------------------------------------------------------------------------------------------------

    def append(self, key: str, data: Sequence[bytes], groups: Sequence[int]) -> tuple[list[int], Failures]:
        """Append to an object without checksum in each of the groups: those that took it, and the others.

        What a group did that broke off is not known.
        """
        taken: list[int] = []
        failures: Failures = {}
        for group in groups:
            try:
                self.session.write(group, key, data, wire.IO_APPEND | wire.IO_NOCSUM)
            except (Lost, Refused) as error:
                failures[group] = error
            else:
                taken.append(group)
        return taken, failures

    def piece(self, key: str, path: str, at: int, size: int, groups: Sequence[int]) -> bytes:
        """`size` bytes at an offset, from the first of the groups that has them. Unavailable."""
        failures: Failures = {}
        for group in groups:
            try:
                got = self.session.read(group, key, at, size, checked=False)
            except (Lost, Refused) as error:
                failures[group] = error
                continue
            if len(got.data) == size:
                return got.data
            failures[group] = Lost(f"group {group} has {len(got.data)} of {size} bytes at {at}")
        raise outage(path, failures, "no group has the bytes")

    def size(self, group: int, key: str) -> int:
        """Bytes of an object in one group; 0 if there is none. Lost, Refused."""
        try:
            return self.session.read(group, key, 0, 1, checked=False).total
        except Refused as error:
            if error.status == wire.ENOENT:
                return 0
            raise


def outage(path: str, failures: Failures, reason: str) -> StorageError:
    """The error for an operation that too few groups could do."""
    statuses = {error.status for error in failures.values() if isinstance(error, Refused)}
    told = "; ".join(f"group {group}: {error}" for group, error in failures.items())
    kind: Any = Unavailable
    if wire.ENOSPC in statuses:
        kind = NoSpace
    elif wire.EROFS in statuses:
        kind = ReadOnly
    error: StorageError = kind(path, f"{reason} ({told})" if told else reason)
    return error
