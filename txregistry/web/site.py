"""The factory of all connections: one resource behind our channel and request, and the access log."""

# Site and its parents have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request, datetimeToLogString
from twisted.web.resource import IResource
from twisted.web.server import Site

from txregistry.web.channel import Channel
from txregistry.web.proxies import TrustedProxies
from txregistry.web.request import RegistryRequest
from txregistry.web.shown import shown

IDLE_TIMEOUT = 60.0
HEAD_TIMEOUT = 15.0

_NOT_PRINTABLE = re.compile(rb'[^ !#-\[\]-~]')


class HotAnswers(Protocol):
    """What knows whole answers."""

    def answer(self, channel: Channel, head: bytes) -> bytes | None:
        """The answer to a request, or None if its route has to give it.

        `head` is all that came of the request, with its empty line at the end. The answer is whole, and leaves the
        connection open; it was counted and written to the access log.
        """
        ...


class RegistrySite(Site):
    """Serves `resource` over HTTP/1.1.

    `timeout` is for a connection on which nothing happens, `head_timeout` for a request's whole head, both in
    seconds. `access_log` is called with each line of the access log, in the combined format and with its newline.
    Without `proxies` nobody is believed who says that he asks for another.
    """

    protocol = Channel  # type: ignore[assignment]  # Twisted names its own switch between HTTP/1.1 and HTTP/2
    reactor: Any

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        *,
        timeout: float = IDLE_TIMEOUT,
        head_timeout: float = HEAD_TIMEOUT,
        access_log: Callable[[str], object] | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        super().__init__(resource, RegistryRequest, parsePOSTFormSubmission=False, timeout=timeout, reactor=reactor)
        self.head_timeout = head_timeout
        self.proxies = proxies
        #: The connections that are open.
        self.channels: set[Channel] = set()
        #: Whether each connection ends with its next answer.
        self.retiring = False
        #: What answers some requests without a route, None if nothing does.
        self.hot: HotAnswers | None = None
        self._retired: Deferred[None] = Deferred()
        self._access_log = access_log
        self._logged_second = -1
        self._logged_time = ""

    def acceptableProtocols(self) -> list[bytes]:
        """What is offered by ALPN."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Open nothing: the access log belongs to the caller."""

    def stopFactory(self) -> None:
        """Close nothing."""

    def cut_connections(self) -> None:
        """Abort every connection: the routes behind them are told that their clients are gone."""
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def retire(self) -> Deferred[None]:
        """From now on end each connection with its next answer, or when it was idle for long; fires when all are gone.

        Not before: a client may be sending a request on a connection that looks idle.
        """
        self.retiring = True
        self._notice()
        return self._retired

    def forget(self, channel: Channel) -> None:
        """Note that a connection is gone."""
        self.channels.discard(channel)
        self._notice()

    def _notice(self) -> None:
        if self.retiring and not self.channels and not self._retired.called:
            self._retired.callback(None)

    def log(self, request: Request) -> None:
        """Write one request's line: when its answer is finished, or when its client left before."""
        if self._access_log is not None:
            self._access_log(combined_line(request, self._time()) + "\n")

    def _time(self) -> str:
        second = int(self.reactor.seconds())
        if second != self._logged_second:
            self._logged_second, self._logged_time = second, datetimeToLogString(second)
        return self._logged_time


def combined_line(request: Request, time: str) -> str:
    """A request in the combined log format of Apache and nginx: no secrets, and bytes that could break it escaped."""
    line = b"%s %s %s" % (request.method, shown(request.uri), request.clientproto)
    referrer = shown(request.getHeader(b"referer") or b"-")
    agent = request.getHeader(b"user-agent") or b"-"
    host = getattr(request.getClientAddress(), "host", "-")
    return (
        f'{host} - - {time} "{_printable(line)}" {request.code} {request.sentLength or "-"} '
        f'"{_printable(referrer)}" "{_printable(agent)}"'
    )


def _printable(value: bytes) -> str:
    return _NOT_PRINTABLE.sub(lambda match: b"\\x%02X" % match[0][0], value).decode("ascii")
