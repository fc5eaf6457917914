"""Other processes that hold and write partial objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import txregistry


class Worker:
    """One of them, which does what `worker.py` says."""

    def __init__(self, endpoint: str, bucket: str, key: str = "testing", secret: str = "testing") -> None:
        root = os.path.dirname(os.path.dirname(os.path.abspath(txregistry.__file__)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.s3.worker", endpoint, bucket, key, secret],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, *command: object) -> None:
        """Give a command without waiting for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the end of a command."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, *command: object) -> Any:
        """Give a command and wait for its end."""
        self.send(*command)
        return self.answer()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()

    def end(self) -> None:
        """End it and let go of its pipes."""
        self._process.kill()
        self._process.communicate()
