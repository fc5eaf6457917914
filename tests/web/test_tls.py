"""TLS on the connection's own socket: handshakes, ends, what is never sent in clear, and what a client can do wrong."""

import contextlib
import socket
import ssl
from typing import Any

from klein import Klein
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from tests.web.ports import PortTestCase, Reader, Secure
from txregistry.listen import listen, parse, tls_context
from txregistry.testing.agent import request_head
from txregistry.web import tls
from txregistry.web.site import RegistrySite
from txregistry.web.tls import TLSServer

LARGE = 32 << 20
GET = request_head("GET", "/")


class InMemory:
    """A TLS client whose bytes the test moves itself; blocking, for a thread."""

    def __init__(self, context: ssl.SSLContext, connection: socket.socket) -> None:
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake_hands(self, step: int) -> None:
        """The handshake, sent in pieces of so many bytes."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(step)
                self.incoming.write(self.connection.recv(1 << 16))
            else:
                return self.send(step)

    def send(self, step: int = 1 << 20) -> None:
        """Send what is to be sent."""
        while data := self.outgoing.read(step):
            self.connection.sendall(data)

    def read(self) -> bytes:
        """What comes next."""
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.incoming.write(self.connection.recv(1 << 16))


class TLSTestCase(PortTestCase):
    kind = Secure
    kept: Secure

    def setUp(self) -> None:
        from twisted.internet import reactor

        app = Klein()
        self.transports: list[Any] = []
        self.subjects: list[Any] = []

        @app.route("/")
        def root(request):
            self.transports.append(request.channel.transport)
            self.subjects.append(request.channel.transport.getPeerCertificate())
            request.setHeader("Content-Length", "4")
            return b"root"

        @app.route("/read", methods=["PUT"])
        async def read(request):
            return b"%d" % len(await request.body.read(LARGE))

        @app.route("/large")
        def large(request):
            request.setHeader("Content-Length", str(LARGE))
            return bytes(LARGE)

        self.site = RegistrySite(app.resource(), reactor)
        self.site_on_port(self.site)

    def tcp(self) -> socket.socket:
        """A connection without TLS; in a thread."""
        return socket.create_connection(self.kept.address, timeout=30)

    async def check_alive(self) -> None:
        """Nobody is connected, nobody was told of an error, and the next client is served."""
        await self.until(lambda: not self.site.channels)
        self.assertEqual([each.getTraceback() for each in self.flushLoggedErrors()], [])
        self.assertEqual(await deferToThread(self.root), b"root")

    def root(self) -> bytes:
        with self.connect() as connection:
            connection.sendall(GET)
            return Reader(connection).answer().body


class HandshakeTests(TLSTestCase):
    async def test_byte_by_byte(self) -> None:
        def client() -> bytes:
            with self.tcp() as connection:
                memory = InMemory(self.kept.client, connection)
                memory.shake_hands(1)
                memory.tls.write(GET)
                memory.send(1)
                return memory.read()

        self.assertTrue((await deferToThread(client)).endswith(b"\r\n\r\nroot"))
        await self.check_alive()

    async def test_with_the_request_behind_it(self) -> None:
        """In one segment with the handshake's last message."""

        def client() -> bytes:
            with self.tcp() as connection:
                memory = InMemory(self.kept.client, connection)
                with contextlib.suppress(ssl.SSLWantReadError):
                    memory.tls.do_handshake()
                memory.send()
                while True:
                    memory.incoming.write(connection.recv(1 << 16))
                    with contextlib.suppress(ssl.SSLWantReadError):
                        memory.tls.do_handshake()
                        break
                memory.tls.write(GET)
                memory.send()
                return memory.read()

        self.assertTrue((await deferToThread(client)).endswith(b"root"))

    async def test_never_ended(self) -> None:
        """A handshake that has begun has to end, whatever trickles in."""
        self.patch(tls, "HANDSHAKE_TIMEOUT", 0.3)

        def client() -> bytes:
            with self.tcp() as connection:
                connection.sendall(b"\x16\x03\x01")
                return Reader(connection).rest()

        self.assertEqual(await deferToThread(client), b"")
        await self.check_alive()

    async def test_deadline_ends_with_the_handshake(self) -> None:
        self.patch(tls, "HANDSHAKE_TIMEOUT", 0.3)

        def connect() -> Reader:
            reader = Reader(self.connect())
            reader.connection.sendall(GET)
            reader.answer()
            return reader

        reader = await deferToThread(connect)
        await self.sleep(0.5)

        def again() -> bytes:
            with reader.connection:
                reader.connection.sendall(GET)
                return reader.answer().body

        self.assertEqual(await deferToThread(again), b"root")

    async def test_no_tls(self) -> None:
        def client() -> bytes:
            with self.tcp() as connection:
                connection.sendall(GET)
                return Reader(connection).rest()

        self.assertNotIn(b"root", await deferToThread(client))
        await self.check_alive()

    async def test_clients_that_leave_early(self) -> None:
        """Before a byte, in the middle of the handshake, and with a reset."""

        def client() -> None:
            for sent in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
                for reset in (False, True):
                    with self.tcp() as connection:
                        connection.sendall(sent)
                        if reset:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        await deferToThread(client)
        await self.check_alive()

    async def test_socket_that_cannot_be_wrapped(self) -> None:
        """As when its client is gone already; the reactor forgets its descriptor."""

        class Broken:
            def wrap_socket(self, plain: socket.socket, **_: object) -> None:
                plain.close()
                raise OSError("gone")

        self.port.context, whole = Broken(), self.port.context

        def client() -> bytes:
            with self.tcp() as connection:
                connection.sendall(b"\x16")
                return Reader(connection).rest()

        self.assertEqual(await deferToThread(client), b"")
        self.port.context = whole
        await self.check_alive()

    async def test_resumption(self) -> None:
        """A client may go on with the session of its last connection."""

        def client() -> bool | None:
            with self.connect() as first:
                assert isinstance(first, ssl.SSLSocket)
                first.sendall(GET)
                Reader(first).answer()
                session = first.session
            with self.kept.client.wrap_socket(self.tcp(), server_hostname="localhost", session=session) as second:
                second.sendall(GET)
                Reader(second).answer()
                return second.session_reused

        self.assertTrue(await deferToThread(client))

    async def test_new_certificate(self) -> None:
        """Whoever connects from now on is shown another one."""

        def serial() -> Any:
            with self.connect() as connection:
                assert isinstance(connection, ssl.SSLSocket)
                found = connection.getpeercert()
                assert found is not None
                return found["subject"]

        before = await deferToThread(serial)
        self.port.context = tls_context(*self.kept.authority.issue("renewed"))
        after = await deferToThread(serial)
        self.assertEqual([before, after], [((("commonName", name),),) for name in ("server", "renewed")])

    async def test_client_certificate(self) -> None:
        await deferToThread(self.root)
        self.port.context = tls_context(*self.kept.files, self.kept.authority.path)
        with self.assertRaises(OSError):
            await deferToThread(self.root)
        self.kept.client.load_cert_chain(*self.kept.authority.issue("alice", client=True))
        await deferToThread(self.root)
        self.assertIsNone(self.subjects[0])
        self.assertEqual(self.subjects[1].subject.rfc4514_string(), "CN=alice")


