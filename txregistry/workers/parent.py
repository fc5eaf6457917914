"""Several processes for one registry: the parent, which opens sockets, keeps workers running and serves nothing.

    worker     from                                   to
    starting   its process was made                   serving, by its word `ready`; gone
    serving    it said so; the slot's one worker      retiring, when another of its slot serves; gone
    retiring   it was told to                         gone, with its last connection
    gone       the end of its reports                 a serving one that is gone is replaced, at once or with a pause

Each worker has a slot, and a slot has its sockets, which the parent keeps open: what the kernel accepted for a worker
that died is served by the next one of its slot. `worker.py` is the other side.

    standard input    the orders, one line of JSON, and from then on words, one a line; its end is the worker's end
    standard output   the parent's, for the access log
    standard error    reports: lines that begin with `MARK` and a word, all others are what Python itself had to say
"""

# Twisted's services have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from txregistry import config
from txregistry.hangup import on_hangup
from txregistry.listen import Endpoint, ListenError, parse
from txregistry.logs import keep_from
from txregistry.mail import MailService
from txregistry.startup import end_start
from txregistry.workers.orders import FAILED, LOG, READY, RETIRE, TELL, TOLD, Orders, files_of, take
from txregistry.workers.processes import Launched, Worker, how_it_ended, launch
from txregistry.workers.relay import decode
from txregistry.workers.sharing import Shared, share

#: How long a worker may take until it serves, and until it has stopped when told to at once, in seconds.
START_SECONDS, STOP_SECONDS = 60.0, 40.0
#: A worker that lived for so many seconds did not die at once.
STEADY_SECONDS = 10.0
#: The longest pause before a worker that dies at once is replaced again, in seconds.
LONGEST_PAUSE = 30.0
#: How often a worker whose reports have ended is asked whether its process has, in seconds.
_REAP_EVERY = 0.05

_log = Logger()


class Slot:
    """A worker's place: its number and sockets, who serves, who is starting, how often the last ones died at once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sockets: tuple[int, ...] = ()
        self.serving: Worker | None = None
        self.starting: Worker | None = None
        self.deaths = 0
        self.retry: IDelayedCall | None = None


class _Reports(Protocol):
    """The connection that a worker's reports come through."""

    def __init__(self, worker: Worker, ended: Callable[[Worker], None]) -> None:
        self._worker = worker
        self._ended = ended

    def dataReceived(self, data: bytes) -> None:
        self._worker.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended(self._worker)


