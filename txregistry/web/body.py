"""The body of a request while it arrives: bytes in from the channel, chunks or batches out to the route."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txregistry.errors import BodyTooLarge, ClientGone

#: Buffered bytes of one body above which the connection is not read any more.
HIGH_WATER = 1 << 20
#: Pieces are joined up to this size: a client may send every byte as a chunk of its own, and `writev` takes 1024.
SMALL = 1 << 12


class Source(Protocol):
    """The connection that a body comes from."""

    def body_awaited(self) -> None:
        """A reader waits for bytes: ask the client for them if it waits to be asked, and mind the time."""

    def body_arrived(self) -> None:
        """No reader waits any more."""

    def hold_body(self) -> None:
        """Read nothing more from the client."""

    def release_body(self) -> None:
        """Read from the client again."""


class Body:
    """A request's body: an async iterator over chunks of bytes as they arrive, for one reader.

    `length` is that of the Content-Length header, None for a chunked body; `received` counts the bytes that have
    arrived, read or not. What had arrived is handed over before an error is raised: `ClientGone` when the connection
    was lost (or the request answered) before the body's end, `MalformedBody` when its chunks make no sense.
    """

    def __init__(self, source: Source, clock: IReactorTime, length: int | None) -> None:
        self.length = length
        self.received = 0
        #: The client sends nothing until it is told `100 Continue`.
        self.expects_continue = False
        #: The reader is behind, and the connection is not read.
        self.held = False
        self._source = source
        self._clock = clock
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._oldest = 0.0  # when the first of the buffered bytes came
        self._ended = length == 0
        self._closed = False
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None
        self._wanted = 0

    # -- the channel's side ------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Take the next bytes; with the last of a known length the body ends."""
        self.received += len(data)
        if self._closed:
            return
        if not self._chunks:
            self._oldest = self._clock.seconds()
        if self._chunks and len(self._chunks[-1]) + len(data) <= SMALL:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > HIGH_WATER:
            self.held = True
            self._source.hold_body()
        if self.received == self.length:
            self._ended = True
        if self._ended or self._buffered >= self._wanted:
            self._wake()

    def end(self) -> None:
        """No more bytes will come, and none is missing."""
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """No more bytes will come, and some are missing; ignored after the end."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def close(self) -> None:
        """The request is answered: drop what nobody read, and what still comes."""
        self._closed = True
        self._chunks.clear()
        self._buffered = 0
        self.fail(ClientGone("the request is answered"))

    @property
    def remaining(self) -> int | None:
        """The bytes that have not arrived yet; None if that is unknown."""
        if self._ended:
            return 0
        return None if self.length is None else self.length - self.received

    # -- the route's side --------------------------------------------------------------------------------------

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        await self._arrival(1)
        if not self._chunks:
            self._raise_end()
        return self._take(1)[0]

    def batches(self, size: int, age: float = 1.0) -> Batches:
        """The body as lists of chunks: of about `size` bytes, or what had come when the first was `age` seconds old.

        The age keeps a slow client's bytes moving. A batch exceeds `size` by less than its last chunk.
        """
        return Batches(self, min(size, HIGH_WATER), age)

    async def read(self, limit: int) -> bytes:
        """The whole body, of at most `limit` bytes; else `BodyTooLarge`, before reading where the length is known."""
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(limit)
        chunks = []
        async for chunk in self:
            if self.received > limit:
                raise BodyTooLarge(limit)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _batch(self, size: int, age: float) -> list[bytes]:
        await self._arrival(1)
        patience = self._oldest + age - self._clock.seconds()
        if patience > 0:
            await self._arrival(size, patience)
        if not self._chunks:
            self._raise_end()
        return self._take(size)

    async def _arrival(self, size: int, patience: float | None = None) -> None:
        """Wait until so many bytes are here, no more will come, or patience (in seconds) is over."""
        if self._buffered >= size or self._ended or self._error is not None:
            return
        assert self._waiting is None, "a body has one reader"
        self._wanted = size
        waiting = self._waiting = Deferred()
        timer = None if patience is None else self._clock.callLater(patience, self._wake)
        self._source.body_awaited()
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None and timer.active():
                timer.cancel()
            if not self._closed:
                self._source.body_arrived()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _take(self, size: int) -> list[bytes]:
        batch: list[bytes] = []
        taken = 0
        while self._chunks and taken < size:
            batch.append(self._chunks.popleft())
            taken += len(batch[-1])
        self._buffered -= taken
        self._oldest = self._clock.seconds()
        if self.held and self._buffered <= HIGH_WATER:
            self.held = False
            self._source.release_body()  # last: more bytes may come before it returns
        return batch

    def _raise_end(self) -> None:
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


class Batches:
    """An async iterator over a body in lists of chunks, see `Body.batches`."""

    def __init__(self, body: Body, size: int, age: float) -> None:
        self._body = body
        self._size = size
        self._age = age

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> list[bytes]:
        return await self._body._batch(self._size, self._age)
