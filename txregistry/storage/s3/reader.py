"""Large objects: one streaming GET, read a chunk ahead, taken up again where it broke."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txregistry.errors import Unavailable
from txregistry.interfaces import Chunks, IReader
from txregistry.storage.pool import Lanes
from txregistry.storage.s3.bucket import Bucket, Opened

#: Bytes of a chunk, each of which is one job.
CHUNK = 1024 * 1024
#: How often in a row a broken stream is taken up again without a byte in between.
ATTEMPTS = 3
#: Chunks that are read ahead of the client.
AHEAD = 3


class S3Chunks:
    """A range of one version of an object; `body` is a stream that begins at `start`, None if there is none yet."""

    def __init__(self, reader: S3Reader, body: Any, start: int, stop: int) -> None:
        self._reader, self._body, self._at, self._stop = reader, body, start, stop
        self._ready: deque[bytes | Failure] = deque()
        self._waiting: Deferred[None] | None = None
        self._working = self._closed = False

    def __aiter__(self) -> S3Chunks:
        return self

    async def __anext__(self) -> bytes:
        self._read_ahead()
        if not self._ready and self._working:
            self._waiting = Deferred()
            await self._waiting
        if self._closed or not self._ready:
            raise StopAsyncIteration
        piece = self._ready.popleft()
        if isinstance(piece, Failure):
            self.close()
            piece.raiseException()
        # The next ones come while this one is being sent.
        self._read_ahead()
        return piece

    def _read_ahead(self) -> None:
        if self._closed or self._working or len(self._ready) >= AHEAD:
            return
        if self._at >= self._stop or (self._ready and isinstance(self._ready[-1], Failure)):
            self._end()
            return
        self._working = True
        self._reader.pool.run(self._next).addBoth(self._worked)

    def _worked(self, result: bytes | Failure) -> None:
        self._working = False
        if self._closed:
            # Nobody waits any more, neither for a piece nor for an error.
            self._end()
        else:
            self._ready.append(result)
            self._read_ahead()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _next(self) -> bytes:
        """The next piece; blocks."""
        reader, size = self._reader, min(CHUNK, self._stop - self._at)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if self._body is None:
                    self._body = reader.bucket.stream(reader.path, reader.etag, self._at, self._stop)
                with reader.bucket.connection.errors(reader.path):
                    piece: bytes = self._body.read(size)
                if piece:
                    self._at += len(piece)
                    return piece
                raise Unavailable(reader.path, f"it ends at {self._at} of {self._stop} bytes")
            except Unavailable:
                self._end()
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        """End it; a job under way ends first."""
        self._closed = True
        self._ready.clear()
        if not self._working:
            self._end()

    def _end(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with suppress(OSError):  # a connection that is broken
                body.close()


@implementer(IReader)
class S3Reader:
    """An object of which one version was seen; the stream that showed it is the one that is read."""

    def __init__(self, bucket: Bucket, pool: Lanes, path: str, opened: Opened) -> None:
        self.bucket, self.pool, self.path = bucket, pool, path
        self.size, self.modified, self.etag = opened.size, opened.modified, opened.etag
        self._body: Any = opened.body

    def chunks(self, start: int, stop: int) -> Chunks:
        """The bytes of a range; the first range that begins at 0 goes on with the stream."""
        body = None
        if start == 0:  # a stream that is not read to its end is closed with its chunks
            body, self._body = self._body, None
        return S3Chunks(self, body, start, stop)

    def close(self) -> None:
        """Let go of the stream, unless a range took it."""
        body, self._body = self._body, None
        if body is not None:
            with suppress(OSError):  # a connection that is broken
                body.close()