class WorkersService(Service):
    """The parent. `told` is called when the first lines are in the log, `launch` and `take` make processes and orders.

    `take` reads the configuration anew; it raises config.ConfigError or ListenError.
    """

    def __init__(
        self,
        orders: Orders,
        endpoints: list[Endpoint],
        workers: int,
        reactor: Any,
        *,
        take: Callable[[Orders], Orders],
        told: Callable[[], object] = lambda: None,
        launch: Callable[[Orders], Launched] = launch,
    ) -> None:
        self.orders = orders
        self.slots = [Slot(number) for number in range(workers)]
        #: All processes that are not known to have ended.
        self.workers: set[Worker] = set()
        self._endpoints = endpoints
        self._reactor = reactor
        self._take = take
        self._told = told
        self._launch = launch
        self._shared: list[Shared] = []
        self._to_restart: list[Slot] = []
        self._restore_hangup: Callable[[], None] | None = None
        self._all_gone: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """Open the sockets, and hear of SIGHUP before that."""
        super().privilegedStartService()
        self._restore_hangup = on_hangup(self._reactor, self.restart)
        try:
            for endpoint in self._endpoints:
                self._shared.append(share(self._reactor, endpoint, len(self.slots)))
        except ListenError as error:
            end_start(str(error), daemon=self.orders.daemon)
        for slot in self.slots:
            slot.sockets = tuple(shared.descriptors[slot.number] for shared in self._shared)

    def startService(self) -> None:
        """Start the workers and wait until all serve; the first that cannot ends the start."""
        super().startService()
        try:
            workers = [self._start(slot) for slot in self.slots]
            for worker in workers:
                why = self._wait_for(worker)
                if why is not None:
                    end_start(why, daemon=self.orders.daemon)
        except OSError as error:
            self._end_now()
            end_start(_cannot_start(error), daemon=self.orders.daemon)
        except BaseException:
            self._end_now()
            raise
        for worker in workers:
            self._listen_to(worker)
        self._reactor.callWhenRunning(workers[0].say, TELL)

    def _start(self, slot: Slot) -> Worker:
        orders = replace(self.orders, slot=slot.number, sockets=slot.sockets)
        worker = Worker(slot, self._launch(orders), self._reactor.seconds(), self._reported)
        slot.starting = worker
        self.workers.add(worker)
        return worker

    def _wait_for(self, worker: Worker) -> str | None:
        """Block until a worker serves; why it does not, None if it does."""
        while not worker.serving and worker.failure is None:
            data = worker.reports.recv(1 << 16)
            if not data:
                return f"a worker ended at its start, {how_it_ended(worker.process.wait())}"
            worker.feed(data)
        return worker.failure

    def _listen_to(self, worker: Worker) -> None:
        worker.reports.setblocking(False)
        factory = Factory.forProtocol(lambda: _Reports(worker, self._lost))
        factory.noisy = False
        self._reactor.adoptStreamConnection(worker.reports.fileno(), socket.AF_UNIX, factory)
        worker.reports.close()  # the connection has a copy

    def _end_now(self) -> None:
        """After a failed start: whoever tries again must not find the port taken."""
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
            worker.stop()
        for worker in self.workers:
            try:
                worker.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()

    # -- reports ----------------------------------------------------------------------------------------------------

    def _reported(self, worker: Worker, word: bytes, text: bytes) -> None:
        if word == LOG:
            try:
                event = decode(text)
            except (ValueError, KeyError, TypeError):
                # Two that wrote at once, as when Python itself reports a crash.
                _log.error("worker {pid}: {text}", pid=worker.process.pid, text=text.decode(errors="backslashreplace"))
            else:
                globalLogPublisher(event)
        elif word == READY:
            self._serves(worker)
        elif word == FAILED:
            worker.failure = text.decode(errors="backslashreplace")
        elif word == TOLD:
            self._told()

    def _serves(self, worker: Worker) -> None:
        slot = worker.slot
        worker.serving = True
        if worker.deadline is not None:
            worker.deadline.cancel()
            worker.deadline = None
        before, slot.serving, slot.starting = slot.serving, worker, None
        if before is not None:
            before.say(RETIRE)
        self._restart_next()

    def _lost(self, worker: Worker) -> None:
        """Its reports have ended, and its process is about to."""
        status = worker.process.poll()
        if status is None:
            self._reactor.callLater(_REAP_EVERY, self._lost, worker)
            return
        self.workers.discard(worker)
        worker.stop()
        if worker.deadline is not None:
            worker.deadline.cancel()
        if self._all_gone is not None:
            if not self.workers:
                self._all_gone.callback(None)
        elif worker.slot.starting is worker:
            worker.slot.starting = None
            self._died_at_start(worker, status)
        elif worker.slot.serving is worker:
            worker.slot.serving = None
            how = how_it_ended(status)
            _log.error("worker {pid} is gone, {how}; another takes its place", pid=worker.process.pid, how=how)
            # One that is to take its place may be starting already.
            if worker.slot.starting is None:
                self._replace(worker)

    def _died_at_start(self, worker: Worker, status: int) -> None:
        why = worker.failure or how_it_ended(status)
        if worker.slot.serving is None:
            _log.error("a worker could not start: {why}", why=why)
            self._replace(worker)
        else:
            _log.error("a worker could not start: {why}; those that serve go on as they are", why=why)
            self._to_restart.clear()

    # -- new ones in place of old ones ------------------------------------------------------------------------------

    def _replace(self, worker: Worker) -> None:
        """Start another in the slot of one that died: at once, or after a pause that doubles while they die at once."""
        slot = worker.slot
        if self._reactor.seconds() - worker.begun >= STEADY_SECONDS:
            slot.deaths = 0
        pause = 0.0 if slot.deaths == 0 else min(2.0 ** (slot.deaths - 1), LONGEST_PAUSE)
        slot.deaths += 1
        slot.retry = self._reactor.callLater(pause, self._start_another, slot)

    def _start_another(self, slot: Slot) -> None:
        if slot.retry is not None and slot.retry.active():
            slot.retry.cancel()
        slot.retry = None
        try:
            worker = self._start(slot)
        except OSError as error:
            # No memory, no more processes or descriptors: it may pass.
            _log.error("{why}", why=_cannot_start(error))
            slot.retry = self._reactor.callLater(LONGEST_PAUSE, self._start_another, slot)
            return
        worker.deadline = self._reactor.callLater(START_SECONDS, self._too_slow, worker)
        self._listen_to(worker)

    def _too_slow(self, worker: Worker) -> None:
        worker.deadline = None
        worker.failure = f"it did not serve within {START_SECONDS:g} s"
        worker.kill()

    def restart(self) -> None:
        """Replace all workers, one after the other, each when the next one of its slot serves; after a SIGHUP."""
        if not self.running or self._all_gone is not None:
            return
        try:
            self.orders = self._take(self.orders)
        except (config.ConfigError, ListenError) as error:
            _log.error("no restart: {error}", error=error)
            return
        _log.info("restarting {count} workers", count=len(self.slots))
        self._to_restart = list(self.slots)
        self._restart_next()

    def _restart_next(self) -> None:
        if self._all_gone is not None or any(slot.starting is not None and slot.serving for slot in self.slots):
            return
        # One that is starting in the place of a dead one may have older orders: its turn comes when it serves.
        slot = next((slot for slot in self._to_restart if slot.starting is None), None)
        if slot is not None:
            self._to_restart.remove(slot)
            self._start_another(slot)

    # -- the end ----------------------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Stop all workers, and close the sockets."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _kill(self) -> None:
        for worker in self.workers:
            worker.kill()

    async def _stop(self) -> None:
        gone = self._all_gone = Deferred()
        for slot in self.slots:
            if slot.retry is not None and slot.retry.active():
                slot.retry.cancel()
        for worker in self.workers:
            worker.stop()
        if self.workers:
            late = self._reactor.callLater(STOP_SECONDS, self._kill)
            await gone
            if late.active():
                late.cancel()
        for shared in self._shared:
            await maybeDeferred(shared.close)
        if self._restore_hangup is not None:
            self._restore_hangup()


