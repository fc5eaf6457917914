"""A partial object that is held: its bytes are segments, its hold and its checkpoint are records.

A partial object at `a/b` is a few keys under `_txregistry/partials/a/@/b/`:

    records/<number>    who holds it for how long, and the last checkpoint; created once, never changed
    segments/<random>   its bytes; all but the last large enough to become a part of an upload

A multipart upload exists only inside `commit`. Segments go out while the next bytes arrive, several at once.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from txregistry.errors import LostRace, NotFound, StorageError, Unavailable, WrongOffset
from txregistry.interfaces import IPartial, Tap
from txregistry.model.uploads import STATE_LIMIT
from txregistry.storage.clock import Clock
from txregistry.storage.jobs import in_order, patient
from txregistry.storage.pool import Lanes
from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.s3.records import Records
from txregistry.storage.s3.segments import Budget, Pieces, segment_size
from txregistry.storage.segmented.names import home
from txregistry.storage.segmented.records import COMMIT_HOLD, HOLD, RENEW, NeverStood, Record
from txregistry.storage.segmented.sizes import full_and_tail

T = TypeVar("T")

PIECE = 1024 * 1024
#: Segments of one partial object, and parts of one commit, that are under way at once.
PARALLEL = 3
COMPLETE_RATE = 16 * 1024 * 1024  # bytes that even a slow server joins in a second, which tells nothing meanwhile


def records_of(bucket: Bucket, path: str) -> Records:
    """The records of a partial object."""
    return Records(bucket, path, f"{home(path)}records/")


@implementer(IPartial)
class S3Partial:
    """A partial object that is held.

    What has an underscore and is no coroutine blocks and runs in the pool. `_lock` belongs to whoever works on the
    buffer and the record: one verb at a time, and the process's other uploads when memory is short.
    """

    def __init__(
        self, bucket: Bucket, pool: Lanes, clock: Clock, budget: Budget, path: str, held: tuple[int, str, Record]
    ) -> None:
        self._bucket, self._pool, self._now, self._path = bucket, pool, clock.seconds, path
        self._budget = budget
        self._records = records_of(bucket, path)
        self._number, self._etag, self._record = held
        self._renewed, self._moved = self._now(), self._record.moved
        self.offset, self.state = self._record.offset, self._record.state
        # Segments that are large enough for their places, the last one if it is not, and where that or more begins.
        self._full, self._tail, self._begin = full_and_tail(self._record.segments, segment_size)
        #: The bytes after the full segments; None as long as those of the tail were not fetched.
        self._buffer: Pieces | None = None if self._tail else Pieces()
        self._written: set[str] = set()  # segments that no record names
        self._sending: deque[Deferred[None]] = deque()
        self._unsent = 0  # bytes of the segments that are on their way
        self._failed: BaseException | None = None  # why one of them did not arrive
        self._usable, self._lost, self._closed = True, False, False
        self._lock, self._count = threading.RLock(), threading.Lock()

    # -- the contract -----------------------------------------------------------------------------------------

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        """Append a batch; a segment that it fills is sent while the next ones come."""
        if at != self.offset:
            self._usable = False
            return fail(WrongOffset(self._path, self.offset))
        return patient(self._write(batch, tap))

    def checkpoint(self, state: bytes) -> Deferred[None]:
        """Send what is unsent, and write a record that names all segments."""
        return patient(self._after_sending(self._checkpoint, state))

    def read(self, tap: Tap) -> Deferred[None]:
        """Read the segments again, in pieces."""
        return patient(self._read(tap))

    def commit(self, path: str) -> Deferred[None]:
        """Assemble the segments within the server; what is less than one is put itself."""
        return patient(self._commit(path))

    def cancel(self) -> Deferred[None]:
        """Drop it."""
        return patient(self._after_sending(self._end))

    def close(self) -> Deferred[None]:
        """Let go of it."""
        return patient(self._closing())

    # -- what they are made of --------------------------------------------------------------------------------

    async def _write(self, batch: Sequence[bytes], tap: Tap | None) -> None:
        segment = await self._pool.run(self._attempt, self._take, batch, tap)
        if segment is not None:
            sent = self._pool.run(self._send, *segment)
            sent.addErrback(lambda _: None)  # the next verb tells it
            self._sending.append(sent)
            # Nobody gets further ahead of the store than this, and where memory is short, not even that far.
            while len(self._sending) >= PARALLEL or (self._sending and self._budget.exceeded):
                await self._sending.popleft()

    async def _sent(self) -> None:
        """Wait for the segments that are on their way."""
        while self._sending:
            await self._sending.popleft()

    async def _after_sending(self, job: Callable[..., None], *args: object) -> None:
        await self._sent()
        await self._pool.run(self._attempt, job, *args)

    async def _read(self, tap: Tap) -> None:
        await self._sent()
        for name, size in self._full:
            for begin in range(0, size, PIECE):
                end = min(size, begin + PIECE)
                await self._pool.run(self._attempt, self._feed, name, begin, end, tap)
        for begin in range(0, self.offset - self._begin, PIECE):
            await self._pool.run(self._attempt, self._feed_rest, begin, tap)

    async def _commit(self, path: str) -> None:
        await self._sent()
        begun = await self._pool.run(self._attempt, self._put_or_begin, path)
        if begun is None:
            return
        upload, names = begun
        try:
            copies = (partial(self._pool.run, self._copy, path, upload, *part) for part in enumerate(names, 1))
            etags = await in_order(copies, PARALLEL, self._renew_commit)
            await self._pool.run(self._attempt, self._complete, path, upload, etags)
        except BaseException:
            await self._pool.run(self._abort, path, upload)
            raise
        await self._pool.run(self._attempt, self._end)

    async def _renew_commit(self) -> None:
        if self._now() - self._renewed >= COMMIT_HOLD / 4:
            await self._pool.run(self._attempt, self._renew, COMMIT_HOLD)

    async def _closing(self) -> None:
        await self._sent()
        await self._pool.run(self._close)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Take it over from whoever held it. LostRace."""
        self._swap(HOLD)
        if self._record.upload:  # a commit that stalled: it must not complete when it wakes
            self._bucket.abort(*self._record.upload)

    def drop_unnamed(self) -> int:
        """After a claim: remove the segments that the record does not name, and let go of it; how many."""
        try:
            found = self._bucket.keys(f"{home(self._path)}segments/")
            dead = [key for key, _ in found if key not in self._record.names]
            self._bucket.delete_many(dead)
            return len(dead)
        finally:
            self._close()

    def spill(self) -> int:
        """Put the bytes in memory into a segment, from which they are fetched when more come."""
        if not self._lock.acquire(blocking=False):
            return self._in_memory()
        try:
            if self._usable and self._buffer:
                with suppress(StorageError):  # then they stay, and whoever needs the store will see
                    self._keep_tail()
                    self._buffer = None
            return self._in_memory()
        finally:
            self._lock.release()

    def _in_memory(self) -> int:
        return self._unsent + len(self._buffer or ())

    def _attempt(self, job: Callable[..., T], *args: object) -> T:
        """Run a step that only a holder may take; after one that failed there is no other."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if not self._usable:
                raise StorageError(self._path, "it is no longer held")
            return self._guarded(job, *args)

    def _guarded(self, job: Callable[..., T], *args: object) -> T:
        try:
            return job(*args)
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
        record = self._record.successor(self._etag, hold=hold, moved=self._moved, **changes)
        try:
            self._etag = self._records.append(self._number + 1, record)
        except StorageError as error:
            self._lost = isinstance(error, LostRace)
            if not isinstance(error, NeverStood):
                self._written.clear()  # others may go on from this record, and need the segments it names
            raise
        old, kept = self._record.names, record.names
        self._number, self._record, self._renewed = self._number + 1, record, now
        self._written -= kept
        self._bucket.delete_many(sorted(old - kept))

    def _renew(self, hold: float = HOLD) -> None:
        # A commit's record carries its upload; everybody else has none.
        if self._now() - self._renewed >= (RENEW if hold == HOLD else hold / 4):
            self._swap(hold, **({"upload": None} if hold == HOLD else {}))

    def _new_segment(self) -> str:
        name = f"{home(self._path)}segments/{uuid.uuid4().hex}"
        self._written.add(name)
        return name

    def _send(self, name: str, data: Pieces) -> None:
        try:
            self._bucket.put_pieces(name, data)
        except BaseException as error:
            self._failed, self._usable = error, False
            raise
        finally:
            with self._count:
                self._unsent -= len(data)
            self._budget.note(self, self._in_memory())

    def _load(self) -> Pieces:
        if self._buffer is None:
            assert self._tail is not None, "bytes that are not in memory are in the tail"
            self._buffer = Pieces([self._bucket.get(self._tail[0])[0]])
        return self._buffer

    def _take(self, batch: Sequence[bytes], tap: Tap | None) -> tuple[str, Pieces] | None:
        """Append a batch to the buffer; name and bytes of the segment that it filled."""
        self._moved = self._now()
        self._renew()
        buffer = self._load()
        buffer.add(batch)
        if tap is not None:
            tap(batch)
        filled = None
        if len(buffer) >= segment_size(self._begin):
            filled = (self._new_segment(), buffer)
            self._full.append((filled[0], len(buffer)))
            self._begin += len(buffer)
            self._drop(self._tail)
            self._buffer, self._tail = Pieces(), None
            with self._count:
                self._unsent += len(buffer)
        self._renew()
        self.offset += sum(map(len, batch))
        self._budget.note(self, self._in_memory())
        self._budget.relieve(self)
        return filled

    def _keep_tail(self) -> None:
        """Put the bytes that are only in memory into a segment."""
        if self._buffer and (self._tail is None or self._tail[1] != len(self._buffer)):
            name = self._new_segment()
            self._bucket.put_pieces(name, self._buffer)
            before, self._tail = self._tail, (name, len(self._buffer))
            self._drop(before)

    def _drop(self, segment: tuple[str, int] | None) -> None:
        """Remove a tail that was replaced, if no record has named it."""
        if segment is not None and segment[0] in self._written:
            self._bucket.delete(segment[0])
            self._written.discard(segment[0])

    def _segments(self) -> tuple[tuple[str, int], ...]:
        """All segments, after the bytes that are only in memory were put into one."""
        self._keep_tail()
        return (*self._full, *([self._tail] if self._tail else []))

    def _checkpoint(self, state: bytes) -> None:
        if len(state) > STATE_LIMIT:
            raise ValueError(f"a state of {len(state)} bytes; at most {STATE_LIMIT} are kept")
        self._swap(HOLD, offset=self.offset, state=state, segments=self._segments(), upload=None)
        self.state = state

    def _feed(self, name: str, begin: int, end: int, tap: Tap) -> None:
        tap([self._bucket.get(name, begin, end)[0]])
        self._moved = self._now()
        self._renew()

    def _feed_rest(self, begin: int, tap: Tap) -> None:
        tap(self._load().cut(begin, begin + PIECE))
        self._budget.note(self, self._in_memory())

    def _put_or_begin(self, path: str) -> tuple[str, list[str]] | None:
        """Begin an upload, its id and the names of the segments; or put what is small itself, and end."""
        if not self._full:
            data = self._load()
            self._swap(COMMIT_HOLD, upload=None)
            self._bucket.put_pieces(path, data)
            self._end()
            return None
        segments = self._segments()
        upload = self._bucket.begin(path)
        try:
            # The checkpoint stays that of the record: its state does not belong to the bytes since.
            self._swap(COMMIT_HOLD, upload=(path, upload))
        except BaseException:
            self._abort(path, upload)
            raise
        return upload, [name for name, _ in segments]

    def _copy(self, path: str, upload: str, number: int, name: str) -> str:
        return self._guarded(self._bucket.copy_part, path, upload, number, name)

    def _complete(self, path: str, upload: str, etags: Sequence[str]) -> None:
        seconds = self.offset / COMPLETE_RATE
        if seconds > COMMIT_HOLD / 2:
            self._swap(COMMIT_HOLD + seconds)
        self._bucket.complete(path, upload, etags)

    def _abort(self, path: str, upload: str) -> None:
        with suppress(StorageError):  # whoever takes it over does that, or the sweep
            self._bucket.abort(path, upload)

    def _end(self) -> None:
        self._swap(0.0, ended=True, upload=None)
        self._usable = False
        own = home(self._path)
        for prefix in (f"{own}segments/", f"{self._path}/"):
            self._bucket.delete_many([key for key, _ in self._bucket.keys(prefix)])
        for key, _ in self._bucket.keys(f"{own}records/"):  # one by one: the record that says so goes last
            self._bucket.delete(key)
        self._written.clear()

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with suppress(StorageError):  # then the hold lapses by itself
                if not self._lost and not self._record.ended:
                    self._swap(0.0, upload=None)
            with suppress(StorageError):  # goes with the partial object
                self._bucket.delete_many(sorted(self._written))
            self._usable, self._buffer = False, Pieces()
            self._budget.note(self, 0)
