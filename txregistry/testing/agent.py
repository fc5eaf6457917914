"""An HTTP client in memory: it drives a real site, channel and request, without sockets and without a reactor.

    agent = Agent(app.resource())
    response = self.successResultOf(agent.request("PUT", "/v2/a/blobs/uploads/1", body=b"..."))

With a storage that answers at once a response is there when `request` returns; else advance `agent.clock`, or let
the storage answer. What the client does in between is up to the test: see `Agent.start` and `Connection`.
"""

# Protocols and transports have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ISSLTransport, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from zope.interface import alsoProvides, implementer

from txregistry.web.site import RegistrySite

#: What the client sends at once, as a socket would deliver it.
SEGMENT = 1 << 16
#: Unread bytes of answers above which the server is told to wait.
WINDOW = 1 << 16

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]] | None


class NoResponse(Exception):
    """The connection was closed before the response was complete; the text has what had come."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    code: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The last header of a name."""
        values = self.headers.getRawHeaders(name)
        return None if values is None else values[-1]


@implementer(ITransport, IConsumer, IPushProducer)
class Connection:
    """A connection to a site, seen from its client: `send`, `read`, `lose`; its other names are the transport's.

    `received` is what the client has read and no response has used, `paused` is the server's back-pressure,
    `half_closed` and `closed` what the server has done to its side. With `reading` False the client reads nothing
    until `read` is called, and the server is told to wait when `WINDOW` bytes are unread.
    """

    disconnecting = False

    def __init__(self, site: RegistrySite, clock: Clock, *, secure: bool, peer: IPv4Address) -> None:
        self.received = bytearray()
        self.sent = 0
        self.paused = False
        self.half_closed = False
        self.closed = False
        self.reading = True
        self.unread = bytearray()
        self.continued = 0
        self._clock = clock
        self._peer = peer
        self._unsent: deque[bytes] = deque()
        self._busy = False
        self._lost = False
        self._producer: Any = None
        self._producer_paused = False
        self._expected: deque[tuple[bool, Deferred[Response]]] = deque()
        if secure:
            alsoProvides(self, ISSLTransport)
        protocol = site.buildProtocol(peer)
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self)

    # -- the client's side -------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes; they wait here while the server reads nothing."""
        self._unsent.extend(data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT))
        self._deliver()

    def read(self) -> bytes:
        """Read all that the server has sent, and let it go on."""
        data = bytes(self.unread)
        self._read()
        return data

    def lose(self) -> None:
        """Close the connection, as the client: responses that are still due never come."""
        self._expected.clear()
        self._lose(ConnectionDone())

    def response(self, *, head: bool = False) -> Deferred[Response]:
        """The next response on this connection; `head` for one to a HEAD request."""
        result: Deferred[Response] = Deferred()
        self._expected.append((head, result))
        self._parse()
        return result

    @property
    def unsent(self) -> int:
        """Bytes that the server did not take yet."""
        return sum(map(len, self._unsent))

    def _deliver(self) -> None:
        if self._busy:
            return  # the loop below goes on
        self._busy = True
        try:
            while self._unsent and not self.paused and not self._lost:
                data = self._unsent.popleft()
                self.sent += len(data)
                self.protocol.dataReceived(data)
        finally:
            self._busy = False
        self._parse()

    def _read(self) -> None:
        self.received += self.unread
        self.unread.clear()
        if self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        self._parse()

    def _parse(self) -> None:
        """Fire what is complete, but never from within the server's `dataReceived`."""
        while self._expected and not self._busy:
            head, result = self._expected[0]
            parsed = parse_response(self.received, head=head, closed=self.half_closed or self.closed)
            if parsed is None:
                if self.closed or self.half_closed:
                    self._expected.popleft()
                    result.errback(NoResponse(bytes(self.received)))
                return
            response, used = parsed
            del self.received[:used]
            if response.code < 200:
                self.continued += 1
                continue
            self._expected.popleft()
            result.callback(response)

    def _lose(self, reason: Exception) -> None:
        if not self._lost:
            self._lost = self.closed = True
            if self._producer is not None:
                self._producer.stopProducing()
                self._producer = None
            self.protocol.connectionLost(Failure(reason))
            self._parse()

    # -- the server's side: the transport ----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self.closed or self.half_closed:
            return
        self.unread += data
        if self.reading:
            self._read()
        elif len(self.unread) > WINDOW and self._producer is not None:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See ITransport."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """See ITransport; the protocol hears of it in the clock's next turn."""
        self._end(ConnectionDone())

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self._end(ConnectionAborted())

    def loseWriteConnection(self) -> None:
        """See ITCPTransport; like Twisted's, it waits in vain for a producer that is paused."""
        if not self._producer_paused:
            self.half_closed = True
            self._parse()

    def _end(self, reason: Exception) -> None:
        self.disconnecting = True
        if not self.closed:
            self.closed = True
            self._clock.callLater(0, self._lose, reason)
            self._parse()

    def setTcpNoDelay(self, _enabled: bool) -> None:
        """See ITCPTransport."""

    def getPeer(self) -> IPv4Address:
        """See ITransport."""
        return self._peer

    def getHost(self) -> IPv4Address:
        """See ITransport."""
        return IPv4Address("TCP", "127.0.0.1", 5000)

    def registerProducer(self, producer: Any, _streaming: bool) -> None:
        """See IConsumer."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """See IConsumer."""
        self._producer = None
        self._producer_paused = False

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.paused = True

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """See IPushProducer."""
        self.loseConnection()


class Exchange:
    """A request under way on its own connection, whose body the test sends as it likes."""

    def __init__(self, connection: Connection, *, chunked: bool, head: bool) -> None:
        self.connection = connection
        self.response = connection.response(head=head)
        self._chunked = chunked

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        self.connection.send(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked and data else data)

    def end(self) -> None:
        """End a chunked body."""
        if self._chunked:
            self.connection.send(b"0\r\n\r\n")

    def lose(self) -> None:
        """Close the connection in the middle of it."""
        self.connection.lose()


class Agent:
    """Sends requests to a resource through a site of its own; each on a new connection."""

    def __init__(
        self,
        resource: IResource,
        clock: Clock | None = None,
        *,
        secure: bool = False,
        peer: str = "127.0.0.1",
        access_log: Callable[[str], object] | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.site = RegistrySite(resource, self.clock, access_log=access_log)
        self.secure = secure
        self.peer = IPv4Address("TCP", peer, 50000)

    def connect(self) -> Connection:
        """A connection on which the test sends what it likes."""
        return Connection(self.site, self.clock, secure=self.secure, peer=self.peer)

    def start(
        self, method: str, target: str, headers: HeadersLike = None, *, length: int | None = None
    ) -> Exchange:
        """Send a request's head, announcing a body of `length` bytes, or a chunked one if it is None."""
        connection = self.connect()
        exchange = Exchange(connection, chunked=length is None, head=method == "HEAD")
        connection.send(request_head(method, target, headers, length))
        return exchange

    def request(
        self,
        method: str,
        target: str,
        headers: HeadersLike = None,
        body: bytes = b"",
        *,
        chunks: Iterable[bytes] | None = None,
    ) -> Deferred[Response]:
        """The response to a whole request; with `chunks` its body is sent chunked, in these. Follows no redirect."""
        exchange = self.start(method, target, headers, length=None if chunks is not None else len(body))
        for piece in chunks if chunks is not None else [body]:
            exchange.send(piece)
        exchange.end()

        def close(result: Response | Failure) -> Response | Failure:
            exchange.lose()
            return result

        response: Deferred[Response] = exchange.response.addBoth(close)
        return response


