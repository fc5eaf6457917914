"""The sending of large answers: as fast as the client takes them, and no faster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from txregistry.interfaces import IReader, ISendsFiles
from txregistry.web.transport import RegistryServer

if TYPE_CHECKING:
    from txregistry.web.request import RegistryRequest

#: What is shorter leaves together with the headers, in one call of the system instead of several.
SHORT = 1 << 16


class Chunks(Protocol):
    """A source of bytes, in pieces of some 64 KiB to 1 MiB, that has to be closed."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> object:
        """Let go of what the pieces are read from."""


@implementer(IPushProducer)
class _Valve:
    """Open or shut, as the transport wishes."""

    def __init__(self) -> None:
        self._gone = False
        self._shut = False
        self._waiting: Deferred[None] | None = None

    async def opened(self) -> None:
        """Wait while it is shut; `CancelledError` when it will not open again."""
        if self._shut and not self._gone:
            self._waiting = Deferred()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self._gone:
            raise CancelledError

    def pauseProducing(self) -> None:
        self._shut = True

    def resumeProducing(self) -> None:
        self._shut = False
        self._wake()

    def stopProducing(self) -> None:
        """Nothing yet: the request hears of it next, upon which Klein cancels the route, and `leave` is called."""

    def leave(self, _reason: object) -> None:
        """The client left, or the answer was ended by somebody else."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


async def send_chunks(request: RegistryRequest, chunks: Chunks) -> None:
    """Send pieces of a body as fast as the client takes them, and close them in the end, whatever happens.

    The caller has set Content-Length and ends the request. When the client leaves it raises `CancelledError`, as a
    route that Klein cancels does anyway. For a HEAD request only the headers are sent.
    """
    valve = _Valve()
    try:
        if request.lost:
            raise CancelledError
        request.write(b"")  # the headers
        if request.method == b"HEAD":
            return
        request.notifyFinish().addBoth(valve.leave)
        request.registerProducer(valve, True)
        try:
            await valve.opened()
            async for chunk in chunks:
                request.write(chunk)
                await valve.opened()
        finally:
            request.unregisterProducer()
    finally:
        chunks.close()


async def send_range(request: RegistryRequest, reader: IReader, start: int, stop: int) -> None:
    """Send a part of an open object; the caller closes it, and the rest is as with `send_chunks`.

    What can be sent as a file is: what lies on this machine's disk, to a client on one of our own ports.
    """
    transport = getattr(request.channel, "transport", None)
    chunks: Chunks
    if stop - start > SHORT and isinstance(transport, RegistryServer) and ISendsFiles.providedBy(reader):
        chunks = _FileFirst(request, transport, reader, start, stop)
    else:
        chunks = reader.chunks(start, stop)
    await send_chunks(request, chunks)


class _FileFirst:
    """The pieces of a range that have to be read; what is in the page cache is sent before and between them."""

    def __init__(
        self, request: RegistryRequest, transport: RegistryServer, reader: IReader, start: int, stop: int
    ) -> None:
        self._into = request
        self._transport = transport
        self._reader = reader
        self._fd: int = cast(ISendsFiles, reader).fileno()
        self._at = start
        self._stop = stop

    def __aiter__(self) -> _FileFirst:
        return self

    async def __anext__(self) -> bytes:
        if self._at < self._stop:
            await self._transport.send_file(self._fd, self._at, self._stop, self._went)
        if self._at == self._stop:
            raise StopAsyncIteration
        # It reads from the disk, in a thread, and raises where the file has become too short.
        chunks = self._reader.chunks(self._at, self._stop)
        try:
            piece = await anext(chunks)
        finally:
            chunks.close()
        self._at += len(piece)
        return piece

    def _went(self, count: int) -> None:
        self._at += count
        self._into.sentLength += count

    def close(self) -> None:
        """Nothing is held here."""
