"""One socket to one server: the handshake that finds its dialect, and transactions one after the other; blocking.

A connection that timed out, or whose peer sent nonsense, is closed and never used again: a late answer would be taken
for that of the next request.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.wire import Broken, Dialect, Header, Peer

Address = tuple[str, int, int]

#: The longest answer that is believed, in bytes; reads of data allow themselves less.
LONGEST = 64 * 1024 * 1024

#: How long a server may be silent in a handshake before it is thought to speak another dialect, in seconds.
SILENCE = 2.0


class Lost(Exception):
    """The server cannot be reached, did not answer in time, or broke off: what it did is not known."""


class Silent(Lost):
    """It was the time that ran out."""


class Refused(Exception):
    """The server answered with a failure; `status` is a negative errno."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Connection:
    """A socket after its handshake; `peer` is what the server said of itself."""

    def __init__(self, address: Address, dialect: Dialect, timeout: float, connect: float) -> None:
        self.address = address
        self.dialect = dialect
        self.used = time.monotonic()
        self.closed = False
        self._timeout = timeout
        self._number = 0
        host, port, family = address
        try:
            found = socket.getaddrinfo(
                host, port, socket.AF_INET6 if family == 10 else socket.AF_INET, socket.SOCK_STREAM
            )
            self._socket = socket.socket(*found[0][:3])
        except OSError as error:
            raise Lost(f"{host}:{port}: {error}") from error
        try:
            self._socket.settimeout(connect)
            self._socket.connect(found[0][4])
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except TimeoutError as error:
            self.close()
            raise Silent(f"{host}:{port} does not answer") from error
        except OSError as error:
            self.close()
            raise Lost(f"{host}:{port}: {error}") from error
        self.peer = self._shake(connect)

    def _shake(self, connect: float) -> Peer:
        self._deadline = time.monotonic() + connect
        try:
            self._send([wire.hello(self.dialect)])
            header = self._header()
            return wire.read_hello(self.dialect, header, self._exactly(self._bounded(header, LONGEST)))
        except Broken as error:
            self.close()
            raise Lost(str(error)) from error

    @property
    def alive(self) -> bool:
        """Whether an idle connection can be used: nothing may have come, the end least of all."""
        if self.closed:
            return False
        poll = select.poll()  # unlike select, for descriptors above 1024 too
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self.closed = True
        self._socket.close()

    def call(
        self, id_: bytes, group: int, command: int, parts: Sequence[bytes] = (), longest: int = LONGEST
    ) -> list[bytes]:
        """A transaction: the bodies of its answers. Refused, Lost."""
        if self.closed:
            raise Lost("the connection is closed")
        self._deadline = time.monotonic() + self._timeout
        self._number += 1
        bodies: list[bytes] = []
        total = 0
        try:
            self._send([wire.request(self.dialect, id_, group, command, self._number, parts), *parts])
            while True:
                header = self._header()
                if header.answers != self._number or header.command != command or not header.is_reply:
                    raise Broken(f"an answer to another request, {header.answers} instead of {self._number}")
                body = self._exactly(self._bounded(header, longest - total))
                total += len(body)
                if body:
                    bodies.append(body)
                if header.is_last:
                    break
        except Broken as error:
            self.close()
            raise Lost(str(error)) from error
        self.used = time.monotonic()
        if header.status:
            raise Refused(header.status)
        return bodies

    def _bounded(self, header: Header, longest: int) -> int:
        if header.size > longest:
            raise Broken(f"an answer of {header.size} bytes, {longest} at most are expected")
        return header.size

    def _header(self) -> Header:
        return wire.unpack_header(self.dialect, self._exactly(self.dialect.header.size))

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _send(self, parts: Sequence[bytes]) -> None:
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(b"".join(parts))
        except TimeoutError as error:
            self.close()
            raise Silent(f"{self.address[0]}:{self.address[1]} takes nothing") from error
        except OSError as error:
            self.close()
            raise Lost(str(error)) from error

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        at = 0
        try:
            while at < size:
                self._socket.settimeout(self._left())
                count = self._socket.recv_into(view[at:])
                if not count:
                    raise ConnectionResetError("the server closed the connection")
                at += count
        except TimeoutError as error:
            self.close()
            raise Silent(f"{self.address[0]}:{self.address[1]} did not answer in time") from error
        except OSError as error:
            self.close()
            raise Lost(str(error)) from error
        return bytes(data)


def detect(address: Address, dialects: Sequence[Dialect], timeout: float, connect: float) -> Connection:
    """A connection in the first of the dialects that the server speaks. Lost.

    A server of another version with the same header closes the connection; one with another header waits for more.
    """
    errors: list[Lost] = []
    silent = {dialect.header.size: False for dialect in dialects}
    for dialect in dialects:
        if silent[dialect.header.size]:
            continue
        try:
            return Connection(
                address, dialect, timeout, min(connect, SILENCE) if len(dialects) > 1 else connect
            )
        except Silent as error:
            silent[dialect.header.size] = True
            errors.append(error)
        except Lost as error:
            errors.append(error)
            if isinstance(error.__cause__, ConnectionRefusedError | socket.gaierror):
                break
    raise errors[-1]
