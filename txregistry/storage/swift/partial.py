"""A partial object that is held: its bytes are segments, its hold and its checkpoint are records.

A partial object at `a/b` is some keys under `_txregistry/partials/a/@/b/records/`, which say who holds it for how long
and what the last checkpoint was, and its segments under `_txregistry/segments/a/@/b/`, which stay there when a manifest
at the final path makes them an object. Segments go out while the next bytes arrive, several at once.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, fail
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound, StorageError, Unavailable, WrongOffset
from txregistry.interfaces import IPartial, Tap
from txregistry.model.uploads import STATE_LIMIT
from txregistry.storage.clock import Clock
from txregistry.storage.jobs import patient
from txregistry.storage.pool import Lanes
from txregistry.storage.segmented.names import home
from txregistry.storage.segmented.records import COMMIT_HOLD, HOLD, RENEW, NeverStood
from txregistry.storage.segmented.sizes import full_and_tail
from txregistry.storage.swift.container import Container
from txregistry.storage.swift.reader import segment_chunks
from txregistry.storage.swift.records import Held, Records
from txregistry.storage.swift.segments import Memory, assemble, group_of, put_over, see_whole, segment_size, used

T = TypeVar("T")

#: Segments of one partial object that are under way at once.
PARALLEL = 3


def records_of(container: Container, path: str) -> Records:
    """The records of a partial object."""
    return Records(container, path, f"{home(path)}records/")


@implementer(IPartial)
class SwiftPartial:
    """A partial object that is held. `_lock` lets one verb work at a time, or others that need memory."""

    def __init__(self, container: Container, pool: Lanes, clock: Clock, memory: Memory, path: str, held: Held) -> None:
        self._container, self._pool, self._now, self._path = container, pool, clock.seconds, path
        self._memory = memory
        self._records, self._group = records_of(container, path), group_of(path)
        self._number, self._etag, self._record = held.number, held.etag, held.record
        self._renewed, self._moved = self._now(), self._record.moved
        self.offset, self.state = self._record.offset, self._record.state
        # Segments that are large enough for their places, the last one if it is not, and where that or more begins.
        self._full, self._tail, self._begin = full_and_tail(self._record.segments, segment_size)
        #: The bytes after the full segments; None as long as those of the tail were not fetched.
        self._buffer: list[bytes] | None = None if self._tail else []
        self._written: set[str] = set()  # segments that no record names
        self._has_segments = bool(self._record.segments)
        self._sending: deque[Deferred[None]] = deque()
        self._unsent = 0  # bytes of the segments that are on their way
        self._failed: BaseException | None = None  # why one of them did not arrive
        self._usable, self._lost, self._closed = True, False, False
        self._lock = DeferredLock()

    # -- the contract -----------------------------------------------------------------------------------------

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        """Append a batch; a segment that it fills is sent while the next ones come."""
        if at != self.offset:
            self._usable = False
            return fail(WrongOffset(self._path, self.offset))
        return patient(self._attempt(self._write, batch, tap))

    def checkpoint(self, state: bytes) -> Deferred[None]:
        """Send what is unsent, and write a record that names all segments."""
        return patient(self._attempt(self._checkpoint, state))

    def read(self, tap: Tap) -> Deferred[None]:
        """Read the segments again, in pieces."""
        return patient(self._attempt(self._read, tap))

    def commit(self, path: str) -> Deferred[None]:
        """Put a manifest of the segments; what is less than one is put itself."""
        return patient(self._attempt(self._commit, path))

    def cancel(self) -> Deferred[None]:
        """Drop it."""
        return patient(self._attempt(self._cancel))

    def close(self) -> Deferred[None]:
        """Let go of it."""
        return patient(self._close())

    # -- what they are made of --------------------------------------------------------------------------------

    async def claim(self) -> None:
        """Take it over from whoever held it. LostRace."""
        self._has_segments |= self._record.hold > 0  # those that no record names
        await self._swap(HOLD, rivals=True)

    async def spill(self) -> int:
        """Put the bytes in memory into a segment, from which they are fetched when more come."""
        if self._lock.locked or not self._usable or not self._buffer:
            return self._in_memory()
        await self._lock.acquire()
        try:
            with suppress(StorageError):  # then they stay, and whoever needs the store will see
                await self._keep_tail()
                self._buffer = None
            return self._in_memory()
        finally:
            self._lock.release()

    def _in_memory(self) -> int:
        return self._unsent + sum(map(len, self._buffer or ()))

    async def _attempt(self, step: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Do what only a holder may do; after a step that failed there is no other."""
        await self._lock.acquire()
        try:
            if self._failed is not None:
                raise self._failed
            if not self._usable:
                raise StorageError(self._path, "it is no longer held")
            return await step(*args)
        except NotFound as error:  # a segment
            self._usable = False
            self._lost = await self._overtaken()
            if self._lost:
                raise LostRace(self._path) from error
            raise Unavailable(self._path, str(error)) from error
        except BaseException:
            self._usable = False
            raise
        finally:
            self._lock.release()

    async def _overtaken(self) -> bool:
        """Whether this is not the holder any more; another one removes segments."""
        try:
            return (await self._records.latest()).etag != self._etag
        except NotFound:
            return True

    async def _swap(self, hold: float, rivals: bool = False, **changes: Any) -> None:
        """Write the next record; from then on this is the holder for `hold` seconds, at 0 no longer."""
        now = self._now()
        record = self._record.successor(self._etag, hold=hold, moved=self._moved, **changes)
        try:
            self._etag = await self._records.append(self._number + 1, record, rivals)
        except StorageError as error:
            self._lost = isinstance(error, LostRace)
            if not isinstance(error, NeverStood):
                self._written.clear()  # others may go on from this record, and need the segments it names
            raise
        old, kept = self._record.names, record.names
        self._number, self._record, self._renewed = self._number + 1, record, now
        self._written -= kept
        for name in sorted(old - kept):
            await self._container.delete(name)

    async def _renew(self) -> None:
        if self._now() - self._renewed >= RENEW:
            await self._swap(HOLD)

    def _new_segment(self) -> str:
        name = f"{self._group}{uuid.uuid4().hex}"
        self._written.add(name)
        self._has_segments = True
        return name

    async def _write(self, batch: Sequence[bytes], tap: Tap | None) -> None:
        self._moved = self._now()
        await self._renew()
        buffer = await self._load()
        if tap is not None:
            await self._pool.run(tap, batch)
        buffer += [piece for piece in batch if piece]
        size = sum(map(len, buffer))
        if size >= segment_size(self._begin):
            name = self._new_segment()
            self._unsent += size
            self._sending.append(start(self._sent(name, buffer, size)))
            self._full.append((name, size))
            self._begin += size
            before, self._tail, self._buffer = self._tail, None, []
            await self._drop(before)
        self.offset += sum(map(len, batch))
        self._memory.note(self, self._in_memory())
        if self._memory.exceeded:
            await self._memory.relieve(self)
        # Nobody gets further ahead of the store than this, and where memory is short, not even that far.
        while len(self._sending) >= PARALLEL or (self._sending and self._memory.exceeded):
            await self._sending.popleft()
        if self._failed is not None:
            raise self._failed
        await self._renew()

    async def _sent(self, name: str, pieces: list[bytes], size: int) -> None:
        try:
            await self._container.put_pieces(name, pieces)
        except BaseException as error:
            self._failed = error  # the next verb tells it
        finally:
            self._unsent -= size
            self._memory.note(self, self._in_memory())

    async def _all_sent(self) -> None:
        """Wait for the segments that are on their way."""
        while self._sending:
            await self._sending.popleft()
        if self._failed is not None:
            raise self._failed

    async def _load(self) -> list[bytes]:
        if self._buffer is None:
            assert self._tail is not None, "bytes that are not in memory are in the tail"
            self._buffer = [piece async for piece in segment_chunks(self._container, *self._tail)]
        return self._buffer

    async def _keep_tail(self) -> None:
        """Put the bytes that are only in memory into a segment."""
        if not self._buffer:
            return
        size = sum(map(len, self._buffer))
        if self._tail is None or self._tail[1] != size:
            name = self._new_segment()
            await self._container.put_pieces(name, self._buffer)
            before, self._tail = self._tail, (name, size)
            await self._drop(before)

    async def _drop(self, segment: tuple[str, int] | None) -> None:
        """Remove a tail that was replaced, if no record has named it."""
        if segment is not None and segment[0] in self._written:
            self._written.discard(segment[0])
            await self._container.delete(segment[0])

    async def _segments(self) -> tuple[tuple[str, int], ...]:
        """All segments, after the bytes that are only in memory were put into one."""
        await self._all_sent()
        await self._keep_tail()
        return (*self._full, *([self._tail] if self._tail else []))

    async def _checkpoint(self, state: bytes) -> None:
        if len(state) > STATE_LIMIT:
            raise ValueError(f"a state of {len(state)} bytes; at most {STATE_LIMIT} are kept")
        await self._swap(HOLD, offset=self.offset, state=state, segments=await self._segments())
        self.state = state

    async def _read(self, tap: Tap) -> None:
        await self._all_sent()
        for name, size in self._full:
            async for piece in segment_chunks(self._container, name, size):
                await self._pool.run(tap, [piece])
                self._moved = self._now()
                await self._renew()
        for piece in await self._load():
            await self._pool.run(tap, [piece])
        self._memory.note(self, self._in_memory())

    async def _commit(self, path: str) -> None:
        await self._all_sent()
        if self._full:
            segments = await self._segments()
            # The checkpoint stays that of the record: its state does not belong to the bytes since.
            await self._swap(COMMIT_HOLD)
            # Should the answer to what follows be lost, nobody may remove what may be an object by then.
            self._written.clear()
            kept = await assemble(self._container, path, list(segments), self._group)
            try:
                await self._end(kept)
            except LostRace:
                await see_whole(self._container, path, self._group)
                raise
        else:
            data = b"".join(await self._load())
            await self._swap(COMMIT_HOLD)
            await put_over(self._container, path, data)
            await self._end(await used(self._container, self._group) if self._has_segments else set())

    async def _cancel(self) -> None:
        with suppress(StorageError):  # whether they arrived matters no more
            await self._all_sent()
        await self._end(await used(self._container, self._group))

    async def _end(self, kept: set[str]) -> None:
        """Say that it has ended, and remove what is left of it but the keys `kept` of its group."""
        await self._swap(0.0, ended=True)
        self._usable = False
        if self._has_segments:
            await self._remove_segments(kept)
        for each in await self._container.keys(f"{self._path}/"):
            await self._container.delete(each.key)
        await self._records.remove()
        self._written.clear()
        self._buffer = []
        self._memory.note(self, 0)

    async def _remove_segments(self, kept: set[str]) -> None:
        for each in await self._container.keys(self._group):
            if each.key not in kept:
                await self._container.delete(each.key)

    async def _close(self) -> None:
        await self._lock.acquire()
        try:
            if self._closed:
                return
            self._closed, self._usable = True, False
            with suppress(StorageError):
                await self._all_sent()
            with suppress(StorageError):  # then the hold lapses by itself
                if not self._lost and not self._record.ended:
                    await self._swap(0.0)
            with suppress(StorageError):  # goes with the partial object
                for name in sorted(self._written):
                    await self._container.delete(name)
            self._buffer = []
            self._memory.note(self, 0)
        finally:
            self._lock.release()
