"""What a worker's process runs: a registry on sockets that its parent has opened. `parent.py` is the other side.

It ends when its parent closes its standard input or is gone itself.
"""

# Twisted's services have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import ILogObserver, Logger, LogLevel, globalLogBeginner
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txregistry import config
from txregistry.listen import Endpoint
from txregistry.logs import keep_from
from txregistry.service import RegistryService
from txregistry.startup import StartFailed
from txregistry.tap import settings_of
from txregistry.workers.orders import FAILED, LOG, MARK, READY, RETIRE, TELL, TOLD, Orders
from txregistry.workers.relay import encode
from txregistry.workers.sharing import adopt

#: How long connections that are in use may keep a worker that is to retire, in seconds.
RETIRE_SECONDS = 3600.0

#: The namespaces of Twisted's log.
_REMARKS = ("twisted.", "log_legacy")

_log = Logger()


@implementer(ILogObserver)
class Reports:
    """The lines for the parent, from any thread; they are written at once, so that a crash loses none."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, word: bytes, text: str = "") -> None:
        """Send one report."""
        line = MARK + word + b" " + " ".join(text.split("\n")).encode(errors="backslashreplace") + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                pass  # the parent is gone, and this process about to

    def __call__(self, event: dict[str, Any]) -> None:
        """Send an event of the log, unless each worker would say the same: what Twisted remarks of ports and loops."""
        if event.get("log_level") is not LogLevel.info or not event["log_namespace"].startswith(_REMARKS):
            self.send(LOG, encode(event))


class WorkerService(RegistryService):
    """The registry of a worker: its sockets are open, and its parent tells the world of it."""

    def __init__(self, settings: config.Settings, reactor: Any, orders: Orders) -> None:
        self.background = orders.slot == 0
        self._sockets = orders.sockets
        super().__init__(settings, reactor, daemon=orders.daemon, files=orders.contents)

    def _open(self, number: int, endpoint: Endpoint) -> IListeningPort:
        return adopt(self._reactor, endpoint, self._sockets[number], self.site, self._tls)

    def _when_started(self) -> None:
        """Tell nothing: the parent says who does, when all are there."""

    def _fail(self, line: str) -> NoReturn:
        raise StartFailed(line)

    async def retire(self) -> None:
        """Serve the clients that are connected until each has had its answer, and nobody else."""
        await self.stop_accepting()
        gone = self.site.retire()
        gone.addTimeout(RETIRE_SECONDS, self._reactor)
        await gone.addErrback(self._give_up)

    def _give_up(self, _failure: Failure) -> None:
        _log.warn("{count} connections are cut: they took longer than {seconds} s",
                  count=len(self.site.channels), seconds=RETIRE_SECONDS)  # fmt: skip


class Control(LineOnlyReceiver):
    """The parent's words."""

    delimiter = b"\n"

    def __init__(self, tell: Callable[[], None], retire: Callable[[], None], stop: Callable[[], None]) -> None:
        self._called = {TELL.strip(): tell, RETIRE.strip(): retire}
        self._stop = stop

    def lineReceived(self, line: bytes) -> None:
        """Do as told."""
        self._called[line]()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop: so the parent asks for it, and so it is when the parent is gone."""
        self._stop()


class Process:
    """The life of a worker's process."""

    def __init__(self, orders: Orders, reports: Reports, reactor: Any) -> None:
        settings = settings_of(orders.options, os.environ, orders.cwd, orders.snapshot)
        # A session must hold on every worker.
        self._settings = replace(settings, secret_key=settings.secret_key or orders.secret_key)
        self._reports = reports
        self._reactor = reactor
        self.service = WorkerService(self._settings, reactor, orders)
        self._quiet = orders.slot != 0

    def start(self, control: socket.socket) -> None:
        """Serve from when the reactor runs."""
        self.service.privilegedStartService()
        self.service.startService()
        if self._quiet:
            keep_from(self._settings.loglevel)
        control.setblocking(False)
        factory = Factory.forProtocol(lambda: Control(self.tell, self.retire, self.stop))
        factory.noisy = False
        self._reactor.adoptStreamConnection(control.fileno(), socket.AF_UNIX, factory)
        self._reactor.addSystemEventTrigger("before", "shutdown", self.service.stopService)
        self._reactor.callWhenRunning(self._reports.send, READY)

    def tell(self) -> None:
        """Say what runs; from then on only what is of the wanted level."""
        self.service.tell()
        self._reports.send(TOLD)
        keep_from(self._settings.loglevel)

    def retire(self) -> None:
        """End, but not before everybody who is connected was served."""
        Deferred.fromCoroutine(self.service.retire()).addBoth(lambda _: self.stop())

    def stop(self) -> None:
        """End now, as a server of one process does."""
        # It may be about to: a signal came first, or the last connection has gone.
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def _read_orders(control: socket.socket) -> Orders:
    line = b""
    while not line.endswith(b"\n"):
        data = control.recv(1 << 16)
        if not data:
            raise SystemExit(1)
        line += data
    return Orders.of(line)


def main() -> None:
    """Run until told to stop; SystemExit with status 1 if it cannot even start."""
    control = socket.socket(fileno=0)
    orders = _read_orders(control)
    reports = Reports(2)
    globalLogBeginner.beginLoggingTo([reports])

    from twisted.internet import reactor  # noqa: PLC0415 - the first import installs it

    try:
        Process(orders, reports, reactor).start(control)
    except (config.ConfigError, StartFailed) as error:
        reports.send(FAILED, str(error))
        raise SystemExit(1) from None
    reactor.run()


if __name__ == "__main__":
    main()
