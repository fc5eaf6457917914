"""A partial object that is held: its bytes are segments, its hold and its checkpoint are records.

A partial object at `a/b` is a few keys under `_txregistry/partials/a/@/b/`:

    records/<number>    who holds it until when, and the last checkpoint; created once, never changed
    segments/<random>   its bytes; all but the last of 5 MiB and more, so that each can become a part of an upload

A multipart upload exists only inside `commit`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from tests.storage.object_bucket import Bucket
from tests.storage.object_records import NeverStood, Record, Records
from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound, StorageError, Unavailable, WrongOffset
from txregistry.interfaces import IPartial, Tap
from txregistry.storage.pool import Lanes

PARTIALS = "_txregistry/partials"
SEGMENT = 5 * 1024 * 1024  # bytes; S3 takes a smaller part only as the last one
PIECE = 1024 * 1024
STATE_LIMIT = 4096
HOLD = 5.0  # seconds after the last byte, when a holder may be overtaken
RENEW = 1.0
COMMIT_HOLD = 60.0  # no byte of a client moves during a commit


class Tells(Protocol):
    """The part of a clock that is needed."""

    def seconds(self) -> float: ...


def home(path: str) -> str:
    """Where the keys of a partial object begin; the `@` keeps a parent's partials apart from its children's."""
    parent, _, name = path.rpartition("/")
    return f"{PARTIALS}/{parent}/@/{name}/"


def records_of(bucket: Bucket, path: str) -> Records:
    """The records of a partial object."""
    return Records(bucket, path, f"{home(path)}records/")


@implementer(IPartial)
class ObjectPartial:
    """A partial object that is held. Its methods with an underscore block and run in the pool, one at a time."""

    def __init__(
        self, bucket: Bucket, pool: Lanes, clock: Tells, path: str, number: int, etag: str, record: Record
    ) -> None:
        self._bucket, self._pool, self._now, self._path = bucket, pool, clock.seconds, path
        self._records = records_of(bucket, path)
        self._number, self._etag, self._record = number, etag, record
        self._renewed = record.held_until - HOLD
        self._moved = record.moved
        self.offset, self.state = record.offset, record.state
        self._full = list(record.segments)  # segments of 5 MiB and more
        self._tail = self._full.pop() if self._full and self._full[-1][1] < SEGMENT else None
        #: The bytes after the full segments; None as long as those of the tail were not fetched.
        self._buffer: bytearray | None = None if self._tail else bytearray()
        self._written: set[str] = set()  # segments that no record names
        self._usable, self._lost, self._closed = True, False, False

    # -- the contract -----------------------------------------------------------------------------------------

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        if at != self.offset:
            self._usable = False
            return fail(WrongOffset(self._path, self.offset))
        return self._pool.run(self._attempt, self._write, batch, tap)

    def checkpoint(self, state: bytes) -> Deferred[None]:
        return self._pool.run(self._attempt, self._checkpoint, state)

    def read(self, tap: Tap) -> Deferred[None]:
        async def pieces() -> None:
            sources = list(self._full)
            if self._buffer is None and self._tail is not None:
                sources.append(self._tail)
            for name, size in sources:
                for begin in range(0, size, PIECE):
                    end = min(size, begin + PIECE)
                    await self._pool.run(self._attempt, self._read, name, begin, end, tap)
            rest = bytes(self._buffer or b"")
            for begin in range(0, len(rest), PIECE):
                await self._pool.run(tap, [rest[begin : begin + PIECE]])

        return start(pieces())

    def commit(self, path: str) -> Deferred[None]:
        return self._pool.run(self._attempt, self._commit, path)

    def cancel(self) -> Deferred[None]:
        return self._pool.run(self._attempt, self._end)

    def close(self) -> Deferred[None]:
        return self._pool.run(self._close)

    # -- jobs --------------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Take it over from whoever held it. LostRace."""
        self._swap(HOLD)
        if self._record.upload:  # a commit that stalled: it must not complete when it wakes
            self._bucket.abort(*self._record.upload)

    def _attempt(self, job: Callable[..., None], *args: object) -> None:
        if not self._usable:
            raise StorageError(self._path, "it is no longer held")
        try:
            job(*args)
        except NotFound as error:  # a segment or an upload
            self._usable = False
            self._lost = self._overtaken()
            if self._lost:
                raise LostRace(self._path) from error
            raise Unavailable(self._path, str(error)) from error
        except BaseException:
            self._usable = False
            raise

    def _overtaken(self) -> bool:
        """Whether this is not the holder any more; another one removes segments and aborts uploads."""
        try:
            return self._records.latest()[1] != self._etag
        except NotFound:
            return True

    def _swap(self, hold: float, **changes: Any) -> None:
        """Write the next record; from then on this is the holder for `hold` seconds, at 0 no longer."""
        now = self._now()
        record = replace(
            self._record,
            previous=self._etag,
            nonce=uuid.uuid4().hex,
            held_until=now + hold if hold else 0.0,
            moved=self._moved,
            **changes,
        )
        try:
            self._etag = self._records.append(self._number + 1, record)
        except StorageError as error:
            self._lost = isinstance(error, LostRace)
            if not isinstance(error, NeverStood):
                self._written.clear()  # others may go on from this record, and need the segments it names
            raise
        old = {name for name, _ in self._record.segments}
        kept = {name for name, _ in record.segments}
        self._number, self._record, self._renewed = self._number + 1, record, now
        self._written -= kept
        for name in old - kept:
            self._bucket.delete(name)

    def _renew(self) -> None:
        if self._now() - self._renewed >= RENEW:
            self._swap(HOLD, upload=None)

    def _put_segment(self) -> tuple[str, int]:
        assert self._buffer is not None
        name = f"{home(self._path)}segments/{uuid.uuid4().hex}"
        self._written.add(name)
        self._bucket.put(name, bytes(self._buffer))
        return name, len(self._buffer)

    def _write(self, batch: Sequence[bytes], tap: Tap | None) -> None:
        self._moved = self._now()
        self._renew()
        if self._buffer is None:
            assert self._tail is not None
            self._buffer = bytearray(self._bucket.get(self._tail[0])[0])
        for piece in batch:
            self._buffer += piece
        if tap is not None:
            tap(batch)
        if len(self._buffer) >= SEGMENT:
            self._full.append(self._put_segment())
            self._buffer, self._tail = bytearray(), None
        self._renew()
        self.offset += sum(map(len, batch))

    def _segments(self) -> tuple[tuple[str, int], ...]:
        """All segments, after the bytes that are only in memory were put into one."""
        if self._buffer and (self._tail is None or self._tail[1] != len(self._buffer)):
            self._tail = self._put_segment()
        return (*self._full, *([self._tail] if self._tail else []))

    def _checkpoint(self, state: bytes) -> None:
        if len(state) > STATE_LIMIT:
            raise ValueError(f"a state of {len(state)} bytes; at most {STATE_LIMIT} are kept")
        self._swap(HOLD, offset=self.offset, state=state, segments=self._segments(), upload=None)
        self.state = state

    def _read(self, name: str, begin: int, end: int, tap: Tap) -> None:
        tap([self._bucket.get(name, begin, end)[0]])
        self._moved = self._now()
        self._renew()

    def _commit(self, path: str) -> None:
        segments = self._segments()
        if not segments:  # an upload needs a part
            self._renew()
            self._bucket.put(path, b"")
        else:
            upload = self._bucket.begin(path)
            try:
                # The checkpoint stays that of the record: its state does not belong to the bytes since.
                self._swap(COMMIT_HOLD, upload=(path, upload))
                self._bucket.assemble(path, upload, [name for name, _ in segments], self._renew_commit)
            except BaseException:
                with suppress(StorageError):
                    self._bucket.abort(path, upload)
                raise
        self._end()

    def _renew_commit(self) -> None:
        if self._now() - self._renewed >= COMMIT_HOLD / 4:
            self._swap(COMMIT_HOLD)

    def _end(self) -> None:
        self._swap(0.0, ended=True, upload=None)
        self._usable = False
        own = home(self._path)
        for prefix in (f"{own}segments/", f"{self._path}/", f"{own}records/"):  # the record that says so goes last
            for key, _ in self._bucket.keys(prefix):
                self._bucket.delete(key)
        self._written.clear()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(StorageError):  # then the hold lapses by itself
            if not self._lost and not self._record.ended:
                self._swap(0.0, upload=None)
        for name in self._written:
            with suppress(StorageError):  # goes with the partial object
                self._bucket.delete(name)
        self._usable = False
