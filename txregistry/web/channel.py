"""One connection: Twisted's HTTP/1.1 parser, made to enter a route before the body is here.

Twisted calls a route when the last byte of its request has come. Here it is called when the headers are complete,
and may answer at any moment from then on: at once, between two chunks, on the last byte. What happens next depends
on the phase:

    phase    entered when                                 timer                       after the route's answer
    IDLE     the last request is answered                 idle                        -
    HEAD     the first byte of a request has come         the whole head's deadline   -
    BODY     the headers are complete, a body follows     pace, while a reader waits  REST (little is left) or CLOSING
    REST     answered; a short rest of the body follows   idle                        -
    WHOLE    the request's last byte has come             none                        IDLE, or the connection ends
    CLOSING  nothing that comes is parsed any more        until it is aborted         half-closed, drained, aborted

Each timer is a deadline: a byte that trickles in prolongs none. In every phase a client has to take what is sent to it
at a minimum rate, which its transport minds; see `pace.py`.

A client may close its side when it has sent its requests, and still gets all answers. While it leaves answers unread,
the channel is `paused`: its next requests are not parsed.
"""

# The methods of HTTPChannel have no annotations, so that calling the overridden one would be an error everywhere.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from zope.interface import implementer

from txregistry.errors import MalformedBody
from txregistry.web.transport import RegistryServer

if TYPE_CHECKING:
    from txregistry.web.pace import Pace
    from txregistry.web.request import RegistryRequest
    from txregistry.web.site import RegistrySite

#: Bytes of a request's head, and of each of its lines.
HEAD_LIMIT = 32 * 1024
#: An unread rest of a body up to this length is skipped, and the connection kept.
SHORT_REST = 64 * 1024
#: What is read of an unread body after its answer, so that the client comes to read this: so many bytes, then nothing
#: until the client closes or so many seconds have passed. The kernel's buffers take some megabytes more.
DRAIN_BYTES = 1 << 20
DRAIN_SECONDS = 5.0
#: What another transport than ours may have buffered of an answer, without telling how much of it was taken.
BUFFERED = 1 << 20

#: The first byte of a TLS handshake. No HTTP method begins with it.
TLS_HANDSHAKE = b"\x16"
#: What a client is told that speaks TLS to a plain port.
NO_TLS_HERE = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks plain HTTP, not TLS\n"
)


