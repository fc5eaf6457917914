"""Large objects: one streaming GET, read a chunk ahead, taken up again where it broke."""

from __future__ import annotations

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


class S3Chunks:
    """A range of one version of an object; `body` is a stream that begins at `start`, None if there is none yet."""

    def __init__(self, reader: S3Reader, body: Any, start: int, stop: int) -> None:
        self._reader, self._body, self._at, self._stop = reader, body, start, stop
        self._ahead: Deferred[bytes] | None = None
        self._working = self._closed = False

    def __aiter__(self) -> S3Chunks:
        return self

    async def __anext__(self) -> bytes:
        if self._ahead is None:
            self._read_ahead()
        if self._closed or self._ahead is None:
            raise StopAsyncIteration
        waiting, self._ahead = self._ahead, None
        piece = await waiting
        # The next one comes while this one is being sent.
        self._read_ahead()
        return piece

    def _read_ahead(self) -> None:
        if self._closed or self._at >= self._stop:
            self.close()
            return
        self._working = True
        self._ahead = self._reader.pool.run(self._next)
        self._ahead.addBoth(self._worked)

    def _worked(self, result: bytes | Failure) -> bytes | Failure | None:
        self._working = False
        if not self._closed:
            return result
        # Nobody waits any more, neither for a piece nor for an error.
        self._end()
        return None

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
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.addErrback(lambda _: None)  # a failure that nobody will meet any more
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
