"""What clients see on real sockets: each is a blocking one in a thread, the server runs in the reactor.

Everything runs on our own ports and on Twisted's, plain and with TLS; a few requests on each other endpoint.
"""

import http.client
import select
import socket
from collections.abc import Iterator
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.web.ports import (
    Plain,
    PortTestCase,
    Reader,
    Secure,
    SSLEndpoint,
    Systemd,
    TwistedPlain,
    TwistedSecure,
    Unix,
)
from txregistry.testing.agent import request_head
from txregistry.web import channel
from txregistry.web.sending import send_chunks
from txregistry.web.site import RegistrySite

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


class SocketTestCase(PortTestCase):
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

        @app.route("/slow", methods=["GET"])
        async def slow(request):
            await self.sleep(0.05)
            request.setHeader("Content-Length", "4")
            return b"slow"

        self.sizes: list[int] = []
        self.log: list[str] = []
        self.site = RegistrySite(app.resource(), reactor, access_log=self.log.append)
        self.site_on_port(self.site)

    def answer(self, connection: socket.socket) -> tuple[int, bytes]:
        response = Reader(connection).answer()
        return response.code, response.body


class SocketTests(SocketTestCase):
    """`tcp:`."""

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
            connection = http.client.HTTPConnection("localhost")
            first = connection.sock = self.connect()
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

    async def test_client_closes_its_side(self) -> None:
        """One that has sent all its requests, and says so, gets all answers."""

        def client() -> list[tuple[int, bytes]]:
            with self.connect() as connection:
                get = request_head("PUT", "/read", length=5)
                connection.sendall(get + b"12345" + get + b"12345" + request_head("GET", "/slow"))
                self.half_close(connection)
                reader = Reader(connection)
                answers = [reader.answer() for _ in range(3)]
                self.assertEqual(connection.recv(100), b"")
                return [(response.code, response.body) for response in answers]

        if self.kind is TwistedSecure:
            return  # Twisted's TLS knows no connection that is closed on one side
        answers = await deferToThread(client)
        self.assertEqual(answers, [(200, b"5"), (200, b"10"), (200, b"slow")])
        await self.until(lambda: not self.site.channels)

    def half_close(self, connection: socket.socket) -> None:
        # Not the method of the TLS socket, which would end TLS before.
        socket.socket.shutdown(connection, socket.SHUT_WR)

    async def test_client_closes_its_side_in_the_middle_of_a_body(self) -> None:
        def client() -> bytes:
            with self.connect() as connection:
                connection.sendall(request_head("PUT", "/read", length=50) + b"12345")
                self.half_close(connection)
                return Reader(connection).rest()

        self.assertEqual(await deferToThread(client), b"")
        await self.until(lambda: self.log)
        self.assertIn('"PUT /read HTTP/1.1" 499', self.log[0])


class SecureSocketTests(SocketTests):
    """`https:`."""

    kind = Secure


class TwistedSocketTests(SocketTests):
    """TCP without anything of ours below the channel."""

    kind = TwistedPlain


class TwistedSecureSocketTests(SocketTests):
    """TLS without anything of ours below the channel."""

    kind = TwistedSecure


class OtherEndpointTests(SocketTestCase):
    """`unix:`."""

    kind: type[Plain] = Unix

    async def test_a_dozen_requests(self) -> None:
        def client() -> list[Any]:
            with self.connect() as connection:
                reader = Reader(connection)
                got: list[Any] = []
                for length in (5, None, 0, 1 << 20):
                    body = bytes(5 if length is None else length)
                    connection.sendall(request_head("PUT", "/read", length=length))
                    connection.sendall(body if length is not None else b"5\r\n%s\r\n0\r\n\r\n" % body)
                    got.append(int(reader.answer().body))
                for method, target in (("GET", "/slow"), ("HEAD", "/slow"), ("GET", "/none"), ("POST", "/slow")):
                    connection.sendall(request_head(method, target))
                    got.append(reader.answer(head=method == "HEAD").code)
                connection.sendall(request_head("GET", "/slow") * 3)
                got += [reader.answer().body for _ in range(3)]
                connection.sendall(request_head("PUT", "/refuse", length=1 << 30))
                got += [reader.answer().code, reader.rest()]
                return got

        got = await deferToThread(client)
        sums = [5, 10, 10, 10 + (1 << 20)]
        self.assertEqual(got, [*sums, 200, 200, 404, 405, b"slow", b"slow", b"slow", 401, b""])
        await self.until(lambda: len(self.log) == 12)
        self.assertEqual([line.split()[0] for line in self.log], [self.peer] * 12)

    peer = "-"


class SSLEndpointTests(OtherEndpointTests):
    """`ssl:`."""

    kind = SSLEndpoint
    peer = "127.0.0.1"


class SystemdEndpointTests(OtherEndpointTests):
    """`systemd:`."""

    kind = Systemd
    peer = "127.0.0.1"
