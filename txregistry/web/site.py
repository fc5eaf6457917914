"""The factory of all connections: one resource behind our channel and request, and the access log."""

# Site and its parents have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.http import Request, datetimeToLogString
from twisted.web.resource import IResource
from twisted.web.server import Site

from txregistry.web.channel import Channel
from txregistry.web.deadlines import Deadlines
from txregistry.web.pace import Pace
from txregistry.web.proxies import TrustedProxies
from txregistry.web.request import RegistryRequest
from txregistry.web.shown import shown

if TYPE_CHECKING:
    from txregistry.core.proofs import Proof

IDLE_TIMEOUT = 60.0
HEAD_TIMEOUT = 15.0
#: Bytes a second. Somebody on the slowest of telephones comes to several times as much.
MINIMUM_RATE = 1024.0
#: How long the line of a hot answer may wait for others, and for how many: together they fit into the 4 KiB that a pipe
#: takes without mixing them with those of another worker.
LOG_SECONDS, LOG_LINES = 0.2, 16

_NOT_PRINTABLE = re.compile(rb'[^ !#-\[\]-~]')


class HotAnswers(Protocol):
    """What knows whole answers, those that routes have let it keep; `web/hot.py`."""

    def answer(self, channel: Channel, head: bytes) -> bytes | None:
        """The answer to a request, or None if its route has to give it.

        `head` is all that came of the request, with its empty line at the end. The answer is whole, and leaves the
        connection open; it is in the access log.
        """
        ...

    def keep(
        self,
        request: RegistryRequest,
        proof: Proof,
        body: bytes | None,
        v1: bool = False,
        admits: Callable[[str], bool] | None = None,
        expires: float | None = None,
    ) -> None:
        """Keep an answer; see `hot.keep`."""
        ...


class RegistrySite(Site):
    """Serves `resource` over HTTP/1.1.

    `timeout` is for a connection on which nothing happens, `head_timeout` for a request's whole head, both in
    seconds. A client that sends a body, or is sent an answer, has to move `minimum_rate` bytes a second, on average
    over `timeout` seconds for which it was waited for. `access_log` is called with lines of the access log, one or
    several, in the combined format and each with its newline. Without `proxies` nobody is believed who says that he
    asks for another.
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
        minimum_rate: float = MINIMUM_RATE,
        access_log: Callable[[str], object] | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        super().__init__(resource, RegistryRequest, parsePOSTFormSubmission=False, timeout=timeout, reactor=reactor)
        self.head_timeout = head_timeout
        self.minimum_rate = minimum_rate
        self.idle_timeout = timeout
        #: By their seconds, those that connections have in common.
        self.deadlines = {seconds: Deadlines(reactor, seconds) for seconds in (timeout, head_timeout)}
        self.proxies = proxies
        #: The connections that are open.
        self.channels: set[Channel] = set()
        #: Whether each connection ends with its next answer.
        self.retiring = False
        #: What answers some requests without a route, None if nothing does.
        self.hot: HotAnswers | None = None
        self._retired: Deferred[None] = Deferred()
        self._access_log = access_log
        self._unlogged: list[str] = []
        self._logging: IDelayedCall | None = None
        self._logged_second = -1
        self._logged_time = ""

    def acceptableProtocols(self) -> list[bytes]:
        """What is offered by ALPN."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Open nothing: the access log belongs to the caller."""

    def stopFactory(self) -> None:
        """Close nothing."""

    def pace(self, moved: Callable[[], int], give_up: Callable[[], object]) -> Pace:
        """Make a watch over a client's body, or over how it takes its answers; see `pace.py`."""
        return Pace(self.reactor, self.idle_timeout, self.minimum_rate, moved, give_up)

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
            self._unlogged.append(combined_line(request, self._time()))
            self.flush_log()

    def log_soon(self, host: str, request: str, length: int, agent: str) -> None:
        """Write the line of a request that was answered with 200: together with others, within LOG_SECONDS."""
        if self._access_log is None:
            return
        self._unlogged.append(log_line(host, self._time(), request, 200, length, "-", agent))
        if len(self._unlogged) >= LOG_LINES:
            self.flush_log()
        elif self._logging is None:
            self._logging = self.reactor.callLater(LOG_SECONDS, self.flush_log)

    def flush_log(self) -> None:
        """Write what is to be written to the access log."""
        if self._logging is not None:
            if self._logging.active():
                self._logging.cancel()
            self._logging = None
        lines, self._unlogged = self._unlogged, []
        if lines and self._access_log is not None:
            self._access_log("".join(lines))

    def _time(self) -> str:
        second = int(self.reactor.seconds())
        if second != self._logged_second:
            self._logged_second, self._logged_time = second, datetimeToLogString(second)
        return self._logged_time


def combined_line(request: Request, time: str) -> str:
    """A request's line in the combined log format of Apache and nginx: no secrets, what could break it escaped."""
    line = b"%s %s %s" % (request.method, shown(request.uri), request.clientproto)
    referrer = shown(request.getHeader(b"referer") or b"-")
    agent = request.getHeader(b"user-agent") or b"-"
    host = getattr(request.getClientAddress(), "host", "-")
    return log_line(
        host, time, _printable(line), request.code, request.sentLength, _printable(referrer), _printable(agent)
    )


def log_line(host: str, time: str, request: str, code: int, length: int, referrer: str, agent: str) -> str:
    """A line in the combined log format, of texts that are printable and cannot break it."""
    return f'{host} - - {time} "{request}" {code} {length or "-"} "{referrer}" "{agent}"\n'


def _printable(value: bytes) -> str:
    return _NOT_PRINTABLE.sub(lambda match: b"\\x%02X" % match[0][0], value).decode("ascii")
