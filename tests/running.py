"""`twistd registry` as a process of its own, run from the source tree, in a folder and a home of its own."""

import http.client
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parent.parent
#: What the console command `twistd` runs.
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
SECONDS = 60.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of such a process: no configuration of whoever runs the tests reaches it."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def run(folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run twistd to its end, which is near since the start fails."""
    return subprocess.run(
        [*TWISTD, *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


class Running:
    """`twistd -n registry ARGUMENTS`, started; `addresses` are its URLs as the log has them."""

    def __init__(self, folder: Path, *arguments: str, before: "tuple[str, ...]" = (), **more: str) -> None:
        self.folder = folder
        with tempfile.TemporaryFile("w+") as errors:
            self.process = subprocess.Popen(
                [*TWISTD, "-n", *before, "registry", *arguments],
                cwd=folder,
                env=environment(folder, **more),
                # What a shell runs in the background ignores it, and so would whatever that starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            self.lines: list[str] = []
            assert self.process.stdout is not None
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
                if " may pull" in line:
                    break
            else:
                self.process.wait(SECONDS)
                errors.seek(0)
                raise AssertionError(f"it did not start: {self.lines} {errors.read()}")
        self.addresses = re.findall(r"listening on (\S+)", "\n".join(self.lines))

    def get(self, path: str, context: ssl.SSLContext | None = None, address: int = 0) -> "tuple[int, bytes]":
        """Status and body of one GET."""
        scheme, _, host = self.addresses[address].partition("://")
        connection: http.client.HTTPConnection
        if scheme == "https":
            connection = http.client.HTTPSConnection(host, timeout=SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, timeout=SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Stop it; the exit status, negative for a signal. The rest of its output is in `lines`."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        # Not `communicate`: it would miss the lines that are in the buffer of `stdout` already.
        late = threading.Timer(SECONDS, self.process.kill)
        late.start()
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        status = self.process.wait()
        late.cancel()
        return status

    def __enter__(self) -> "Running":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain: {what}")
        time.sleep(0.02)
