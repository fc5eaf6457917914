"""An HTTP/1.1 client light enough not to be what is measured."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

MIB = 1 << 20
Headers = Iterable[tuple[str, object]]


class Failed(Exception):
    """A server answered what it should not have."""


class Address(NamedTuple):
    """Where a server listens; `tls` has the authority that signed its certificate."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """The address as a URL."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class Reply(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def want(self, *statuses: int) -> Reply:
        """Itself, if its status is one of these."""
        if self.status not in statuses:
            raise Failed(f"status {self.status}, wanted {statuses}: {self.body[:160]!r}")
        return self


class Connection:
    """One connection, opened at its first request and again when the server has closed it."""

    def __init__(self, address: Address, timeout: float = 120.0) -> None:
        self._address, self._timeout = address, timeout
        self._open_socket: socket.socket | None = None
        self._buffer = b""

    @property
    def socket(self) -> socket.socket:
        """The open socket."""
        if self._open_socket is None:
            plain = socket.create_connection(self._address[:2], self._timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._address.tls
            self._open_socket = tls.wrap_socket(plain, server_hostname=self._address.host) if tls else plain
            self._buffer = b""
        return self._open_socket

    def close(self) -> None:
        """Close it."""
        if self._open_socket is not None:
            self._open_socket.close()
        self._open_socket = None

    def send_head(self, method: str, path: str, headers: Headers = ()) -> None:
        """Send the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._address.host}:{self._address.port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Reply:
        """Send a request and read its answer."""
        if body or method in {"POST", "PUT", "PATCH"}:
            headers = (*headers, ("Content-Length", len(body)))
        self.send_head(method, path, headers)
        if body:
            self.socket.sendall(body)
        return self.answer(method)

    def answer(self, method: str) -> Reply:
        """Read the answer to a request of this method."""
        status, headers = self._answer_head()
        if method == "HEAD" or status in {204, 304}:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            parts = []
            while size := int(self._line().split(b";")[0], 16):
                parts.append(self._take(size))
                self._line()
            while self._line():
                pass
            body = b"".join(parts)
        else:
            body = self._take(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(status, headers, body)

    def discard(self, path: str, size: int) -> None:
        """GET `size` bytes and drop them: in the kernel if they come in clear, so that they cost next to nothing."""
        flags = 0 if self._address.tls else socket.MSG_TRUNC
        self.send_head("GET", path)
        status, headers = self._answer_head()
        if status != 200 or int(headers.get("content-length", -1)) != size:
            raise Failed(f"GET answered {status}, length {headers.get('content-length')}")
        left = size - len(self._buffer)
        self._buffer = b""
        # With a timeout Python would ask the kernel twice for each piece.
        self.socket.settimeout(None)
        scratch = bytearray(MIB)
        while left:
            got = self.socket.recv_into(scratch, min(left, MIB), flags)
            if not got:
                raise Failed("the body is short")
            left -= got
        self.socket.settimeout(self._timeout)

    def _fill(self) -> None:
        got = self.socket.recv(65536)
        if not got:
            raise Failed("the server closed the connection")
        self._buffer += got

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _take(self, count: int) -> bytes:
        parts, have = [self._buffer[:count]], min(count, len(self._buffer))
        self._buffer = self._buffer[count:]
        while have < count:
            got = self.socket.recv(min(count - have, MIB))
            if not got:
                raise Failed("the body is short")
            parts.append(got)
            have += len(got)
        return b"".join(parts)

    def _answer_head(self) -> tuple[int, dict[str, str]]:
        while True:
            while b"\r\n\r\n" not in self._buffer:
                self._fill()
            raw, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            first, *rest = raw.decode("latin-1").split("\r\n")
            status = int(first.split()[1])
            if status >= 200:
                pairs = (line.split(":", 1) for line in rest)
                return status, {name.strip().lower(): value.strip() for name, value in pairs}


def location(address: Address, reply: Reply) -> str:
    """Path and query of the answer's `Location`; Failed if it leads to another server."""
    there = reply.headers.get("location")
    if not there:
        raise Failed("no Location in the answer")
    parts = urlsplit(there)
    if parts.netloc and parts.netloc != f"{address.host}:{address.port}":
        raise Failed(f"Location leads to another host: {there}")
    path = parts.path if parts.path.startswith("/") else f"/{parts.path}"
    return path + (f"?{parts.query}" if parts.query else "")


def with_digest(path: str, digest: str) -> str:
    """The path that ends an upload."""
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"