class EndTests(TLSTestCase):
    async def test_leave_is_taken(self) -> None:
        """The server says that nothing more will come, before it closes: also behind what hardly fits the socket."""
        for target, size in (("/", 4), ("/large", LARGE)):

            def client(target: str = target) -> tuple[int, int]:
                with self.kept.client.wrap_socket(
                    self.tcp(), server_hostname="localhost", suppress_ragged_eofs=False
                ) as connection:
                    connection.sendall(request_head("GET", target, {"Connection": "close"}))
                    count = 0
                    head = connection.recv(1 << 14)
                    while data := connection.recv(1 << 14):
                        count += len(data)
                    return len(head) + count - head.find(b"\r\n\r\n") - 4, connection.pending()

            self.assertEqual(await deferToThread(client), (size, 0))
        await self.check_alive()

    async def test_client_takes_leave(self) -> None:
        """By TLS alone, without an end of the stream below it, and before it has its answers."""

        def client() -> bytes:
            with self.tcp() as connection:
                memory = InMemory(self.kept.client, connection)
                memory.shake_hands(1 << 16)
                memory.tls.write(GET + GET)
                with contextlib.suppress(ssl.SSLWantReadError):
                    memory.tls.unwrap()
                memory.send()
                got = b""
                while data := connection.recv(1 << 16):
                    memory.incoming.write(data)
                memory.incoming.write_eof()
                with contextlib.suppress(ssl.SSLError):
                    while data := memory.tls.read(1 << 16):
                        got += data
                return got

        self.assertEqual((await deferToThread(client)).count(b"\r\n\r\nroot"), 2)
        await self.check_alive()

    async def test_never_in_clear(self) -> None:
        """What is written after this side was closed is not sent at all."""
        with await deferToThread(self.connect) as connection:
            await self.until(lambda: any(channel.transport._secure for channel in self.site.channels))
            (channel,) = self.site.channels
            channel.transport.loseWriteConnection()
            for _ in range(2):
                channel.transport.write(b"in clear")
                channel.transport.startWriting()
                channel.transport.doWrite()
            raw = await deferToThread(self.raw, connection)
        self.assertNotEqual(raw, b"")  # the session tickets, and the leave
        self.assertNotIn(b"in clear", raw)
        self.assertEqual(self.flushLoggedErrors(), [])

    def raw(self, connection: socket.socket) -> bytes:
        """What comes below TLS; in a thread."""
        got = b""
        with contextlib.suppress(OSError):
            while data := socket.socket.recv(connection, 1 << 16):
                got += data
        return got


