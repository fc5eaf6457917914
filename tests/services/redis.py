"""A real redis-server on a free port of the loopback interface, which keeps nothing; stopped by its own pid."""

import os
import shutil
import signal
import socket
import subprocess
import time

from tests.clients.tools import missing

SECONDS = 20.0


class RedisServer:
    """`redis-server`, started; it can be killed and started again on its port, and paused."""

    def __init__(self, *options: str, password: str = "") -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise missing("redis-server is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.password = password
        self._command = [
            program,
            *("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"),
            *("--maxmemory", "32mb", "--maxmemory-policy", "allkeys-lru", "--loglevel", "warning"),
            *(("--requirepass", password) if password else ()),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.ask("PING")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError("redis-server does not start") from None
                time.sleep(0.01)

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

    def ask(self, *command: str) -> bytes:
        """The reply to a command, as it comes over a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as connection:
            if self.password:
                self._send(connection, ("AUTH", self.password))
                connection.recv(1 << 16)
            self._send(connection, command)
            return connection.recv(1 << 16)

    @staticmethod
    def _send(connection: socket.socket, command: tuple[str, ...]) -> None:
        pieces = [part.encode() for part in command]
        connection.sendall(b"*%d\r\n" % len(pieces) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in pieces))