def request_head(method: str, target: str, headers: HeadersLike = None, length: int | None = 0) -> bytes:
    """A request's head, up to its blank line; of a chunked request if `length` is None."""
    given = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given)]
    names = {name.lower() for name, _ in given}
    if "host" not in names:
        lines.append("Host: localhost:5000")
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    elif length or method not in {"GET", "HEAD"}:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse_response(data: bytes | bytearray, *, head: bool, closed: bool) -> tuple[Response, int] | None:
    """The first response in `data` and its size in bytes; None if it is not complete."""
    start = data.find(b"\r\n\r\n") + 4
    if start < 4:
        return None
    status, *lines = bytes(data[: start - 4]).split(b"\r\n")
    code = int(status.split(b" ", 2)[1])
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(b":")
        headers.addRawHeader(name, value.strip())
    lengths = headers.getRawHeaders(b"Content-Length")
    if head or code < 200 or code in {204, 304}:
        end = start
    elif headers.hasHeader(b"Transfer-Encoding"):
        body, end = _dechunk(data, start)
        return (Response(code, headers, body), end) if end else None
    elif lengths is not None:
        end = start + int(lengths[0])
    elif closed:
        end = len(data)
    else:
        return None
    return (Response(code, headers, bytes(data[start:end])), end) if len(data) >= end else None


def _dechunk(data: bytes | bytearray, at: int) -> tuple[bytes, int]:
    """A chunked body that begins at `at`, and where it ends: 0 if it does not yet."""
    chunks: list[bytes] = []
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end], 16)
        at = line_end + 2 + size + 2
        if len(data) < at:
            break
        if size == 0:
            return b"".join(chunks), at
        chunks.append(bytes(data[line_end + 2 : line_end + 2 + size]))
    return b"", 0
