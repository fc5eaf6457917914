"""What clients see on real sockets: each is a blocking one in a thread, the server runs in the reactor."""

import http.client
import select
import socket
from collections.abc import Iterator

from klein import Klein
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from txregistry.testing.agent import parse_response, request_head
from txregistry.web import channel
from txregistry.web.request import send_chunks
from txregistry.web.site import RegistrySite
from txregistry.web.transport import RegistryPort

PIECE = bytes(1 << 16)
LARGE = 256 << 20
#: What the kernel holds for a connection that nobody reads from, at both ends.
KERNEL_BUFFERS = 20 << 20


class Pieces:
    """`LARGE` bytes; `given` counts those that were taken."""

    def __init__(self) -> None:
        self.given = 0
        self.closed: Deferred[None] = Deferred()

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        if self.given == LARGE:
            raise StopAsyncIteration
        self.given += len(PIECE)
        return PIECE

    def close(self) -> None:
        self.closed.callback(None)


class SocketTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        app = Klein()
        self.pieces = Pieces()

        @app.route("/read", methods=["PUT"])
        async def read(request):
            async for batch in request.body.batches(1 << 19):
                self.sizes.append(sum(map(len, batch)))
            return b"%d" % sum(self.sizes)

        @app.route("/refuse", methods=["PUT"])
        def refuse(request):
            request.setResponseCode(401)
            request.setHeader("Content-Length", "4")
            return b"who?"

        @app.route("/large")
        async def large(request):
            request.setHeader("Content-Length", str(LARGE))
            await send_chunks(request, self.pieces)

        self.sizes: list[int] = []
        self.log: list[str] = []
        self.site = RegistrySite(app.resource(), reactor, access_log=self.log.append)
        self.port = RegistryPort(0, self.site, 50, "127.0.0.1", reactor)
        self.port.startListening()
        self.address = ("127.0.0.1", self.port.getHost().port)
        self.reactor = reactor

    def tearDown(self):
        self.site.cut_connections()
        return maybeDeferred(self.port.stopListening)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def answer(self, connection: socket.socket) -> tuple[int, bytes]:
        received = b""
        while (parsed := parse_response(received, head=False, closed=False)) is None:
            data = connection.recv(1 << 16)
            if not data:
                raise AssertionError(f"the connection was closed after {received!r}")
            received += data
        return parsed[0].code, parsed[0].body

    async def test_refused_upload_of_300_mb(self) -> None:
        """A client that looks for an answer while it sends has it before 8 MB."""

        def client() -> tuple[int, tuple[int, bytes]]:
            with self.connect() as connection:
                connection.sendall(request_head("PUT", "/refuse", length=300_000_000))
                sent = 0
                while not select.select([connection], [], [], 0)[0]:
                    sent += connection.send(PIECE)
                return sent, self.answer(connection)

        sent, answer = await deferToThread(client)
        self.assertEqual(answer, (401, b"who?"))
        self.assertLess(sent, 8_000_000)

    async def test_refused_upload_by_a_client_that_only_sends(self) -> None:
        """One that reads nothing before all is sent is stopped, and then finds the answer."""
        self.patch(channel, "DRAIN_SECONDS", 0.5)

        def client() -> tuple[int, tuple[int, bytes]]:
            with self.connect() as connection:
                connection.sendall(request_head("PUT", "/refuse", length=300_000_000))
                sent = 0
                try:
                    while sent < 300_000_000:
                        sent += connection.send(PIECE)
                except OSError:
                    pass  # reset by the server, as it should be
                return sent, self.answer(connection)

        sent, answer = await deferToThread(client)
        self.assertEqual(answer, (401, b"who?"))
        self.assertLess(sent, channel.DRAIN_BYTES + KERNEL_BUFFERS)

    async def test_expect(self) -> None:
        def client() -> list[object]:
            with self.connect() as connection:
                heads = request_head("PUT", "/read", {"Expect": "100-continue"}, 5)
                connection.sendall(heads)
                got: list[object] = [connection.recv(100)]
                connection.sendall(b"12345")
                got.append(self.answer(connection))
                connection.sendall(heads.replace(b"/read", b"/refuse"))
                got.append(self.answer(connection))
                return [*got, connection.recv(100)]

        got = await deferToThread(client)
        self.assertEqual(got, [b"HTTP/1.1 100 Continue\r\n\r\n", (200, b"5"), (401, b"who?"), b""])

    async def test_slow_reader(self) -> None:
        """While the client reads nothing, no more is taken from the source than the kernel holds."""

        def ask() -> socket.socket:
            connection = self.connect()
            connection.sendall(request_head("GET", "/large"))
            return connection

        connection = await deferToThread(ask)
        before = -1
        while before != self.pieces.given:
            before = self.pieces.given
            await self.sleep(0.2)
        self.assertLess(self.pieces.given, KERNEL_BUFFERS)

        def read() -> int:
            count = 0
            with connection:
                while count < LARGE:
                    count += len(connection.recv(1 << 20))
            return count

        self.assertGreaterEqual(await deferToThread(read), LARGE)
        await self.pieces.closed

    async def test_reader_leaves(self) -> None:
        def client() -> None:
            with self.connect() as connection:
                connection.sendall(request_head("GET", "/large"))
                connection.recv(100)

        await deferToThread(client)
        await self.pieces.closed
        self.assertLess(self.pieces.given, LARGE)
        while not self.log:
            await self.sleep(0.01)
        self.assertEqual(len(self.log), 1)

    async def test_uploads_keep_the_connection(self) -> None:
        """With and without a length: Python's own client, which sends an iterator chunked."""
        size = 8 << 20

        def chunks() -> Iterator[bytes]:
            for _ in range(size // len(PIECE)):
                yield PIECE

        def client() -> list[tuple[bytes, str | None]]:
            connection = http.client.HTTPConnection(*self.address, timeout=20)
            connection.connect()
            first = connection.sock
            got = []
            for body in (bytes(size), chunks(), b""):
                self.sizes.clear()
                connection.request("PUT", "/read", body=body)
                response = connection.getresponse()
                got.append((response.read(), response.getheader("Connection")))
            self.assertIs(connection.sock, first)
            connection.close()
            return got

        whole = (b"%d" % size, None)
        self.assertEqual(await deferToThread(client), [whole, whole, (b"0", None)])

    async def test_malformed_chunk(self) -> None:
        def client() -> tuple[int, bytes]:
            with self.connect() as connection:
                connection.sendall(request_head("PUT", "/read", length=None) + b"5\r\n12345\r\nzz\r\n")
                return self.answer(connection)

        code, text = await deferToThread(client)
        self.assertEqual(code, 400)
        self.assertIn(b"malformed", text)

    def sleep(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.reactor.callLater(seconds, done.callback, None)
        return done
