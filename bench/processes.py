"""What a server's processes cost: processor time, memory, connections, as Linux counts them under /proc."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """Processor time in seconds: exactly, and what the kernel splits into user's and its own, in ticks of 10 ms."""

    total: float
    user: float
    system: float

    def since(self, before: Cpu) -> Cpu:
        """What was used since then; the exact time is split as the ticks are."""
        total, user, system = (now - then for now, then in zip(self, before, strict=True))
        share = user / (user + system) if user + system > 0 else 1.0
        return Cpu(total, total * share, total * (1 - share))


def _stat(pid: int) -> list[str] | None:
    """The fields after the name in /proc/PID/stat: the first is the state."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def process_seconds(pid: int) -> float:
    """Processor time of all threads of a process, in nanoseconds' precision (the kernel's CPU clock of a process)."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


class Program:
    """A server's process, in a session of its own; what it says goes to a file."""

    def __init__(self, command: Sequence[str], folder: str, log: str) -> None:
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "PYTHONPATH": folder, "OTEL_TRACES_EXPORTER": "none"},
            )  # fmt: skip
        self.pid = self._process.pid
        self._command, self._log = command, log

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}; see {self._log}")

    def cpu(self) -> Cpu:
        """Processor time so far, of its descendants too, those that ended included."""
        exact = user = system = 0.0
        for pid in family(self.pid):
            if fields := _stat(pid):
                own_user, own_system, ended_user, ended_system = (int(each) / _TICK for each in fields[11:15])
                exact += process_seconds(pid) + ended_user + ended_system
                user += own_user + ended_user
                system += own_system + ended_system
        return Cpu(exact, user, system)

    def memory(self, what: str) -> float:
        """The sum over its processes of a line of /proc/PID/status (`VmHWM`, `VmRSS`, `RssAnon`), in MiB."""
        total = 0
        for pid in family(self.pid):
            with suppress(OSError), open(f"/proc/{pid}/status") as file:
                found = re.search(rf"^{what}:\s+(\d+) kB", file.read(), re.MULTILINE)
                total += int(found.group(1)) if found else 0
        return total / 1024

    def stop(self) -> None:
        """End it, by force after ten seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.wait()


def owners_of_ports(pids: Sequence[int], port: int) -> dict[int, int]:
    """The client's port of each connection to `port` of this machine, and which of these processes serves it."""
    by_inode = {}
    with open("/proc/net/tcp") as file:
        for line in list(file)[1:]:
            fields = line.split()
            local, remote = (int(each.rpartition(":")[2], 16) for each in fields[1:3])
            if local == port:
                by_inode[fields[9]] = remote
    owners: dict[int, int] = {}
    for pid in pids:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if target.startswith("socket:[") and (client := by_inode.get(target[8:-1])) is not None:
                    owners[client] = pid
    return owners


def machine_seconds() -> float:
    """Processor time that all processes of the machine have used."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, irq, soft, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + soft) / _TICK


def own_seconds() -> float:
    """Processor time of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Meter:
    """Measures what happens inside a `with`: seconds on the wall, and processor time of a server."""

    #: Sums over all meters: processor time of neither server nor benchmark, and seconds on the wall.
    foreign = 0.0
    measured = 0.0

    def __init__(self, program: Program) -> None:
        self._program = program
        self.wall = 0.0
        self.cpu = Cpu(0.0, 0.0, 0.0)

    def __enter__(self) -> Meter:
        self._before = (machine_seconds(), own_seconds())
        self._cpu = self._program.cpu()
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall = time.monotonic() - self._began
        self.cpu = self._program.cpu().since(self._cpu)
        machine, own = self._before
        others = machine_seconds() - machine - (own_seconds() - own) - self.cpu.total
        Meter.foreign += max(0.0, others)
        Meter.measured += self.wall
