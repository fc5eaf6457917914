"""A real S3 server, VersityGW, on a free port of the loopback interface, over a folder; stopped by its own pid.

It checks signatures, and its objects are files of that folder: a bucket is a folder below `data`.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.clients.tools import find

SECONDS = 20.0
KEY, SECRET, REGION = "testkey", "testsecret", "us-east-1"


class S3Server:
    """`versitygw`, started; it can be killed and started again on its port and its folder."""

    def __init__(self, folder: str) -> None:
        self._program = find("versitygw")
        self.data = Path(folder).absolute() / "data"
        self.data.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        command = [self._program, "--port", f"127.0.0.1:{self.port}", "--region", REGION, "--health", "/health"]
        self._process = subprocess.Popen(
            [*command, "posix", str(self.data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
            cwd="/",
        )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.endpoint}/health", timeout=SECONDS).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError("versitygw does not start") from None
                time.sleep(0.02)

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def make_bucket(self, name: str) -> None:
        """Make a bucket without a request."""
        (self.data / name).mkdir()
