"""Partial objects: a record that is claimed by compare and swap, and bytes that are appended without checksums.

The record says who holds the object and until when, and what the last checkpoint was. The bytes lie in segments, each
a key to which one holder appends: a server checks no record that was appended to without a checksum, which makes an
upload linear. A segment is as long as its record says, whatever lies behind that. So a holder that was overtaken may
append to its own key for ever and harms nobody; and where it is not known whether a server has taken an append, the
segment ends before it, and the next begins with the same bytes.

A key is in the record before its first byte is written, so that whoever ends a dead upload knows of it.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NotFound, StorageError, WrongOffset
from txregistry.interfaces import IPartial, PartialInfo, Tap
from txregistry.model.uploads import STATE_LIMIT
from txregistry.storage.clock import Clock
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.directories import PARTIAL, parent_of
from txregistry.storage.elliptics.groups import ATTEMPTS, Groups, outage
from txregistry.storage.elliptics.stored import (
    INLINE,
    NEVER,
    PLAIN,
    POINTER,
    TOMBSTONE,
    Pointer,
    Segment,
    Stamp,
    pack_segments,
    unpack_segments,
)
from txregistry.storage.elliptics.tree import PARTIALS, PIECE, RECORD, Tree, new_data_key
from txregistry.storage.pool import Lanes

#: Seconds without a moved byte after which a holder may be replaced, and between two signs of life.
HOLD, RENEW = 5.0, 1.0

#: The same for a commit, during which no byte of a client moves.
COMMIT_HOLD = 60.0


@dataclass(frozen=True)
class Record:
    """What all know of a partial object: holder (empty: none), times, the last checkpoint, the key that the holder
    appends to or will, and the path to which it is being committed.
    """

    holder: str = ""
    held_until: float = 0.0
    moved: float = 0.0
    offset: int = 0
    state: bytes = b""
    segments: tuple[Segment, ...] = ()
    planned: str = ""
    committing: str = ""

    @property
    def keys(self) -> set[str]:
        """All keys of bytes."""
        return {segment.key for segment in self.segments} | ({self.planned} if self.planned else set())

    def encode(self) -> bytes:
        """As JSON."""
        fields = {**self.__dict__, "state": base64.b64encode(self.state).decode()}
        return json.dumps({**fields, "segments": pack_segments(self.segments)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """From JSON."""
        fields = json.loads(data)
        fields["state"] = base64.b64decode(fields["state"])
        fields["segments"] = unpack_segments(fields["segments"])
        return cls(**fields)


def key_of(path: str) -> str:
    """Where the record of a partial object lies."""
    return f"{PARTIALS}/{path}"


def load(groups: Groups, path: str) -> tuple[Record | None, Stamp]:
    """The record of a partial object, None if there is none or it has ended, and the stamp of what is there."""
    found = groups.sure(key_of(path), path).newest
    return Record.decode(found.data) if found.is_live else None, found.stamp


def peek(tree: Tree, path: str) -> PartialInfo:
    """A partial object seen without taking it; blocking."""
    with tree.job() as groups:
        record, _ = load(groups, path)
    if record is None:
        raise NotFound(path)
    return PartialInfo(record.offset, record.state, record.moved)


def end_partial(tree: Tree, groups: Groups, path: str) -> bool:
    """End a partial object, whoever holds it; whether there was one. Blocking."""
    for _ in range(ATTEMPTS):
        record, stamp = load(groups, path)
        if record is None:
            return tree.directories.forget(groups, path, PARTIAL, stamp)
        with suppress(LostRace):
            _bury(tree, groups, path, stamp, record.keys, record.committing)
            return True
    raise Busy(path)


def _bury(tree: Tree, groups: Groups, path: str, stamp: Stamp, keys: set[str], committing: str) -> None:
    """Put a tombstone in the place of a record with this stamp, and remove what is below it. LostRace.

    The name goes last, so that whoever finds it without a record knows that this was cut.
    """
    seen = groups.sure(key_of(path), path)
    if seen.newest.stamp != stamp:
        raise LostRace(path, "another request took it over or finished it")
    stone = groups.swap(key_of(path), path, seen, TOMBSTONE, b"")
    tree.discard(groups, keys - tree.named_at(groups, committing))
    tree.discard(groups, {key_of(path)}, RECORD)
    tree.remove_below(groups, path)
    directory, name = parent_of(path)
    tree.directories.note(groups, directory, PARTIAL, name, False, stone.stamp[0])


def _finish_end(tree: Tree, groups: Groups, path: str, stamp: Stamp) -> None:
    """Do what is left of an end that was cut: the record is a tombstone with this stamp, the name is there."""
    directory, name = parent_of(path)
    if stamp != NEVER and tree.directories.names(groups, directory, PARTIAL).get(name, stamp[0]) < stamp[0]:
        tree.remove_below(groups, path)
        tree.directories.prune(groups, path, once=True)
        tree.directories.forget(groups, path, PARTIAL, stamp)
        tree.directories.prune(groups, directory)


@implementer(IPartial)
class EllipticsPartial:
    """A held partial object. What begins with an underscore and returns no Deferred blocks and runs in the pool."""

    def __init__(self, tree: Tree, pool: Lanes, clock: Clock, path: str) -> None:
        self._tree, self._pool, self._now, self._path = tree, pool, clock.seconds, path
        self._record, self._stamp = Record(), (0, b"")
        self._holder = uuid.uuid4().hex
        self._segments: list[Segment] = []
        self._keys: set[str] = set()  # all that were ever planned here
        self._growing = False  # whether the last segment may be appended to
        self._renewed = self._moved = 0.0
        self._usable = self._closed = False
        self.offset, self.state = 0, b""

    # -- the contract -------------------------------------------------------------------------------------------

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        """Append a batch, to all groups that have taken every one before it."""
        if at != self.offset:
            return fail(WrongOffset(self._path, self.offset))
        return self._pool.run(self._attempt, self._write, batch, tap)

    def checkpoint(self, state: bytes) -> Deferred[None]:
        """Save offset and state; the bytes are in the groups by then."""
        assert len(state) <= STATE_LIMIT, "the state is too long"
        return self._pool.run(self._attempt, self._checkpoint, state)

    def read(self, tap: Tap) -> Deferred[None]:
        """Feed all bytes to `tap`, a job for each MiB."""

        async def pieces() -> None:
            at = 0
            while at < self.offset:
                at += await self._pool.run(self._attempt, self._read, at, tap)

        return start(pieces())

    def commit(self, path: str) -> Deferred[None]:
        """Let the bytes appear at a path."""
        return self._pool.run(self._attempt, self._commit, path)

    def cancel(self) -> Deferred[None]:
        """Drop it."""
        return self._pool.run(self._attempt, self._cancel)

    def close(self) -> Deferred[None]:
        """Let go of it."""
        return self._pool.run(self._close)

    # -- taking hold ----------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make a new one. LostRace when there is one; blocking."""
        with self._tree.job() as groups:
            key = key_of(self._path)
            seen = groups.sure(key, self._path)
            if seen.newest.is_live:
                raise LostRace(self._path, "a partial object is there already")
            self._tree.directories.add(groups, self._path, PARTIAL, seen.newest.stamp)
            self._stamp = seen.newest.stamp
            self._take(groups, Record())

    def reopen(self) -> None:
        """Hold the one that is there, or take it over. NotFound, Busy; blocking."""
        with self._tree.job() as groups:
            record, self._stamp = load(groups, self._path)
            if record is None:
                _finish_end(self._tree, groups, self._path, self._stamp)
                raise NotFound(self._path)
            left = record.held_until - self._now()
            if record.holder and left > 0:
                raise Busy(self._path, max(1, min(5, math.ceil(left))))
            self._segments = list(record.segments)
            self.offset, self.state = record.offset, record.state
            # Only after a holder that let go of it is it certain that nobody appends to its key any more.
            self._growing = not record.holder and self._ends_there(groups, record)
            try:
                self._take(groups, record)
            except LostRace:
                raise Busy(self._path) from None
            if record.planned != self._record.planned:
                self._tree.discard(groups, record.keys - {segment.key for segment in record.segments})

    def _ends_there(self, groups: Groups, record: Record) -> bool:
        """Whether the last segment has no bytes behind its end in any of its groups, and is the key last used."""
        if not record.segments or record.segments[-1].key != record.planned:
            return False
        last = record.segments[-1]
        try:
            return all(groups.size(group, last.key) == last.size for group in last.groups)
        except (Lost, Refused):
            return False

    def _take(self, groups: Groups, record: Record) -> None:
        planned = record.planned if self._growing else new_data_key()
        self._keys.add(planned)
        self._moved = self._now()
        self._swap(groups, replace(record, holder=self._holder, planned=planned), HOLD)
        self._usable = True

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _attempt(self, job: Callable[..., Any], *args: object) -> Any:
        assert self._usable, "committed, cancelled, closed, or failed"
        try:
            with self._tree.job() as groups:
                return job(groups, *args)
        except BaseException:
            self._usable = False
            raise

    def _swap(self, groups: Groups, record: Record, hold: float) -> None:
        """Write the next record; from then on it is held for `hold` seconds. LostRace."""
        now = self._now()
        record = replace(record, held_until=now + hold, moved=self._moved)
        seen = groups.sure(key_of(self._path), self._path)
        if seen.newest.stamp != self._stamp:
            raise LostRace(self._path, "another request took it over or finished it")
        self._stamp = groups.swap(key_of(self._path), self._path, seen, PLAIN, record.encode()).stamp
        self._record, self._renewed = record, now

    def _renew(self, groups: Groups) -> None:
        self._moved = self._now()
        if self._moved - self._renewed >= RENEW:
            self._swap(groups, self._record, HOLD)

    def _write(self, groups: Groups, batch: Sequence[bytes], tap: Tap | None) -> None:
        self._renew(groups)
        data = [piece for piece in batch if piece]
        if data:
            self._append(groups, data)
        if tap is not None:
            tap(batch)
        self._renew(groups)
        self.offset += sum(map(len, data))

    def _append(self, groups: Groups, data: Sequence[bytes]) -> None:
        size = sum(map(len, data))
        if self._growing:
            last = self._segments[-1]
            _, failures = groups.append(last.key, data, last.groups)
            if not failures:
                self._segments[-1] = replace(last, size=last.size + size)
                return
            self._growing = False
        if any(segment.key == self._record.planned for segment in self._segments):
            planned = new_data_key()
            self._keys.add(planned)
            self._swap(groups, replace(self._record, planned=planned), HOLD)
        key = self._record.planned
        taken, failures = groups.append(key, data, groups.groups)
        if len(taken) < groups.quorum:
            raise outage(self._path, failures, f"{len(taken)} of {groups.quorum} groups needed took the bytes")
        for group in failures:
            with suppress(Lost, Refused):  # the sweep removes it, in all groups, when nothing names the key any more
                groups.session.remove(group, key)
        self._segments.append(Segment(key, size, tuple(taken)))
        self._growing = True

    def _checkpoint(self, groups: Groups, state: bytes) -> None:
        record = replace(self._record, offset=self.offset, state=state, segments=tuple(self._segments))
        self._swap(groups, record, HOLD)
        self.state = state

    def _read(self, groups: Groups, at: int, tap: Tap) -> int:
        piece = self._tree.piece_of(groups, self._path, self._segments, at, PIECE)
        tap([piece])
        self._renew(groups)
        return len(piece)

    def _commit(self, groups: Groups, path: str) -> None:
        # The checkpoint stays that of the record: its state does not belong to the bytes since.
        self._swap(groups, replace(self._record, committing=path), COMMIT_HOLD)
        segments = tuple(self._counted(groups, segment) for segment in self._segments)
        if self.offset <= INLINE:
            at, data = 0, b""
            while at < self.offset:
                data += self._tree.piece_of(groups, self._path, segments, at, self.offset)
                at = len(data)
            self._tree.store(groups, path, PLAIN, data)
        else:
            self._tree.store(groups, path, POINTER, Pointer(segments, "").encode())
        self._end(groups, path)

    def _counted(self, groups: Groups, segment: Segment) -> Segment:
        """A segment with those of its groups that really have all of it. Unavailable if they are too few."""
        having: list[int] = []
        failures: dict[int, Exception] = {}
        for group in segment.groups:
            try:
                size = groups.size(group, segment.key)
            except (Lost, Refused) as error:
                failures[group] = error
                continue
            if size >= segment.size:
                having.append(group)
            else:
                failures[group] = Lost(f"it has {size} of {segment.size} bytes")
        if len(having) < groups.quorum:
            raise outage(self._path, failures, f"{len(having)} of {groups.quorum} groups needed have the bytes")
        return replace(segment, groups=tuple(having))

    def _cancel(self, groups: Groups) -> None:
        self._end(groups, self._record.committing)

    def _end(self, groups: Groups, committed: str) -> None:
        _bury(self._tree, groups, self._path, self._stamp, self._keys | self._record.keys, committed)
        self._usable = False
        self._closed = True
        self._tree.directories.prune(groups, parent_of(self._path)[0])

    def _close(self) -> None:
        if self._closed:
            return
        self._closed, self._usable = True, False
        with suppress(StorageError), self._tree.job() as groups:  # else the hold lapses by itself
            if not self._record.holder:
                return
            kept = self._record.keys
            self._swap(groups, replace(self._record, holder=""), 0.0)
            self._tree.discard(groups, self._keys - kept)
