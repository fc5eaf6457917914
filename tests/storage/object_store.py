"""A small driver that keeps partial objects in a bucket: proof that the contract fits an object store.

A partial object at `a/b` is a few keys under `_txregistry/partials/a/@/b/`:

    records/<number>    who holds it until when, and the last checkpoint; each is created once and never changed
    segments/<random>   its bytes; all but the last of 5 MiB and more, so that each can become a part of an upload

Blocking work runs in the pool; a multipart upload exists only inside `commit`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from tests.storage.object_bucket import Bucket
from tests.storage.object_records import NeverStood, Record, Records
from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NotFound, StorageError, TooLarge, Unavailable, WrongOffset
from txregistry.interfaces import IPartial, Page, PartialInfo, Stat, Tap, Version

PARTIALS = "_txregistry/partials"
SEGMENT = 5 * 1024 * 1024  # bytes; S3 takes a smaller part only as the last one
PIECE = 1024 * 1024
STATE_LIMIT = 4096
HOLD = 5.0  # seconds after the last byte, when a holder may be overtaken
RENEW = 1.0
COMMIT_HOLD = 60.0  # no byte of a client moves during a commit

T = TypeVar("T")


class Pool(Protocol):
    """The part of a pool that the driver needs."""

    def run(self, function: Callable[..., object], *args: object) -> Deferred[object]: ...


class InPlace:
    """A pool without threads, for processes without a reactor."""

    def run(self, function: Callable[..., object], *args: object) -> Deferred[object]:
        return defer.maybeDeferred(function, *args)


class ObjectStore:
    """Bytes in a bucket: partial objects, and what their tests need beside them."""

    def __init__(self, bucket: Bucket, pool: Pool, clock: IReactorTime) -> None:
        self.bucket, self.pool, self.clock = bucket, pool, clock

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run a function in the pool, started at once."""
        return cast("Deferred[T]", self.pool.run(function, *args))

    def home(self, path: str) -> str:
        """Where the keys of a partial object begin; the `@` keeps a parent's partials apart from its children's."""
        parent, _, name = path.rpartition("/")
        return f"{PARTIALS}/{parent}/@/{name}/"

    def records(self, path: str) -> Records:
        """The records of a partial object."""
        return Records(self.bucket, path, f"{self.home(path)}records/")

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """See the contract."""

        def job() -> tuple[bytes, Version]:
            if self.bucket.head(path)[0] > limit:
                raise TooLarge(path)
            data, etag = self.bucket.get(path)
            return data, Version(etag)

        return self.run(job)

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """See the contract."""

        def job() -> Version:
            try:
                return Version(self.bucket.put(path, data, if_absent, if_match))
            except NotFound:  # nothing there that could match
                raise LostRace(path) from None

        return self.run(job)

    def stat(self, path: str) -> Deferred[Stat]:
        """See the contract."""

        def job() -> Stat:
            with suppress(NotFound):
                return Stat(*self.bucket.head(path), is_directory=False)
            if not self.bucket.children(f"{path}/", None, 1)[0]:
                raise NotFound(path)
            return Stat(0, 0.0, is_directory=True)

        return self.run(job)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """See the contract."""

        def job() -> Page:
            entries, following = self.bucket.children(f"{prefix}/", cursor, limit)
            return Page(tuple(entries), following)

        return self.run(job)

    def remove(self, path: str) -> Deferred[None]:
        """See the contract; what is left of partial objects at and below the path goes too."""

        def job() -> None:
            keys = [path] if path in dict(self.bucket.keys(path)) else []
            for prefix in (f"{path}/", self.home(path), f"{PARTIALS}/{path}/"):
                keys += [key for key, _ in self.bucket.keys(prefix)]
            if not keys:
                raise NotFound(path)
            for key in keys:
                self.bucket.delete(key)

        return self.run(job)

    def partial(self, path: str, create: bool = False) -> Deferred[ObjectPartial]:
        """See the contract."""

        def job() -> ObjectPartial:
            records, now = self.records(path), self.clock.seconds()
            if create:
                with suppress(NotFound):
                    records.latest()
                    raise LostRace(path)
                record = Record(held_until=now + HOLD, moved=now)
                return ObjectPartial(self, path, 1, records.append(1, record), record)
            number, etag, record = records.latest()
            if now < record.held_until:
                raise Busy(path)
            partial = ObjectPartial(self, path, number, etag, record)
            try:
                partial.claim()
            except LostRace:  # another asked at the same moment
                raise Busy(path) from None
            return partial

        return self.run(job)

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """See the contract."""

        def job() -> PartialInfo:
            _, _, record = self.records(path).latest()
            return PartialInfo(record.offset, record.state, record.moved)

        return self.run(job)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """See the contract."""

        def job() -> Sequence[str]:
            names: list[str] = []
            token: str | None = None
            while True:
                entries, token = self.bucket.children(f"{PARTIALS}/{prefix}/@/", token, 1000)
                names += [f"{prefix}/{entry.name}" for entry in entries]
                if token is None:
                    return names

        return self.run(job)


@implementer(IPartial)
class ObjectPartial:
    """A partial object that is held. Its methods with an underscore block and run in the pool, one at a time."""

    def __init__(self, store: ObjectStore, path: str, number: int, etag: str, record: Record) -> None:
        self._store, self._bucket, self._path = store, store.bucket, path
        self._records = store.records(path)
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
        return self._store.run(self._attempt, self._write, batch, at, tap)

    def checkpoint(self, state: bytes) -> Deferred[None]:
        return self._store.run(self._attempt, self._checkpoint, state)

    def read(self, tap: Tap) -> Deferred[None]:
        async def pieces() -> None:
            sources = list(self._full)
            if self._buffer is None and self._tail is not None:
                sources.append(self._tail)
            for name, size in sources:
                for begin in range(0, size, PIECE):
                    end = min(size, begin + PIECE)
                    await self._store.run(self._attempt, self._read, name, begin, end, tap)
            rest = bytes(self._buffer or b"")
            for begin in range(0, len(rest), PIECE):
                await self._store.run(tap, [rest[begin : begin + PIECE]])

        return start(pieces())

    def commit(self, path: str) -> Deferred[None]:
        return self._store.run(self._attempt, self._commit, path)

    def cancel(self) -> Deferred[None]:
        return self._store.run(self._attempt, self._end)

    def close(self) -> Deferred[None]:
        return self._store.run(self._close)

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

    def _now(self) -> float:
        return self._store.clock.seconds()

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
        name = f"{self._store.home(self._path)}segments/{uuid.uuid4().hex}"
        self._written.add(name)
        self._bucket.put(name, bytes(self._buffer))
        return name, len(self._buffer)

    def _write(self, batch: Sequence[bytes], at: int, tap: Tap | None) -> None:
        if at != self.offset:
            raise WrongOffset(self._path, self.offset)
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
        home = self._store.home(self._path)
        for prefix in (f"{home}segments/", f"{self._path}/", f"{home}records/"):  # the record that says so goes last
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
