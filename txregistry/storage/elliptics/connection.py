"""One socket to one server: the handshake that finds its dialect, and transactions one after the other; blocking.

A connection that timed out, or whose peer sent nonsense, is closed and never used again: a late answer would be taken
for that of the next request.

**Which dialect** a server speaks it does not say before it was greeted in it. One of another version with the same
header closes the connection at once; one with another header waits for more for ever. So the greetings of the two
common headers go out together, each over a socket of its own, and the first answer decides: that takes as long as one
or two answers take, and no silence has to be waited for.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.wire import Address, Broken, Dialect, Header, Peer

#: The longest answer that is believed, in bytes; reads of data allow themselves less.
LONGEST = 64 * 1024 * 1024

#: How long a server may be silent in a handshake before it is thought to speak another dialect, in seconds.
SILENCE = 2.0


class Lost(Exception):
    """The server cannot be reached, did not answer in time, or broke off: what it did is not known."""


class Silent(Lost):
    """It was the time that ran out."""


class Unreachable(Lost):
    """There is not even a connection; `silent` if it was the time that ran out, `refused` if nobody listens there."""

    def __init__(self, reason: str, *, silent: bool = False, refused: bool = False) -> None:
        super().__init__(reason)
        self.silent, self.refused = silent, refused


class Refused(Exception):
    """The server answered with a failure; `status` is a negative errno."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Connection:
    """A socket whose server was greeted; `peer` is what it said of itself, once `meet` has read that."""

    peer: Peer

    def __init__(self, address: Address, dialect: Dialect, timeout: float, connect: float) -> None:
        self.address = address
        self.dialect = dialect
        self.used = time.monotonic()
        self.closed = False
        self._timeout = timeout
        self._number = 0
        self._deadline = time.monotonic() + connect
        host, port, family = address
        try:
            found = socket.getaddrinfo(
                host, port, socket.AF_INET6 if family == 10 else socket.AF_INET, socket.SOCK_STREAM
            )
            self._socket = socket.socket(*found[0][:3])
        except OSError as error:
            raise Unreachable(f"{host}:{port}: {error}") from error
        try:
            self._socket.settimeout(connect)
            self._socket.connect(found[0][4])
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # An idle connection to a machine that is gone ends within half a minute.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                self._socket.setsockopt(socket.IPPROTO_TCP, option, 7)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        except TimeoutError as error:
            self.close()
            raise Unreachable(f"{host}:{port} does not answer", silent=True) from error
        except OSError as error:
            self.close()
            refused = isinstance(error, ConnectionRefusedError)
            raise Unreachable(f"{host}:{port}: {error}", refused=refused) from error
        self._send([wire.hello(dialect)])

    def fileno(self) -> int:
        """The descriptor, for `poll`."""
        return self._socket.fileno()

    def meet(self, within: float) -> Connection:
        """Read what the server says of itself, within so many seconds. Lost."""
        self._deadline = time.monotonic() + within
        try:
            header = self._header()
            self.peer = wire.read_hello(self.dialect, header, self._exactly(self._bounded(header, LONGEST)))
        except Broken as error:
            self.close()
            raise Lost(str(error)) from error
        return self

    @property
    def alive(self) -> bool:
        """Whether an idle connection can be used: nothing may have come, the end least of all."""
        return not self.closed and not self._has_come()

    @property
    def ended(self) -> bool:
        """Whether the server has gone since, even if it is back; of a connection over which nobody calls."""
        try:
            return self._has_come() and not self._socket.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):  # a closed one has no descriptor
            return True

    def _has_come(self) -> bool:
        poll = select.poll()  # unlike select, for descriptors above 1024 too
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self.closed = True
        self._socket.close()

    def call(
        self,
        id_: bytes,
        group: int,
        command: int,
        parts: Sequence[bytes] = (),
        longest: int = LONGEST,
        flags: int = 0,
    ) -> list[bytes]:
        """A transaction: the bodies of its answers. Refused, Lost."""
        if self.closed:
            raise Lost("the connection is closed")
        self._deadline = time.monotonic() + self._timeout
        self._number += 1
        bodies: list[bytes] = []
        total = 0
        try:
            self._send([wire.request(self.dialect, id_, group, command, self._number, parts, flags), *parts])
            while True:
                header = self._header()
                if not header.is_reply:  # what the server wants of its neighbours is no business of a client
                    self._exactly(self._bounded(header, LONGEST))
                    continue
                if header.answers != self._number or header.command != command:
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

    def neighbours(self) -> list[Address]:
        """The servers that this one knows; nothing else is asked over this connection after it. Refused, Lost."""
        self._timeout = min(self._timeout, SILENCE)
        flags = wire.DIRECT | wire.NOLOCK  # it is to answer itself, for whatever group
        bodies = self.call(bytes(wire.ID_SIZE), 0, wire.ROUTE_LIST, flags=flags)
        try:
            return wire.read_neighbours(self.dialect, bodies)
        except Broken as error:
            raise Lost(str(error)) from error

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


def detect(
    address: Address,
    dialects: Sequence[Dialect],
    timeout: float,
    connect: float,
    known: Dialect | None = None,
) -> Connection:
    """A connection in the one of the dialects that the server speaks; `known` is tried first. Lost.

    With a single dialect a server has `connect` seconds to answer, else `SILENCE` at most.
    """
    if len(dialects) == 1:
        return Connection(address, dialects[0], timeout, connect).meet(connect)
    within = min(connect, SILENCE)
    if known is not None:
        try:
            return Connection(address, known, timeout, within).meet(within)
        except Unreachable:
            raise
        except Lost:
            pass  # it may have been replaced by one of another version
    lines: dict[int, list[Dialect]] = {}
    for dialect in dialects:
        lines.setdefault(dialect.header.size, []).append(dialect)
    common = [line for size, line in lines.items() if size != wire.RARE_HEADER]
    found, was_closed = _race(address, common, timeout, within)
    if found is None and wire.RARE_HEADER in lines:
        found, _ = _race(address, [lines[wire.RARE_HEADER]], timeout, within)
    if found is None:
        kind = Lost if was_closed else Silent
        raise kind(f"{address[0]}:{address[1]} speaks none of {', '.join(d.name for d in dialects)}")
    return found


def _race(
    address: Address, lines: Sequence[Sequence[Dialect]], timeout: float, within: float
) -> tuple[Connection | None, bool]:
    """The connection over which the server answers first, and whether it closed one.

    Each line is of dialects with one header; the next is tried when the server has closed on the one before, and
    after the last of a line it is none of these. Unreachable.
    """
    waiting: dict[int, tuple[Connection, Sequence[Dialect]]] = {}
    was_closed = False
    deadline = time.monotonic() + within
    poll = select.poll()

    def greet(line: Sequence[Dialect]) -> None:
        greeted = Connection(address, line[0], timeout, within)
        waiting[greeted.fileno()] = greeted, line[1:]
        poll.register(greeted, select.POLLIN)

    try:
        for line in lines:
            greet(line)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for number, _ in poll.poll(left * 1000):
                connection, rest = waiting.pop(number)
                poll.unregister(number)
                try:
                    return connection.meet(max(0.0, deadline - time.monotonic())), was_closed
                except Silent:
                    continue
                except Lost:
                    was_closed = True
                if not rest:
                    return None, was_closed
                greet(rest)
    finally:
        for connection, _ in waiting.values():
            connection.close()
    return None, was_closed
