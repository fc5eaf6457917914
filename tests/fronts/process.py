"""A front end as a process of its own: with a shipped configuration, whose ports and paths are replaced."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
SECONDS = 30.0


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def shipped(name: str, replaced: Mapping[str, str], *, passwords: bool = False) -> str:
    """A file of conf/ with every text of `replaced`, each of which it must have, replaced.

    With `passwords` the lines that ask for them are uncommented.
    """
    text = (CONF / name).read_text()
    for old, new in replaced.items():
        assert old in text, f"conf/{name} has no {old!r}"
        text = text.replace(old, new)
    return re.sub(r"(?m)^( +)#(?=[A-Za-z<])", r"\1", text) if passwords else text


class Process:
    """A program that serves on `port` of 127.0.0.1 and writes its errors to `log`; started, and ended by `stop`."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
            )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), SECONDS).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"{command[0]} does not start:\n{log.read_text()[-4000:]}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
