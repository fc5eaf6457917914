"""Paths on the groups: small objects, pointers to large ones, directories; blocking, each verb one job.

A large object is a pointer at its path, a small record with a checksum, written last, that names the keys of its
bytes. Those are written once, under random names, and are left for an hour or so when nothing names them any more,
for whoever still reads them: they go into a log of garbage, that the sweep works off.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from txregistry.errors import LostRace, NotFound, StorageError, TooLarge, Unavailable
from txregistry.interfaces import Entry, Page, Stat, Version
from txregistry.storage.elliptics import directories
from txregistry.storage.elliptics.directories import FILE, PARTIAL, Directories, is_v1, parent_of
from txregistry.storage.elliptics.groups import ATTEMPTS, Groups, Stamps, outage
from txregistry.storage.elliptics.session import Sessions
from txregistry.storage.elliptics.standing import Standing
from txregistry.storage.elliptics.stored import (
    INLINE,
    PLAIN,
    POINTER,
    TOMBSTONE,
    Pointer,
    Segment,
    Stored,
)

OWN = "_txregistry/state/elliptics"
DATA = f"{OWN}/data"
PARTIALS = f"{OWN}/partials"
GARBAGE = f"{OWN}/garbage"

#: The kinds of garbage: keys of bytes, and keys of records that should have ended.
BYTES, RECORD = "b", "r"

#: Bytes read or written at a time.
PIECE = 1 << 20


def new_data_key() -> str:
    """A key for bytes that nobody ever used."""
    return f"{DATA}/{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Opened:
    """A large object as it was when it was opened: its bytes, or where they are."""

    size: int
    modified: float
    data: bytes
    segments: tuple[Segment, ...]


class Tree:
    """The verbs of a driver, blocking. They raise StorageErrors."""

    def __init__(self, sessions: Sessions, groups: Sequence[int], quorum: int, stamps: Stamps) -> None:
        self.sessions = sessions
        self._groups = tuple(groups)
        self._quorum = quorum
        self._stamps = stamps
        self.standing = Standing(sessions.connect)
        #: Set when the driver is closed: what runs in the background ends then.
        self.closing = False
        self.directories = Directories()
        #: How to end the partial object at a path, whoever holds it; whether there was one.
        self.end_partial: Callable[[Groups, str], bool] = lambda _groups, _path: False

    @contextmanager
    def job(self) -> Iterator[Groups]:
        """The groups for one job."""
        with self.sessions.lend() as session:
            yield Groups(session, self._groups, self._quorum, self._stamps, self.standing)

    # -- reading ------------------------------------------------------------------------------------------------

    def _live(self, groups: Groups, path: str) -> Stored:
        stored = groups.sure(path, path).newest
        if not stored.is_live:
            raise NotFound(path)
        return stored

    def opened(self, path: str, stored: Stored) -> Opened:
        """An object of which the record was read."""
        if stored.kind == POINTER:
            pointer = Pointer.decode(stored.data)
            return Opened(pointer.size, stored.modified, b"", pointer.segments)
        if stored.is_whole:
            return Opened(len(stored.data), stored.modified, stored.data, ())
        return Opened(stored.total, stored.modified, b"", (Segment(path, stored.total, self._groups),))

    def open(self, path: str) -> Opened:
        """A large object."""
        with self.job() as groups:
            return self.opened(path, self._live(groups, path))

    def piece(self, path: str, opened: Opened, at: int, size: int) -> bytes:
        """At most `size` bytes of an open object, at least one."""
        with self.job() as groups:
            return self.piece_of(groups, path, opened.segments, at, size)

    def piece_of(self, groups: Groups, path: str, segments: Sequence[Segment], at: int, size: int) -> bytes:
        """The same, of segments."""
        for segment in segments:
            if at < segment.size:
                return groups.piece(segment.key, path, at, min(size, PIECE, segment.size - at), segment.groups)
            at -= segment.size
        raise Unavailable(path, "a read behind the end")

    def _all_of(self, groups: Groups, path: str, opened: Opened) -> bytes:
        if not opened.segments:
            return opened.data
        data = bytearray()
        while len(data) < opened.size:
            data += self.piece_of(groups, path, opened.segments, len(data), opened.size - len(data))
        return bytes(data)

    def read(self, path: str, limit: int) -> tuple[bytes, Version]:
        """A whole small object."""
        with self.job() as groups:
            opened = self.opened(path, self._live(groups, path))
            if opened.size > limit:
                raise TooLarge(path, f"{opened.size} bytes, {limit} at most")
            data = self._all_of(groups, path, opened)
        return data, version_of(data)

    def stat(self, path: str) -> Stat:
        """What is known of a path."""
        with self.job() as groups:
            with suppress(NotFound):
                opened = self.opened(path, self._live(groups, path))
                return Stat(opened.size, opened.modified, False)
            if self.directories.living(groups, path) or groups.sure(f"{PARTIALS}/{path}", path).newest.is_live:
                return Stat(0, 0.0, True)
            raise NotFound(path)

    def list(self, prefix: str, cursor: str | None, limit: int) -> Page:
        """The children of a directory, in the order of their names."""
        with self.job() as groups:
            living = self.directories.living(groups, prefix)
        children: dict[str, bool] = {}
        for kind, name in living:
            children[name] = children.get(name, False) or kind != FILE
        names = sorted(name for name in children if cursor is None or name > cursor)
        entries = tuple(Entry(name, children[name]) for name in names[:limit])
        return Page(entries, entries[-1].name if len(names) > limit and entries else None)

    def partials(self, prefix: str) -> Sequence[str]:
        """The paths of the partial objects directly below a prefix."""
        with self.job() as groups:
            names = self.directories.names(groups, prefix, PARTIAL)
        return [f"{prefix}/{name}" if prefix else name for name in names]

    def settle(self, path: str) -> None:
        """See that as many groups have the object as a write needs."""
        with self.job() as groups:
            seen = groups.sure(path, path)
            if not seen.newest.is_live:
                if self.directories.living(groups, path):
                    return
                raise NotFound(path)
            for _ in range(2):
                having = [group for group, stored in seen.by_group.items() if stored.stamp == seen.newest.stamp]
                if len(having) >= groups.quorum:
                    return
                seen = groups.sure(path, path)  # the first look has mended what it could
            raise outage(path, seen.failures, f"only {len(having)} groups have it")

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes, if_absent: bool, if_match: Version | None) -> Version:
        """Write a small object."""
        version = version_of(data)
        with self.job() as groups:
            if len(data) <= INLINE:
                self.store(groups, path, PLAIN, data, if_absent, if_match)
                return version
            segment = self._store(groups, path, [data[at : at + PIECE] for at in range(0, len(data), PIECE)])
            pointer = Pointer((segment,), version)
            try:
                self.store(groups, path, POINTER, pointer.encode(), if_absent, if_match)
            except LostRace:
                self.discard(groups, pointer.keys)
                raise
        return version

    def _store(self, groups: Groups, path: str, pieces: Sequence[bytes]) -> Segment:
        key, having = new_data_key(), list(groups.groups)
        failures: dict[int, Exception] = {}
        for piece in pieces:
            having, failed = groups.append(key, [piece], having)
            failures.update(failed)
            if len(having) < groups.quorum:
                self.discard(groups, {key})
                raise outage(path, failures, f"{len(having)} of {groups.quorum} groups needed took the data")
        return Segment(key, sum(map(len, pieces)), tuple(having))

    def store(
        self,
        groups: Groups,
        path: str,
        kind: int,
        data: bytes,
        if_absent: bool = False,
        if_match: Version | None = None,
    ) -> None:
        """Let a path have a record, under the conditions of `put`."""
        conditional = if_absent or if_match is not None
        for _ in range(ATTEMPTS):
            seen = groups.sure(path, path) if conditional else groups.look(path)
            there = seen.newest
            if if_absent and there.is_live:
                raise LostRace(path, "something is there already")
            if if_match is not None and not (there.is_live and self._version(groups, path, there) == if_match):
                raise LostRace(path, "another version is there")
            if not there.is_live or len(seen.by_group) < groups.needed:  # else it may be gone in the others
                self.directories.add(groups, path, FILE, there.stamp)
            try:
                groups.swap(path, path, seen, kind, data)
            except LostRace:
                if conditional:
                    raise
                continue
            if kind == POINTER:
                segments = Pointer.decode(data).segments
                without = {group for group in groups.groups if any(group not in s.groups for s in segments)}
                groups.remember(path, tuple(without), [group for group in groups.groups if group not in without])
            self._discard_of(groups, there, Pointer.decode(data).keys if kind == POINTER else set())
            if is_v1(path) and not there.is_live:
                directories.index(groups, path)
            return
        raise Unavailable(path, "others replace it all the time")

    def _version(self, groups: Groups, path: str, stored: Stored) -> Version:
        if stored.kind == POINTER and (known := Pointer.decode(stored.data).version):
            return Version(known)
        return version_of(self._all_of(groups, path, self.opened(path, stored)))

    def move(self, source: str, target: str) -> None:
        """Give an object another path.

        The source says first where it goes: the two may share their bytes if this is cut, and whoever removes the one
        must know of the other.
        """
        with self.job() as groups:
            seen = groups.sure(source, source)
            stored = seen.newest
            if not stored.is_live:
                raise NotFound(source)
            if source == target:
                return
            if stored.kind == POINTER:
                pointer = Pointer.decode(stored.data)
                moving = replace(pointer, moving=target)
                groups.swap(source, source, seen, POINTER, moving.encode())
                self.store(groups, target, POINTER, replace(pointer, moving="").encode())
            elif stored.is_whole:
                self.store(groups, target, PLAIN, stored.data)
            else:
                copied = Pointer(self.copied(groups, source, self.opened(source, stored)), "")
                self.store(groups, target, POINTER, copied.encode())
            self._bury(groups, source)

    def copied(self, groups: Groups, path: str, opened: Opened) -> tuple[Segment, ...]:
        """The bytes of an object once more, as the original's lie where another object may come."""
        segments = []
        for at in range(0, opened.size, PIECE):
            piece = self.piece_of(groups, path, opened.segments, at, PIECE)
            segments.append(self._store(groups, path, [piece]))
        return tuple(segments)

    # -- removing -----------------------------------------------------------------------------------------------

    def remove(self, path: str) -> None:
        """Remove an object, or a directory with all below it."""
        with self.job() as groups:
            if not self._remove_all(groups, path):
                raise NotFound(path)
            self.directories.prune(groups, parent_of(path)[0])

    def _remove_all(self, groups: Groups, path: str) -> bool:
        found = self._bury(groups, path, prune=False)
        found = self.end_partial(groups, path) or found
        return self.remove_below(groups, path) or found

    def remove_below(self, groups: Groups, path: str) -> bool:
        """Remove what lies in a directory; whether there was anything."""
        living = self.directories.living(groups, path)
        for kind, name in living:
            below = f"{path}/{name}"
            if kind == FILE:
                self._bury(groups, below, prune=False)
            elif kind == PARTIAL:
                self.end_partial(groups, below)
            self.remove_below(groups, below)
        if living:
            self.directories.prune(groups, path, once=True)
            if is_v1(path):
                directories.unindex(groups, path)
        return bool(living)

    def _bury(self, groups: Groups, path: str, prune: bool = True) -> bool:
        """Put a tombstone in an object's place; whether there was one."""
        for _ in range(ATTEMPTS):
            seen = groups.sure(path, path)
            if not seen.newest.is_live:
                return self.directories.forget(groups, path, FILE, seen.newest.stamp)
            try:
                stone = groups.swap(path, path, seen, TOMBSTONE, b"")
            except LostRace:
                continue
            self._discard_of(groups, seen.newest, set())
            directory, name = parent_of(path)
            self.directories.note(groups, directory, FILE, name, False, stone.stamp[0])
            if is_v1(path):
                directories.unindex(groups, path)
            if prune:
                self.directories.prune(groups, directory)
            return True
        raise Unavailable(path, "others replace it all the time")

    def _discard_of(self, groups: Groups, old: Stored, kept: set[str]) -> None:
        if old.kind == POINTER:
            pointer = Pointer.decode(old.data)
            self.discard(groups, pointer.keys - kept - self.named_at(groups, pointer.moving))

    def named_at(self, groups: Groups, path: str) -> set[str]:
        """The keys of bytes that the object at a path names; none if there is no path. Unavailable."""
        stored = groups.sure(path, path).newest if path else None
        return Pointer.decode(stored.data).keys if stored is not None and stored.kind == POINTER else set()

    def discard(self, groups: Groups, keys: set[str], kind: str = BYTES) -> None:
        """Leave keys to the sweep. If that cannot be noted they stay, which costs room and nothing else."""
        with suppress(StorageError):
            for key in sorted(keys):
                self.directories.note(groups, GARBAGE, kind, key, True)


def version_of(data: bytes) -> Version:
    """The version of contents."""
    return Version(hashlib.sha256(data).hexdigest())
