"""Groups of replicas as one store: versions, quorums, compare and swap, repair; blocking.

**What is true** is the newest version that `quorum` groups were asked to take and took. A reader therefore asks enough
groups that they and the groups of any acknowledged write have one in common, and takes the newest; or one group that
is known to have everything (see `standing`). Else it cannot know, which is `Unavailable` and never `NotFound`. A group
that had an older version gets the newest at once. Bytes of large objects need none of this: they are written once,
under a key of their own, and the record that names them says how many there are and who has them.

**Who wins** of several writers is decided by compare and swap in the first group, in order, that answers; the others
follow, each by compare and swap with what it has, so that a late writer never puts an old version over a new one.

**What is deleted** leaves a tombstone, a version without contents, so that a group that slept through it cannot bring
the object back.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from txregistry.errors import LostRace, NoSpace, ReadOnly, StorageError, Unavailable
from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.connection import Lost, Refused, Silent, Unreachable
from txregistry.storage.elliptics.session import Session
from txregistry.storage.elliptics.standing import Standing
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

#: What lies there when nothing is noted any more.
NO_NOTES = b"\n"

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

    def __init__(
        self, session: Session, groups: Sequence[int], quorum: int, stamps: Stamps, standing: Standing
    ) -> None:
        self.session = session
        self.groups = tuple(groups)
        self.quorum = quorum
        self.stamps = stamps
        self.standing = standing

    @property
    def needed(self) -> int:
        """How many groups have to answer a reader, so that no acknowledged write can be hidden from it."""
        return len(self.groups) - self.quorum + 1

    @property
    def may_part(self) -> bool:
        """Whether a write can stand without the groups that a reader may ask, so that `standing` decides."""
        return self.needed > self.quorum

    def enough(self, answered: Collection[int]) -> bool:
        """Whether no acknowledged write can be hidden from whoever asked these groups. Ask it after them."""
        return len(answered) >= self.needed or (self.may_part and any(map(self.standing.complete, answered)))

    # -- reading ------------------------------------------------------------------------------------------------

    def look(self, key: str) -> Seen:
        """The object in every group that answers. A record that is damaged is no answer."""
        by_group: dict[int, Stored] = {}
        failures: Failures = {}
        for group in self.groups:
            try:
                by_group[group] = self.look_in(group, key)
            except (Lost, Refused) as error:
                failures[group] = error
        newest = max(by_group.values(), key=lambda stored: stored.stamp, default=ABSENT)
        return Seen(newest, by_group, failures)

    def look_in(self, group: int, key: str) -> Stored:
        """The object in one group. Lost, Refused."""
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
        if not self.enough(seen.by_group):
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
        having: list[int] = []
        for group, stored in seen.by_group.items():
            with suppress(Lost, Refused):
                if stored.stamp < seen.newest.stamp:
                    self.advance(group, key, stored, seen.newest)
                having.append(group)
        failed = [group for group in seen.by_group if group not in having]
        if failed:
            self.remember(key, failed, having)
        for group, error in seen.failures.items():
            if isinstance(error, Refused) and error.status == wire.EILSEQ:
                with suppress(Lost, Refused):
                    self.session.write(group, key, [seen.newest.raw])
        return len(having)

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
                there = self.look_in(group, key)
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
        if len(seen.by_group) < self.quorum or (self.may_part and not self.enough(seen.by_group)):
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
                    self._make_decide(group, key, path, there, seen, new)
                else:
                    self.advance(group, key, there, new)
            except Lost as error:
                failures[group] = error
                if not taken and not (isinstance(error, Unreachable) and error.refused):
                    # It may have been done, so another group must not decide otherwise.
                    raise outage(path, failures, "the group that decides broke off") from error
            except Refused as error:
                failures[group] = error
            else:
                taken.append(group)
        self.acknowledge(key, path, taken, failures)
        return new

    def _make_decide(self, group: int, key: str, path: str, there: Stored, seen: Seen, new: Stored) -> None:
        """Let the first group decide, and if it breaks off ask it once more what became of that.

        Unreachable if nobody listens there any more. If it has taken the version, then the same one as the next group
        is asked to take; it can have told somebody else that he had won only just before it died.
        """
        try:
            self._decide(group, key, path, there, seen, new)
        except Silent:
            raise
        except Lost:
            now = self.look_in(group, key)
            if now.stamp == new.stamp:
                return
            if now.stamp > seen.newest.stamp:
                raise LostRace(path, "something else is there") from None
            self._decide(group, key, path, now, seen, new)

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

    def acknowledge(self, key: str, path: str, taken: Sequence[int], failures: Failures) -> None:
        """Let a write stand that these groups took, and see that the others get it later. Unavailable if it cannot."""
        if len(taken) < self.quorum:
            raise outage(path, failures, f"{len(taken)} of {self.quorum} groups needed took the write")
        missing = [group for group in self.groups if group not in taken]
        if not missing:
            return
        noted = self.remember(key, missing, taken)
        if self.may_part and not (noted and any(map(self.standing.complete, taken))):
            raise outage(path, failures, "no group that has everything took the write")

    def remember(self, key: str, missing: Sequence[int], taken: Sequence[int]) -> bool:
        """Note what groups missed, in those that did not: a line for each, in a log for each. Whether one did so."""
        line = key.encode().hex().encode() + b"\n"
        noted = set()
        for group in missing:
            for other in taken:
                with suppress(Lost, Refused):
                    self.session.write(other, f"{BEHIND}/{group}", [line], wire.IO_APPEND | wire.IO_NOCSUM)
                    noted.add(group)
            self.standing.missed(group)
        return len(noted) == len(missing)

    def missed(self, missing: int, group: int) -> tuple[set[str], bytes]:
        """The keys that a group has noted for another one, and the proof of these notes. Lost, Refused."""
        keys: set[str] = set()
        hashed = hashlib.sha512()
        rest, at, total = b"", 0, 1
        while at < total:
            try:
                got = self.session.read(group, f"{BEHIND}/{missing}", at, WINDOW, checked=False)
            except Refused as error:
                if error.status == wire.ENOENT and not at:
                    return keys, b""
                raise
            hashed.update(got.data)
            at, total = at + len(got.data), got.total
            *lines, rest = (rest + got.data).split(b"\n")
            keys |= {bytes.fromhex(line.decode()).decode() for line in lines if line}
        return keys, hashed.digest()

    def has_notes(self, missing: int, group: int) -> bool:
        """Whether a group has noted anything for another one. Lost, Refused."""
        return self.size(group, f"{BEHIND}/{missing}") > len(NO_NOTES)

    def forget(self, missing: int, group: int, proof: bytes) -> None:
        """Drop notes with this proof, after all was mended, unless more have come. Lost, Refused."""
        flags = wire.IO_COMPARE_AND_SWAP | wire.IO_NOCSUM  # without a checksum, as what is appended later has none
        try:
            self.session.write(group, f"{BEHIND}/{missing}", [NO_NOTES], flags, proof)
        except Refused as error:
            if error.status != wire.EBADFD:
                raise

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
                if not self.session.reaches(group, key, at):
                    failures[group] = Lost(f"group {group} has less than {at} bytes")
                    continue
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
