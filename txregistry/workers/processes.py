"""One worker's process, as its parent sees it: how it is made, spoken to and heard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txregistry.workers.orders import MARK, Orders

if TYPE_CHECKING:
    from txregistry.workers.parent import Slot

_log = Logger()


class Process(Protocol):
    """What is needed of a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired."""


class Launched(NamedTuple):
    """A worker's process, the socket to it, and the one from it."""

    process: Process
    control: socket.socket
    reports: socket.socket


def launch(orders: Orders) -> Launched:
    """Start a process, in a group of its own: Ctrl-C reaches the parent alone, which stops its workers in order."""
    control, its_control = socket.socketpair()
    reports, its_reports = socket.socketpair()
    with its_control, its_reports:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "txregistry.workers.worker"],
            stdin=its_control.fileno(),
            stderr=its_reports.fileno(),
            pass_fds=orders.sockets,
            process_group=0,
            # The same modules, wherever twistd found them.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    # If it has died already, that is noticed by the end of its reports.
    with suppress(OSError):
        control.sendall(orders.line())
    return Launched(process, control, reports)


class Worker:
    """One worker's process, as the parent knows it; `reported` is called with each report's word and text."""

    def __init__(self, slot: Slot, launched: Launched, now: float, reported: Callable[[Worker, bytes, bytes], None]):
        self.slot = slot
        self.process, self._control, self.reports = launched
        self.begun = now
        self.serving = False
        self.failure: str | None = None
        self.deadline: IDelayedCall | None = None
        self._reported = reported
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes of its reports."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(MARK):
                word, _, text = line.removeprefix(MARK).partition(b" ")
                self._reported(self, word, text)
            elif line.strip():
                _log.error("worker {pid}: {text}", pid=self.process.pid, text=line.decode(errors="backslashreplace"))

    def say(self, word: bytes) -> None:
        """Tell it something."""
        # If it has gone, that is noticed by the end of its reports.
        with suppress(OSError):
            self._control.send(word)

    def stop(self) -> None:
        """Let it end as a server of one process ends."""
        self._control.close()

    def kill(self) -> None:
        """End it now."""
        self.process.send_signal(signal.SIGKILL)


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