class Phase(Enum):
    """Where a connection is, see the module's text."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    REST = auto()
    WHOLE = auto()
    CLOSING = auto()


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """The protocol of one connection; `site` and `timeOut`, the idle timeout in seconds, are set by the factory."""

    MAX_LENGTH = HEAD_LIMIT
    totalHeadersSize = HEAD_LIMIT
    maxHeaders = 500

    site: RegistrySite
    requests: list[RegistryRequest]
    requestFactory: type[RegistryRequest]
    timeOut: Any
    transport: Any  # TCP, UNIX or TLS: what they share is in no interface
    _networkProducer: Any
    phase = Phase.IDLE
    _drained = 0
    _body_pace: Pace | None = None
    _client_host: str | None = None

    # -- bytes from the transport ------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Start the idle timer."""
        self._has_own_transport = isinstance(self.transport, RegistryServer)
        self.site.channels.add(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Parse, unless nothing more is to be parsed."""
        if self.phase is Phase.CLOSING:
            self._drain(data)
        elif self.phase is Phase.IDLE and data.startswith(TLS_HANDSHAKE):
            # A client that tries TLS first would wait until its own timeout for an answer to its greeting. Some try
            # HTTP next only if this is an answer in HTTP.
            self.transport.write(NO_TLS_HERE)
            self.transport.loseConnection()
        elif not self._answered_at_once(data):
            super().dataReceived(data)
            self._mind_head()

    def _answered_at_once(self, data: bytes) -> bool:
        """Whether a request, whose whole head came in one piece, was answered from what is kept of former answers."""
        hot = self.site.hot
        if hot is None or self.site.retiring or self.phase is not Phase.IDLE or self.paused:
            return False
        if self._buffer or self.requests:
            return False
        answer = hot.answer(self, data)
        if answer is None:
            return False
        self.setTimeout(self.site.idle_timeout)
        self.transport.write(answer)
        return True

    def client_host(self) -> str | None:
        """The address of whoever connected; None on a UNIX socket."""
        if self._client_host is None:
            self._client_host = getattr(self.getPeer(), "host", None)
        return self._client_host

    def _mind_head(self) -> None:
        """If a next head has begun to come, start its deadline."""
        if self.phase is Phase.IDLE and not self.paused and (self._buffer or self.requests):
            self.phase = Phase.HEAD
            self.setTimeout(self.site.head_timeout)

    def lineReceived(self, line: bytes) -> None:
        """Take a line of a head, as long as the head is not too large."""
        if self.phase is Phase.CLOSING:
            self._drain(self.clearLineBuffer())  # at once: each line that is looked for copies all behind it
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.lineLengthExceeded(line)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a head that is too large: there is a request as soon as its first line was read."""
        if self.phase is Phase.CLOSING:  # refused already, for a line before this one
            return
        if self.requests:
            self._refuse(431, f"the request's headers are larger than {self.totalHeadersSize} bytes")
        else:
            self._refuse(414, f"the request target is longer than {self.MAX_LENGTH} bytes")

    def headerReceived(self, line: bytes) -> bool:
        """Take one header, as long as they are not too many."""
        if self._receivedHeaderCount >= self.maxHeaders:
            self._refuse(431, f"the request has more than {self.maxHeaders} headers")
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a length of more digits than Python takes for a number
            self._refuse(400, "the request's head is malformed")
            return False

    def rawDataReceived(self, data: bytes) -> None:
        """Take bytes of a body, or of a next request that has to wait."""
        if self.phase is Phase.CLOSING:
            self._drain(data)
        else:
            super().rawDataReceived(data)

    # -- the phases of a request -------------------------------------------------------------------------------

    def allHeadersReceived(self) -> None:
        """Enter the route, if a body follows; else `allContentReceived` does, which is called next."""
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) > 1 or (not hosts and self._version == b"HTTP/1.1"):  # RFC 9112, 3.2
            self._refuse(400, "a request has one Host header")
            return
        super().allHeadersReceived()
        self.setTimeout(None)
        if self.length != 0:
            self.phase = Phase.BODY
            self.requests[-1].requestReceived(self._command, self._path, self._version)

    def allContentReceived(self) -> None:
        """Note that the request's last byte is here: it ends the body, or enters the route of a request without."""
        if self.phase is Phase.CLOSING:
            return
        answered = self.phase is Phase.REST
        self._end_body_pace()
        request = self.requests[-1]
        self.phase = Phase.WHOLE
        super().allContentReceived()  # calls requestReceived: for a request with a body the second time
        if answered:
            self.requestDone(request)

    def requestDone(self, request: RegistryRequest) -> None:
        """Go on after an answer, see the table above: Twisted may only hear of it once the request is whole."""
        if self.phase is Phase.WHOLE:
            self.phase = Phase.IDLE if self.persistent else Phase.CLOSING
            # Who has asked for much and reads nothing is answered no more: each answer would be held in memory.
            self.paused = self._waitingForTransport and bool(self.persistent)
            self._mind_silence()
            super().requestDone(request)  # parses what else has come, unless paused
            if self.paused:
                self.hold_body()
        elif self.phase is Phase.BODY and (self.persistent or request.body.remaining == 0):
            self.phase = Phase.REST
            self._end_body_pace()
            self.setTimeout(self.site.idle_timeout)
            self.release_body()
        else:
            self._close()

    def checkPersistence(self, request: RegistryRequest, version: bytes) -> bool:
        """Whether the connection may outlive this request; tokens are separated by commas, in any number of headers."""
        values = request.requestHeaders.getRawHeaders(b"Connection", [])
        tokens = {token.strip().lower() for value in values for token in value.split(b",")}
        return version == b"HTTP/1.1" and b"close" not in tokens

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Say in the answer whether the connection ends with it: when much of the body is still to come, or the process
        is about to end.
        """
        if self.site.retiring or (self.phase is Phase.BODY and not self._rest_is_short(self.requests[0])):
            self.persistent = False
        if not self.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)

    @staticmethod
    def _rest_is_short(request: RegistryRequest) -> bool:
        # A client that waits for `100 Continue` may leave the body away or send it, nobody can tell.
        remaining = request.body.remaining
        return remaining is not None and remaining <= SHORT_REST and not request.body.expects_continue

    # -- the body's source -------------------------------------------------------------------------------------

    def _send100Continue(self) -> None:
        self.requests[-1].body.expects_continue = True  # until somebody reads

    def body_awaited(self) -> None:
        """See `body.Source`."""
        request = self.requests[0]
        if request.body.expects_continue:
            request.body.expects_continue = False
            if not request.startedWriting and not request.body.received:
                super()._send100Continue()
        if self._body_pace is None:
            self._body_pace = self.site.pace(lambda: request.body.received, self.transport.abortConnection)
        self._body_pace.wait()

    def body_arrived(self) -> None:
        """See `body.Source`."""
        if self._body_pace is not None:
            self._body_pace.rest()

    def _end_body_pace(self) -> None:
        if self._body_pace is not None:
            self._body_pace.end()
            self._body_pace = None

    def hold_body(self) -> None:
        """See `body.Source`."""
        self._networkProducer.pauseProducing()

    def release_body(self) -> None:
        """See `body.Source`."""
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()

    # -- back-pressure of answers ------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a request's producer; unlike Twisted's, it hears of it when the transport is full already."""
        super().registerProducer(producer, streaming)
        if self._waitingForTransport and streaming:
            producer.pauseProducing()

    def pauseProducing(self) -> None:
        """Send nothing more, as the transport is full; ours minds by itself how long."""
        super().pauseProducing()
        if self.phase is Phase.WHOLE and not self._has_own_transport:
            self.setTimeout(self.site.idle_timeout + BUFFERED / self.site.minimum_rate)

    def resumeProducing(self) -> None:
        """Go on sending; and receiving, unless the body's reader is behind."""
        if self.phase is Phase.WHOLE:
            self.setTimeout(None)
        super().resumeProducing()
        if self.phase is Phase.BODY and self.requests[0].body.held:
            self.hold_body()
        if self.paused:
            self.paused = False
            self._mind_silence()
            self.dataReceived(b"")  # the requests that had to wait

    # -- refusals and ends -------------------------------------------------------------------------------------

    def setTimeout(self, period: float | None) -> float | None:
        """Call `timeoutConnection` after so many seconds; never, for None."""
        shared = None if period is None else self.site.deadlines.get(period)
        if shared is None:
            return cast("float | None", super().setTimeout(period))
        before = super().setTimeout(None)
        self.timeOut = period
        shared.begin(self)
        return cast("float | None", before)

    def resetTimeout(self) -> None:
        """Let a deadline stand: Twisted calls this on every byte."""

    def timeoutConnection(self) -> None:
        """End what took too long."""
        if self.phase is Phase.HEAD:
            self._refuse(408, f"the request's head did not arrive within {self.site.head_timeout:g} s")
        elif self.phase is Phase.IDLE:
            # The last answer may still be on its way to a slow client: nothing that was written is cut off.
            self.phase = Phase.CLOSING
            self._mind_silence()
            self.loseConnection()
        else:
            self.transport.abortConnection()

    def _mind_silence(self) -> None:
        """Give a client time for its next request; or for the rest of its last answer, where nobody minds its pace."""
        waiting = self.phase is Phase.CLOSING or self.paused
        if waiting and self._has_own_transport:
            self.setTimeout(None)
        else:
            self.setTimeout(self.site.idle_timeout + (BUFFERED / self.site.minimum_rate if self.paused else 0))

    def readConnectionLost(self) -> None:
        """Note that the client has sent its last byte: what it has asked for completely is answered.

        Nothing is read while an answer is made, and when reading goes on after it this is called again.
        """
        if self.phase is not Phase.WHOLE and not self.paused:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol; nothing is left to do."""

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self.phase is not Phase.BODY:
            self._refuse(400, "the request's head is malformed")
            return
        # A chunk is malformed, and what follows cannot be told from it: the route is told, and answers.
        self.phase = Phase.CLOSING
        self.persistent = False
        self.hold_body()
        self.requests[0].body.fail(MalformedBody("the chunked encoding of the request body is malformed"))

    def _refuse(self, code: int, reason: str) -> None:
        """Answer a request whose head never came to be complete."""
        self.phase = Phase.CLOSING
        self.persistent = False
        if not self.requests:
            self.requests.append(self.requestFactory(self, 0))
        request = self.requests[0]
        if hasattr(self, "_command"):
            request.method, request.uri, request.clientproto = self._command, self._path, self._version
        request.refuse(code, reason)

    def _close(self) -> None:
        """Half-close after what was written, and let the client read it: it may be in the middle of sending."""
        self.phase = Phase.CLOSING
        self._end_body_pace()
        self.setTimeout(DRAIN_SECONDS)
        self._networkProducer.resumeProducing()
        self._networkProducer.unregisterProducer()
        if ISSLTransport.providedBy(self.transport) and not self._has_own_transport:
            self.transport.loseConnection()  # sends close_notify and reads on until the client's
        else:
            self.transport.loseWriteConnection()

    def _drain(self, data: bytes) -> None:
        """Count what is thrown away; a client that sends more than its share waits, reads its answer, or is cut off."""
        self._drained += len(data)
        if self._drained > DRAIN_BYTES:
            self.hold_body()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the requests."""
        self.site.forget(self)
        for shared in self.site.deadlines.values():
            shared.forget(self)
        self.phase = Phase.CLOSING
        self._end_body_pace()
        super().connectionLost(reason)
