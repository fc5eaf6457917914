"""What the servers of OpenStack have in common: a folder, ports, and programs that end with the tests."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.clients.tools import find

SECONDS = 120.0


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Servers:
    """Programs over a folder of their own, which is removed when the tests end, as they are."""

    def __init__(self) -> None:
        self._openstack = find("openstack")
        self.folder = Path(tempfile.mkdtemp(prefix="txregistry-"))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        atexit.register(self._clear)

    def run(self, *command: str, environment: dict[str, str] | None = None) -> bytes:
        """Run a program of OpenStack to its end; its output."""
        done = subprocess.run(
            [self._openstack, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **(environment or {})},
            cwd=self.folder,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def start_program(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Begin a program, whose first word is its path or that of a program of OpenStack."""
        first = [] if command[0].startswith("/") else [self._openstack]
        with open(self.folder / f"{name}.out", "ab") as out:
            self._running[name] = subprocess.Popen(
                [*first, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=self.folder,
            )

    def wait_for(self, url: str) -> None:
        """Return when something answers there, whatever it says."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                return
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return
            except OSError:
                pass
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                told = {name: (self.folder / f"{name}.out").read_bytes()[-2000:] for name in ended or self._running}
                self.stop()
                raise AssertionError(f"{url} does not answer: {told}")
            time.sleep(0.05)

    @property
    def running(self) -> set[str]:
        """The names of the programs that run."""
        return {name for name, process in self._running.items() if process.poll() is None}

    def kill(self, *names: str) -> None:
        """End programs without a warning; all without a name."""
        for name in names or tuple(self._running):
            process = self._running.pop(name)
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End what runs."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _clear(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