def _cannot_start(error: OSError) -> str:
    return f"a worker could not start: {sys.executable}: {os.strerror(error.errno or 0)}"


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def make(
    options: Mapping[str, Any],
    settings: config.Settings,
    snapshot: config.Snapshot,
    cwd: str,
    reactor: Any,
    *,
    daemon: bool = False,
) -> MultiService:
    """The service of the parent; SystemExit with one line for what can be seen to be wrong.

    `snapshot` is the configuration file from which `settings` are, below the working directory `cwd`.
    """
    whole = MultiService()
    try:
        mail = MailService(settings, reactor)
        orders = Orders(
            options={**options, "listen": list(settings.listen)},
            cwd=cwd,
            source=snapshot.source,
            files=files_of(settings, snapshot, {}),
            secret_key=secrets.token_hex(32),
            daemon=daemon,
        )
        endpoints = [parse(text) for text in settings.listen]
    except (config.ConfigError, ListenError) as error:
        raise SystemExit(f"txregistry: {error}") from None

    def told() -> None:
        # Workers have no mail of their own: their failures are in the parent's log.
        keep_from(settings.loglevel)
        mail.setServiceParent(whole)

    count = usable_cpus() if settings.workers is None else settings.workers
    service = WorkersService(
        orders, endpoints, count, reactor, take=lambda orders: take(orders, os.environ), told=told
    )
    service.setServiceParent(whole)
    return whole
