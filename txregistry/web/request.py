"""A request whose route is entered when its headers are complete."""

# The methods of Request have no annotations, so that calling the overridden one would be an error everywhere.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import NO_BODY_CODES

from txregistry.auth.facts import By, Grant
from txregistry.errors import BodyTooLarge, ClientGone, MalformedBody
from txregistry.web.body import Body
from txregistry.web.channel import Channel
from txregistry.web.proxies import Origin
from txregistry.web.shown import shown

if TYPE_CHECKING:
    from txregistry.auth.guard import Guard
    from txregistry.web.site import RegistrySite

#: The status in the access log of a request whose client left before the answer began; nginx writes the same.
CLIENT_LEFT = 499

#: The phrases of RFC 6585, which Twisted does not know.
_PHRASES = {429: b"Too Many Requests", 431: b"Request Header Fields Too Large"}

_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)

_log = Logger()


def _origin_form(target: bytes) -> bytes:
    """A request target without scheme and host: a server has to understand those too (RFC 9112, 3.2.2)."""
    whole = _AUTHORITY.match(target)
    if whole is None:
        return target
    rest = target[whole.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


class RegistryRequest(server.Request):
    """A request; its route reads `body`, and may answer before it has come.

    When the client leaves, the body fails with `ClientGone`, the Deferreds of `notifyFinish` fail (upon which Klein
    cancels the route), and whatever the route still writes goes nowhere, without an error.
    """

    defaultContentType = None
    #: For the access log, should the head never be complete.
    method = b"-"
    uri = b"-"
    clientproto = b"HTTP/1.1"

    #: There once the headers are complete.
    body: Body
    site: RegistrySite
    #: The client, if a trusted front end stands before it.
    origin: Origin | None = None
    #: Who decides over it, None without anybody; and what was decided.
    guard: Guard | None = None
    grant = Grant(By.ANYBODY)
    _entered = False
    #: The client has left, or the answer was given up.
    lost = False

    def gotLength(self, length: int | None) -> None:
        """Make the body."""
        channel = cast(Channel, self.channel)
        self.body = Body(channel, channel.site.reactor, length)
        self.content = BytesIO()  # Twisted looks into it for forms

    def getRequestHostname(self) -> bytes:
        """Give Klein's router a host: no route depends on one, and a client may send anything or nothing."""
        return b"localhost"

    def handleContentChunk(self, data: bytes) -> None:
        """Take bytes of the body."""
        self.body.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Enter the route; called a second time when the last byte of the body is here."""
        if self._entered:
            self.body.end()
        else:
            self._entered = True
            self._find_origin()
            super().requestReceived(command, _origin_form(path), version)

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        """Set the status; Twisted lacks the phrases of some."""
        super().setResponseCode(code, message or _PHRASES.get(code))

    def _find_origin(self) -> None:
        channel = cast(Channel, self.channel)
        proxies = channel.site.proxies
        if proxies is not None:
            peer = getattr(channel.getPeer(), "host", None)
            self.origin = proxies.origin(peer, super().isSecure(), self._texts)

    def _texts(self, name: str) -> list[str]:
        return [value.decode("latin-1") for value in self.requestHeaders.getRawHeaders(name.encode("ascii"), [])]

    def getClientAddress(self) -> IAddress:
        """Give the client's address, which is not that of a trusted front end."""
        if self.origin is None:
            return cast(IAddress, super().getClientAddress())
        kind = IPv6Address if ":" in self.origin.address else IPv4Address
        return cast(IAddress, kind("TCP", self.origin.address, 0))

    def isSecure(self) -> bool:
        """Tell whether the client used TLS, if only to the front end."""
        return bool(super().isSecure()) if self.origin is None else self.origin.secure

    def finish(self) -> None:
        """End the answer; of no effect when the client has left. One shorter than it promised is cut off."""
        if self.lost:
            return
        if self._is_short():
            _log.error("{method} {uri}: the answer is shorter than its Content-Length, so the connection is cut",
                            method=self.method, uri=shown(self.uri))  # fmt: skip
            self.abandon()
            return
        if self._entered:
            self.body.close()
        super().finish()

    def _is_short(self) -> bool:
        promised = self.responseHeaders.getRawHeaders(b"Content-Length")
        if promised is None or self.method == b"HEAD" or self.code in NO_BODY_CODES:
            return False
        return self.sentLength < int(promised[0])

    def unregisterProducer(self) -> None:
        """Let go of a producer, also after the connection was lost or the answer ended."""
        if getattr(self, "channel", None) is None:
            self.producer = None
        else:
            super().unregisterProducer()

    def connectionLost(self, reason: Failure) -> None:
        """Write the access log's line, and tell the body's reader and then everybody else."""
        self.lost = True
        if self._entered and not self.finished:
            if not self.startedWriting:
                self.code = CLIENT_LEFT
            self.site.log(self)
            self.body.fail(ClientGone("the client closed the connection"))
        super().connectionLost(reason)

    def refuse(self, code: int, reason: str) -> None:
        """Answer with a line of text."""
        text = reason.encode() + b"\n"
        self.setResponseCode(code)
        self.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        self.setHeader(b"Content-Length", b"%d" % len(text))
        self.write(text)
        self.finish()

    def abandon(self) -> None:
        """Cut the connection: the one honest end of an answer that cannot be completed."""
        if not self.lost and not self.finished:
            self.lost = True
            cast(Channel, self.channel).transport.abortConnection()

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer for an error that no handler of the app took; an answer that has begun is cut off."""
        if self.lost:
            pass
        elif self.startedWriting:
            _log.failure("An answer was cut off", failure=reason)
            self.abandon()
        elif reason.check(BodyTooLarge):
            self.refuse(413, str(reason.value))
        elif reason.check(MalformedBody):
            self.refuse(400, str(reason.value))
        else:
            super().processingFailed(reason)
        return reason
