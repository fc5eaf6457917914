"""Large objects over HTTP: one streaming GET, taken up again where it broke."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from zope.interface import implementer

from txregistry.errors import Unavailable
from txregistry.interfaces import Chunks, IReader
from txregistry.storage.openstack.http import Stream

#: How often in a row a broken stream is taken up again without a byte in between.
ATTEMPTS = 3

#: Opens a stream from one offset up to another, of the same version as before; with it, of how many of its first bytes
#: nobody wants. Unavailable when that version is gone.
Opens = Callable[[int, int], Coroutine[Any, Any, tuple[Stream, int]]]


class StreamChunks:
    """A range of an object; `stream` is one that begins at `start`, None if there is none yet."""

    def __init__(self, path: str, opens: Opens, stream: Stream | None, start: int, stop: int) -> None:
        self._path, self._opens, self._stream, self._at, self._stop = path, opens, stream, start, stop
        self._skip = 0
        self._closed = False

    def __aiter__(self) -> StreamChunks:
        return self

    async def __anext__(self) -> bytes:
        failures = 0
        while not self._closed and self._at < self._stop:
            try:
                piece = await self._next()
            except Unavailable:
                self._end()
                failures += 1
                if self._closed:
                    break
                if failures == ATTEMPTS:
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
        """The next piece; empty if all of it was to be skipped."""
        if self._stream is None:
            stream, self._skip = await self._opens(self._at, self._stop)
            if self._closed:
                stream.close()
                return b""
            self._stream = stream
        piece = await self._stream.read()
        if not piece:
            raise Unavailable(self._path, f"it ends at {self._at} of {self._stop} bytes")
        skipped = min(self._skip, len(piece))
        self._skip -= skipped
        return piece[skipped : skipped + self._stop - self._at]

    def close(self) -> None:
        """End it; whoever waits for a piece gets none."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


@implementer(IReader)
class StreamReader:
    """An object of which one version was seen; the stream that showed it is the one that is read."""

    def __init__(self, path: str, size: int, modified: float, stream: Stream, opens: Opens) -> None:
        self.path, self.size, self.modified = path, size, modified
        self._stream: Stream | None = stream
        self._opens = opens

    def chunks(self, start: int, stop: int) -> Chunks:
        """The bytes of a range; the first range that begins at 0 goes on with the stream."""
        stream = None
        if start == 0:  # a stream that is not read to its end is closed with its chunks
            stream, self._stream = self._stream, None
        return StreamChunks(self.path, self._opens, stream, start, stop)

    def close(self) -> None:
        """Let go of the stream, unless a range took it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
