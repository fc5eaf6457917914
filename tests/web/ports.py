"""Real ports of every kind for one site, and blocking clients for them: the same tests run on each."""

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import _SystemdParser
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from txregistry.listen import listen, parse, tls_context
from txregistry.testing.agent import Response, parse_response
from txregistry.web.site import RegistrySite


class Plain:
    """`tcp:`, with all that is ours."""

    secure = False
    own = True

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.address: Any = None

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        """A port that listens."""
        port = listen(reactor, parse("tcp:0:interface=127.0.0.1"), site)
        self.address = ("127.0.0.1", port.getHost().port)  # type: ignore[attr-defined]
        return port

    def connect(self) -> socket.socket:
        """A client; blocking, for a thread."""
        return socket.create_connection(self.address, timeout=30)


class Secure(Plain):
    """`https:`, with all that is ours."""

    secure = True

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.authority = Authority(folder)
        self.files = self.authority.issue("server")
        self.client = ssl.create_default_context(cafile=self.authority.path)

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        port = listen(reactor, parse("https:0:interface=127.0.0.1"), site, tls_context(*self.files))
        self.address = ("127.0.0.1", port.getHost().port)  # type: ignore[attr-defined]
        return port

    def connect(self) -> socket.socket:
        return self.client.wrap_socket(super().connect(), server_hostname="localhost")


class TwistedPlain(Plain):
    """TCP by Twisted alone."""

    own = False

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.address = ("127.0.0.1", port.getHost().port)
        return port


class TwistedSecure(Secure):
    """TLS by Twisted alone, which is what `ssl:` endpoints have."""

    own = False

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        certificate, key = self.files
        port = reactor.listenSSL(0, site, DefaultOpenSSLContextFactory(key, certificate), interface="127.0.0.1")
        self.address = ("127.0.0.1", port.getHost().port)
        return port


class Unix(Plain):
    """`unix:`."""

    own = False

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        self.address = f"{self.folder}.sock"[-90:].replace("/", "_")
        return listen(reactor, parse(f"unix:{self.address}"), site)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(self.address)
        return connection


class SSLEndpoint(Secure):
    """`ssl:`."""

    own = False

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        certificate, key = self.files
        text = f"ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
        port = listen(reactor, parse(text), site)
        self.address = ("127.0.0.1", port.getHost().port)  # type: ignore[attr-defined]
        return port


class Systemd(Plain):
    """`systemd:`, whose socket somebody else has opened."""

    own = False

    def listen(self, reactor: Any, site: RegistrySite) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as opened:
            self.address = opened.getsockname()
            opened.setblocking(False)
            inherited = ListenFDs([os.dup(opened.fileno())])
        before = _SystemdParser._sddaemon
        _SystemdParser._sddaemon = inherited
        try:
            return listen(reactor, parse("systemd:domain=INET:index=0"), site)
        finally:
            _SystemdParser._sddaemon = before


class PortTestCase(TestCase):
    """A test on a site that listens on a port of one kind, which the class names."""

    kind: type[Plain] = Plain
    reactor: Any

    def site_on_port(self, site: RegistrySite) -> None:
        """Let it listen until the test ends."""
        from twisted.internet import reactor

        self.reactor = reactor
        self.site = site
        self.kept = self.kind(self.mktemp())
        self.port = self.kept.listen(reactor, site)
        self.addCleanup(maybeDeferred, self.port.stopListening)
        self.addCleanup(site.cut_connections)

    def connect(self) -> socket.socket:
        """A client; blocking, for a thread."""
        return self.kept.connect()

    def sleep(self, seconds: float) -> Deferred[None]:
        """Let the server run."""
        done: Deferred[None] = Deferred()
        self.reactor.callLater(seconds, done.callback, None)
        return done

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the server run until something is so; trial ends what never comes."""
        while not condition():
            await self.sleep(0.01)


class Reader:
    """Reads answers from a connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()

    def answer(self, *, head: bool = False) -> Response:
        """The next answer."""
        while (parsed := parse_response(self.received, head=head, closed=False)) is None:
            data = self.connection.recv(1 << 16)
            if not data:
                raise AssertionError(f"the connection was closed after {bytes(self.received[:1000])!r}")
            self.received += data
        del self.received[: parsed[1]]
        return parsed[0]

    def rest(self) -> bytes:
        """All that comes before the connection ends, in whatever way."""
        try:
            while data := self.connection.recv(1 << 20):
                self.received += data
        except OSError:
            pass  # reset
        return bytes(self.received)
