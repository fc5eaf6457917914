"""The listening port: its connections over TCP and over Twisted's TLS, with the same site and channel."""

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import TestCase

from txregistry.testing.agent import Response, parse_response, request_head
from txregistry.web.channel import SHORT_REST
from txregistry.web.sending import send_chunks
from txregistry.web.site import RegistrySite
from txregistry.web.transport import RegistryPort, RegistryServer

LARGE = 3 << 20


class Pieces:
    """`LARGE` bytes, in pieces of 64 KiB."""

    def __init__(self) -> None:
        self.left = LARGE

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1 << 16
        return bytes(1 << 16)

    def close(self) -> None:
        """There is nothing to close."""


class Client(Protocol):
    """Collects what comes; `until` waits for responses or for the end of the connection."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.responses: list[Response] = []
        self.ended: Deferred[None] = Deferred()
        self._waiting: tuple[int, Deferred[None]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        while (parsed := parse_response(self.received, head=False, closed=False)) is not None:
            self.responses.append(parsed[0])
            del self.received[: parsed[1]]
        if self._waiting is not None and len(self.responses) >= self._waiting[0]:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(None)

    def until(self, count: int) -> Deferred[None]:
        result: Deferred[None] = Deferred()
        self._waiting = (count, result)
        self.dataReceived(b"")
        return result

    def connectionLost(self, reason=connectionDone) -> None:
        self.ended.callback(None)


class Given:
    """A socket that has received something."""

    def __init__(self, real: Any, data: bytes) -> None:
        self.real = real
        self.data = data

    def recv(self, _size: int) -> bytes:
        data, self.data = self.data, b""
        return data or self.real.recv(_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class TransportTestCase(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        app = Klein()
        self.transports: list[Any] = []

        @app.route("/read", methods=["PUT"])
        async def read(request):
            self.transports.append(request.channel.transport)
            size = 0
            async for chunk in request.body:
                size += len(chunk)
            return b"%d %d" % (size, request.isSecure())

        @app.route("/refuse", methods=["PUT"])
        def refuse(request):
            request.setResponseCode(401)
            request.setHeader("Content-Length", "4")
            return b"who?"

        @app.route("/abort", methods=["PUT"])
        def abort(request):
            request.channel.transport.abortConnection()
            return b"nobody reads this"

        @app.route("/large")
        async def large(request):
            request.setHeader("Content-Length", str(LARGE))
            await send_chunks(request, Pieces())

        self.log: list[str] = []
        self.site = RegistrySite(app.resource(), reactor, access_log=self.log.append)

    def listen(self, port) -> int:
        """Its number; it is closed with the test."""
        self.addCleanup(port.stopListening)
        self.addCleanup(self.site.cut_connections)
        return port.getHost().port

    async def connect(self) -> Client:
        listener = RegistryPort(0, self.site, 50, "127.0.0.1", self.reactor)
        listener.startListening()
        port = self.listen(listener)
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        return await connectProtocol(endpoint, Client())


class TCPTests(TransportTestCase):
    async def test_connection(self) -> None:
        client = await self.connect()
        client.transport.write(request_head("PUT", "/read", length=5) + b"12345")
        await client.until(1)
        self.assertEqual(client.responses[0].body, b"5 0")
        self.assertIsInstance(self.transports[0], RegistryServer)
        self.assertEqual(self.transports[0].bufferSize, 1 << 18)
        client.transport.loseConnection()
        await client.ended

    async def test_answers_leave_in_the_turn_that_read_their_requests(self) -> None:
        """All of them in one call, without asking the reactor."""
        client = await self.connect()
        client.transport.write(request_head("PUT", "/read", length=5) + b"12345")
        await client.until(1)
        (connection,) = self.transports
        calls: list[tuple[str, object]] = []
        send = connection.writeSomeData
        self.patch(self.reactor, "addWriter", lambda each: calls.append(("addWriter", each)))

        def record(data: bytes) -> int:
            calls.append(("send", bytes(data).count(b"HTTP/1.1 ")))
            return send(data)

        connection.writeSomeData = record
        connection.socket = Given(connection.socket, request_head("PUT", "/refuse", length=0) * 3)
        connection.doRead()
        self.assertEqual(calls, [("send", 3)])
        calls.clear()
        connection.write(b"later")
        self.assertEqual(calls, [("addWriter", connection)])

    async def test_what_does_not_fit_is_sent_later(self) -> None:
        client = await self.connect()
        client.transport.write(request_head("PUT", "/read", length=5) + b"12345")
        await client.until(1)
        (connection,) = self.transports
        connection.writeSomeData = lambda _: 0
        connection.socket = Given(connection.socket, request_head("PUT", "/refuse", length=0))
        connection.doRead()
        del connection.writeSomeData
        await client.until(2)
        self.assertEqual([response.code for response in client.responses], [200, 401])

    async def test_abort_while_reading(self) -> None:
        """Nothing is sent any more."""
        client = await self.connect()
        client.transport.write(request_head("PUT", "/abort", length=0))
        await client.ended
        self.assertEqual((client.responses, bytes(client.received)), ([], b""))

    async def test_upload_and_download_on_one_connection(self) -> None:
        client = await self.connect()
        for length in (LARGE, None):
            body = bytes(LARGE)
            client.transport.write(request_head("PUT", "/read", length=length))
            client.transport.write(body if length else b"%x\r\n%s\r\n0\r\n\r\n" % (LARGE, body))
        client.transport.write(request_head("GET", "/large"))
        await client.until(3)
        answers = [response.body for response in client.responses]
        self.assertEqual(answers, [b"%d 0" % LARGE] * 2 + [bytes(LARGE)])
        client.transport.loseConnection()
        await client.ended
        self.assertEqual(len(self.log), 3)

    async def test_half_close(self) -> None:
        """The client reads the refusal, and then the end of the stream."""
        client = await self.connect()
        client.transport.write(request_head("PUT", "/refuse", length=1 << 30) + bytes(SHORT_REST))
        await client.until(1)
        self.assertEqual((client.responses[0].code, client.responses[0].header("Connection")), (401, "close"))
        await client.ended


def self_signed() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return key, certificate


class TLSTests(TransportTestCase):
    """The same over `TLSMemoryBIOProtocol`, which is what `ssl:` endpoints use."""

    async def connect(self) -> Client:
        key, certificate = self_signed()
        # pyOpenSSL takes keys of `cryptography`; Twisted's annotations do not say so yet.
        server = CertificateOptions(key, certificate)  # type: ignore[arg-type]
        port = self.listen(self.reactor.listenSSL(0, self.site, server, interface="127.0.0.1"))
        trusting = CertificateOptions(verify=False)
        return await connectProtocol(SSL4ClientEndpoint(self.reactor, "127.0.0.1", port, trusting), Client())

    async def test_upload_and_download_on_one_connection(self) -> None:
        client = await self.connect()
        client.transport.write(request_head("PUT", "/read", length=LARGE) + bytes(LARGE))
        client.transport.write(request_head("GET", "/large"))
        await client.until(2)
        self.assertEqual([response.body for response in client.responses], [b"%d 1" % LARGE, bytes(LARGE)])
        client.transport.loseConnection()
        await client.ended

    async def test_early_answer(self) -> None:
        """The answer is followed by TLS's own end of the stream."""
        client = await self.connect()
        client.transport.write(request_head("PUT", "/refuse", length=1 << 30) + bytes(SHORT_REST))
        await client.until(1)
        self.assertEqual((client.responses[0].code, client.responses[0].header("Connection")), (401, "close"))
        await client.ended

    async def test_connection_close(self) -> None:
        client = await self.connect()
        client.transport.write(request_head("PUT", "/read", {"Connection": "close"}, 5) + b"12345")
        await client.ended
        self.assertEqual(client.responses[0].body, b"5 1")
