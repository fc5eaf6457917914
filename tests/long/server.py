"""A registry process for the long tests, and a client of plain sockets that can stop anywhere."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.clients.server import Registry

TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT = 120


class Server(Registry):
    """A registry process that can be looked at from outside."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def peak(self) -> float:
        """The most memory that was resident so far, in MB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError("no VmHWM")

    def cpu(self) -> tuple[float, float]:
        """Seconds of processor time: of the program, and of the kernel for it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[11]) / TICKS, int(fields[12]) / TICKS

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, self.port, timeout=TIMEOUT)


class Halted:
    """A request that has sent its head and a part of its body."""

    def __init__(
        self, server: Server, method: str, target: str, length: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self.connection = server.connect()
        self.connection.putrequest(method, target)
        self.connection.putheader("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.connection.putheader(name, value)
        self.connection.endheaders()

    @property
    def socket(self) -> socket.socket:
        found: Any = self.connection.sock
        return found

    def send(self, data: bytes) -> None:
        self.connection.send(data)

    def answer(self) -> int:
        """The status; 0 when the server closed the connection without one."""
        try:
            response = self.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            self.close()
        return response.status

    def close(self) -> None:
        self.connection.close()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers (names in lower case) and body of one request on a connection that stays."""
    connection.request(method, target, body, dict(headers or {}))
    response = connection.getresponse()
    data = response.read()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, data


def begin(connection: http.client.HTTPConnection, name: str) -> str:
    """The URL of a new upload session."""
    status, headers, _ = ask(connection, "POST", f"/v2/{name}/blobs/uploads/")
    assert status == 202, status
    return headers["location"]
