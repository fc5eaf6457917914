"""Listening sockets that one process opens and others accept from."""

# Twisted's ports have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from txregistry.listen import PORTS, Endpoint, ListenError, listen, reason
from txregistry.web.tls import TLSPort
from txregistry.web.transport import RegistryPort

#: The other endpoints that workers can serve: all of them accept from the one socket that there is.
_ONE_SOCKET = ("unix", "systemd")


class Shared:
    """The sockets of one endpoint: `descriptors` has one for each worker, open until `close`."""

    def __init__(self, descriptors: list[int], close: Callable[[], object]) -> None:
        self.descriptors = descriptors
        self.close = close


def share(reactor: Any, endpoint: Endpoint, workers: int) -> Shared:
    """Open an endpoint for a number of workers; nothing is accepted here. ListenError.

    Of a port each worker has a socket of its own, among which the kernel spreads the connections: of one socket that
    all watch, whoever wakes first takes a whole burst. What waits in a socket is not lost when its worker ends, as long
    as the socket is kept for the next one.
    """
    if endpoint.kind in PORTS:
        try:
            sockets = _reuse_port(endpoint, workers)
        except OSError as error:
            raise ListenError(f"cannot listen on {endpoint.text}: {reason(error)}") from None
        return Shared([each.fileno() for each in sockets], lambda: _close(sockets))
    if endpoint.kind not in _ONE_SOCKET:
        raise ListenError(
            f"endpoint {endpoint.text!r}: workers serve tcp:, tcp6:, https:, unix: and systemd:, not {endpoint.kind}:;"
            " one process without workers serves all kinds"
        )
    factory = ServerFactory()
    factory.noisy = False
    port: Any = listen(reactor, endpoint, factory)
    port.stopReading()
    return Shared([port.fileno()] * workers, port.stopListening)


def _reuse_port(endpoint: Endpoint, count: int) -> list[socket.socket]:
    family, _, _, _, address = socket.getaddrinfo(
        endpoint.interface or "0.0.0.0",  # noqa: S104 - what an endpoint without interface= asks for
        endpoint.port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_NUMERICHOST,
    )[0]
    if endpoint.port:
        # Two servers that both set SO_REUSEPORT would share the port unnoticed; one without finds the other.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(address)
            one.listen(endpoint.backlog)
            # A port of Twisted accepts until nothing is left: it would hang in its second accept.
            one.setblocking(False)
            # Port 0 becomes a number with the first.
            address = one.getsockname()
    except OSError:
        _close(sockets)
        raise
    return sockets


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


class _SharedUnixPort(unix.Port):
    """A socket of another process: its file keeps its mode, and both outlive this process."""

    def startListening(self) -> None:
        tcp.Port.startListening(self)

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


def adopt(
    reactor: Any, endpoint: Endpoint, descriptor: int, factory: IProtocolFactory, tls: Any = None
) -> IListeningPort:
    """Accept from a descriptor that `share` opened in another process; it belongs to the port from now on."""
    known = socket.socket(fileno=descriptor)
    family = known.family
    known.detach()
    port: IListeningPort
    if family == socket.AF_UNIX:
        port = _SharedUnixPort._fromListeningDescriptor(reactor, descriptor, factory)
    elif endpoint.needs_certificate:
        port = secure = TLSPort._fromListeningDescriptor(reactor, descriptor, family, factory)
        secure.context = tls
    else:
        port = RegistryPort._fromListeningDescriptor(reactor, descriptor, family, factory)
    os.close(descriptor)  # the port has a copy
    port.startListening()
    return port
