"""Large objects: one streaming GET, taken up again where it broke."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import Unavailable
from txregistry.interfaces import Chunks, IReader
from txregistry.storage.openstack.http import Stream
from txregistry.storage.swift.container import Container, Opened

#: How often in a row a broken stream is taken up again without a byte in between.
ATTEMPTS = 3


class SwiftChunks:
    """A range of one version of an object; `stream` begins at `start`, None if there is none yet.

    Without an ETag any version will do, as there is only one.
    """

    def __init__(
        self, container: Container, path: str, etag: str | None, stream: Stream | None, start: int, stop: int
    ) -> None:
        self._container, self._path, self._etag = container, path, etag
        self._stream, self._at, self._stop = stream, start, stop
        self._closed = False

    def __aiter__(self) -> SwiftChunks:
        return self

    async def __anext__(self) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            if self._closed or self._at >= self._stop:
                break
            try:
                piece = await self._next()
            except Unavailable:
                if self._closed:
                    break
                self._end()
                if attempt == ATTEMPTS:
                    raise
                continue
            if piece:
                self._at += len(piece)
                if self._at >= self._stop:
                    self._end()
                return piece
        self.close()
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        if self._stream is None:
            opened = await self._container.open(self._path, self._at, self._stop, self._etag)
            if self._closed:
                opened.stream.close()
                return b""
            self._stream = opened.stream
        piece = (await self._stream.read())[: self._stop - self._at]
        if not piece and not self._closed:
            raise Unavailable(self._path, f"it ends at {self._at} of {self._stop} bytes")
        return piece

    def close(self) -> None:
        """End it; nobody is told of what is under way."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


@implementer(IReader)
class SwiftReader:
    """An object of which one version was seen; the stream that showed it is the one that is read."""

    def __init__(self, container: Container, path: str, opened: Opened) -> None:
        self._container, self._path = container, path
        self.size, self.modified, self._etag = opened.seen.size, opened.seen.modified, opened.seen.etag
        self._stream: Stream | None = opened.stream

    def chunks(self, start: int, stop: int) -> Chunks:
        """The bytes of a range; the first range that begins at 0 goes on with the stream."""
        stream = None
        if start == 0:  # a stream that is not read to its end is closed with its chunks
            stream, self._stream = self._stream, None
        return SwiftChunks(self._container, self._path, self._etag, stream, start, stop)

    def close(self) -> None:
        """Let go of the stream, unless a range took it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def open_reader(container: Container, path: str) -> Deferred[IReader]:
    """An object that is there. NotFound."""

    async def opening() -> IReader:
        reader: IReader = SwiftReader(container, path, await container.open(path))
        return reader

    return start(opening())