class SpeaksFirst(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")


class OtherProtocolTests(TestCase):
    async def test_server_that_speaks_first(self) -> None:
        """It is not what this is made for, but nothing leaves in clear."""
        from twisted.internet import reactor

        context = tls_context(*Authority(self.mktemp()).issue("server"))
        factory = Factory.forProtocol(SpeaksFirst)
        port: Any = listen(reactor, parse("https:0:interface=127.0.0.1"), factory, context)
        self.addCleanup(maybeDeferred, port.stopListening)

        def client() -> bytes:
            with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=30) as connection:
                return Reader(connection).rest()

        self.assertNotIn(b"hello", await deferToThread(client))


class RecordTests(TLSTestCase):
    async def test_upload(self) -> None:
        """Of records that come faster than they are read, and none is left behind."""

        def client() -> list[bytes]:
            with self.connect() as connection:
                reader, got = Reader(connection), []
                for size in (1, 1 << 14, (1 << 18) + 1, LARGE):
                    connection.sendall(request_head("PUT", "/read", length=size) + bytes(size))
                    got.append(bytes(reader.answer().body))
                return got

        self.assertEqual(await deferToThread(client), [b"1", b"16384", b"262145", b"%d" % LARGE])

    async def test_many_short_records(self) -> None:
        """All of them in one segment, of which the poll tells once for each turn that leaves some."""

        def client() -> bytes:
            with self.tcp() as connection:
                memory = InMemory(self.kept.client, connection)
                memory.shake_hands(1 << 16)
                memory.tls.write(request_head("PUT", "/read", length=300))
                for _ in range(300):
                    memory.tls.write(b"a")
                memory.send()
                return memory.read()

        self.assertIn(b"\r\n300\r\n", await deferToThread(client))

    async def test_read_that_has_to_write(self) -> None:
        """It goes on when something can be sent."""
        read = ssl.SSLSocket.recv_into
        refusals = [True, True]

        def recv_into(connection: ssl.SSLSocket, *args: Any) -> int:
            if isinstance(connection.context, type(self.port.context)) and refusals and connection.server_side:
                refusals.pop()
                raise ssl.SSLWantWriteError
            return read(connection, *args)

        self.patch(ssl.SSLSocket, "recv_into", recv_into)
        self.assertEqual(await deferToThread(self.root), b"root")
        self.assertEqual(refusals, [])

    async def test_handshake_that_has_to_write(self) -> None:
        shake = ssl.SSLSocket.do_handshake
        refusals = [True, True]

        def do_handshake(connection: ssl.SSLSocket, block: bool = False) -> None:
            if refusals and connection.server_side:
                refusals.pop()
                raise ssl.SSLWantWriteError
            shake(connection, block)

        self.patch(ssl.SSLSocket, "do_handshake", do_handshake)
        self.assertEqual(await deferToThread(self.root), b"root")
        self.assertEqual(refusals, [])

    async def test_transport(self) -> None:
        await deferToThread(self.root)
        self.assertIsInstance(self.transports[0], TLSServer)
