"""HTTP with a server on a socket, by treq and by what blocks."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.certificates import Authority
from txregistry.concurrency import start
from txregistry.errors import NoSpace, Unavailable
from txregistry.storage.openstack import treq_http
from txregistry.storage.openstack.blocking import BlockingHttp
from txregistry.storage.openstack.http import Answer, Http, Upload, ask
from txregistry.storage.openstack.treq_http import TreqHttp

reactor: Any = real_reactor
MIB = 1 << 20


class Pages(Resource):
    """What a path says."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Request] = []
        self.hanging: list[Request] = []

    def render(self, request: Request) -> Any:
        """Answer as the path says."""
        self.seen.append(request)
        kind = request.uri.decode().rpartition("/")[2]
        if kind == "echo":
            return cast(Any, request.content).read()
        if kind == "cookie":
            request.addCookie(b"session", b"1")
            return b"cookie"
        if kind == "moved":
            request.redirect(b"/echo")
            return b"there"
        if kind == "zipped":
            request.setHeader(b"Content-Encoding", b"gzip")
            return gzip.compress(b"0" * MIB)
        if kind == "cut":
            request.setHeader(b"Content-Length", b"1000")
            request.write(b"x" * 500)
            reactor.callLater(0.05, cast(Any, request.transport).abortConnection)
            return NOT_DONE_YET
        if kind == "endless":
            request.registerProducer(_Endless(request), False)
            return NOT_DONE_YET
        if kind == "hangs":
            self.hanging.append(request)
            return NOT_DONE_YET
        if kind == "stalls":
            request.write(b"some")
            self.hanging.append(request)
            return NOT_DONE_YET
        request.setResponseCode(int(kind))
        return b"" if request.method == b"HEAD" else b"text"


class _Endless:
    def __init__(self, request: Request) -> None:
        self._request = request
        self.sent = 0

    def resumeProducing(self) -> None:
        """One more piece."""
        self.sent += 65536
        self._request.write(bytes(65536))

    def stopProducing(self) -> None:
        """Nobody reads it."""


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    """A body that comes in pieces."""
    for piece in given:
        yield piece


class WithPages(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.pages = Pages()
        site = Site(self.pages)
        site.noisy = False
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.addCleanup(self._end_hanging)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    def _end_hanging(self) -> Deferred[None]:
        for request in self.pages.hanging:
            if request.transport is not None and request.channel is not None:
                cast(Any, request.transport).abortConnection()
        done: Deferred[None] = Deferred()
        reactor.callLater(0.05, done.callback, None)
        return done

    def unavailable(self, error: BaseException) -> None:
        self.assertIsInstance(error, Unavailable)
        assert isinstance(error, Unavailable)
        self.assertEqual((error.path, "\n" in error.reason), ("a/path", False))


class BothTests(WithPages):
    """What both do."""

    def make(self) -> Http:
        http = TreqHttp(reactor)
        self.addCleanup(lambda: start(http.close()))
        return http

    async def ask(self, method: str, kind: str, body: Any = None, **more: Any) -> Answer:
        return await ask(self.make(), method, f"{self.url}/a%2Fb//c%20d/{kind}", more, body, "a/path")

    async def error(self, *arguments: Any) -> BaseException:
        try:
            answer = await self.ask(*arguments)
        except Exception as error:
            return error
        raise self.failureException(f"an error expected, not {answer}")

    async def test_bodies(self) -> None:
        large = b"0123456789" * 100_000
        for body in (b"", b"x", large, [large, b"", b"y"], []):
            whole = body if isinstance(body, bytes) else b"".join(body)
            answer = await self.ask("PUT", "echo", body)
            self.assertEqual((answer.status, answer.body == whole), (200, True))
            self.assertEqual(answer.headers["content-length"], str(len(whole)))
        self.assertEqual(self.pages.seen[0].uri, b"/a%2Fb//c%20d/echo")

    async def test_uploads(self) -> None:
        for length in (3, None):
            answer = await self.ask("PUT", "echo", Upload(length, pieces(b"1", b"", b"23")))
            self.assertEqual(answer.body, b"123")

    async def test_statuses_and_heads(self) -> None:
        for status in (201, 204, 401, 404, 503):
            answer = await self.ask("HEAD", str(status))
            self.assertEqual((answer.status, answer.body), (status, b""))
        self.assertEqual((await self.ask("GET", "503")).body, b"text")

    async def test_no_cookies_redirects_or_compression(self) -> None:
        http = self.make()
        for kind in ("cookie", "404", "moved", "zipped"):
            answer = await ask(http, "GET", f"{self.url}/{kind}")
        self.assertEqual(len(self.pages.seen), 4)
        self.assertEqual([request.getHeader("cookie") for request in self.pages.seen], [None] * 4)
        self.assertEqual({request.getHeader("accept-encoding") for request in self.pages.seen}, {"identity"})
        self.assertEqual(gzip.decompress(answer.body), b"0" * MIB)

    async def test_answers_that_are_cut_off(self) -> None:
        self.unavailable(await self.error("GET", "cut"))

    async def test_answers_that_are_too_large(self) -> None:
        with self.assertRaises(Unavailable):
            await ask(self.make(), "GET", f"{self.url}/endless", limit=100_000)

    async def test_nobody_there(self) -> None:
        await self.port.stopListening()
        self.unavailable(await self.error("GET", "echo"))

    async def test_no_such_address(self) -> None:
        for url in ("http://", "http://name-without-an-address.invalid/", "http://[::1"):
            with self.assertRaises(Unavailable):
                await ask(self.make(), "GET", url)

    async def test_the_error_of_a_body_is_its_own(self) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"1"
            raise NoSpace("a/path")

        self.assertIsInstance(await self.error("PUT", "echo", Upload(10, broken())), NoSpace)


class BlockingTests(BothTests):
    """By what blocks, in a thread, as the server is in this one."""

    def make(self) -> Http:
        return BlockingHttp()

    async def ask(self, method: str, kind: str, body: Any = None, **more: Any) -> Answer:
        return await self._in_thread(super().ask(method, kind, body, **more))

    async def _in_thread(self, coroutine: Any) -> Answer:
        def run() -> Any:
            outcome: list[Any] = []
            start(coroutine).addBoth(outcome.append)
            return outcome[0]

        result: Answer = await deferToThread(run)
        return result

    async def test_no_cookies_redirects_or_compression(self) -> None:
        for kind in ("cookie", "404", "moved"):
            await self.ask("GET", kind)
        self.assertEqual([request.getHeader("cookie") for request in self.pages.seen], [None] * 3)

    async def test_answers_that_are_too_large(self) -> None:
        with self.assertRaises(Unavailable):
            await self._in_thread(ask(self.make(), "GET", f"{self.url}/endless", limit=100_000))


class TreqTests(WithPages):
    """What only treq's does: it does not block, and bounds time and memory."""

    def setUp(self) -> None:
        super().setUp()
        self.http = TreqHttp(reactor)
        self.addCleanup(lambda: start(self.http.close()))

    async def test_a_slow_reader_stops_the_server(self) -> None:
        stream: Any = await self.http.open("GET", f"{self.url}/endless")
        done: Deferred[None] = Deferred()
        reactor.callLater(0.5, done.callback, None)
        await done
        self.assertLess(stream._size, 2 * MIB)
        total = 0
        while total < 5 * MIB:
            total += len(await stream.read())
        stream.close()

    async def test_no_answer_within_the_time(self) -> None:
        self.patch(treq_http, "IDLE_SECONDS", 0.2)
        with self.assertRaises(Unavailable):
            await self.http.open("GET", f"{self.url}/hangs")

    async def test_nothing_more_within_the_time(self) -> None:
        self.patch(treq_http, "IDLE_SECONDS", 0.2)
        stream = await self.http.open("GET", f"{self.url}/stalls")
        self.assertEqual(await stream.read(), b"some")
        with self.assertRaises(Unavailable):
            await stream.read()
        with self.assertRaises(Unavailable):
            await stream.read()
        stream.close()

    async def test_closed_while_somebody_waits(self) -> None:
        stream = await self.http.open("GET", f"{self.url}/stalls")
        await stream.read()
        waiting = start(stream.read())
        stream.close()
        self.failureResultOf(waiting, Unavailable)

    async def test_cancelled(self) -> None:
        waiting = start(self.http.open("GET", f"{self.url}/hangs"))
        waiting.cancel()
        self.failureResultOf(waiting)

    async def test_an_answer_before_the_end_of_the_body(self) -> None:
        connections: list[_Early] = []
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: _Early(connections)), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        more: Deferred[None] = Deferred()

        async def slow() -> AsyncIterator[bytes]:
            yield b"1"
            await more
            yield b"2"

        url = f"http://127.0.0.1:{port.getHost().port}/"
        answer = await ask(self.http, "PUT", url, None, Upload(2, slow()))
        self.assertEqual(answer.status, 401)
        more.callback(None)
        (connection,) = connections
        cast(Any, connection.transport).abortConnection()
        await connection.lost
        self.assertEqual((await ask(self.http, "GET", f"{self.url}/404")).status, 404)


class _Early(Protocol):
    """Answers as soon as it hears anything."""

    _answered = False

    def __init__(self, connections: list[_Early]) -> None:
        connections.append(self)
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.lost.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Answer, once."""
        if not self._answered:
            self._answered = True
            cast(Any, self.transport).write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")


class TlsTests(WithPages):
    """Whom both trust."""

    def setUp(self) -> None:
        super().setUp()
        authority = Authority(self.mktemp())
        certificate, key = authority.issue("server")
        own = PrivateCertificate.loadPEM(Path(key).read_bytes() + Path(certificate).read_bytes())
        context = CertificateOptions(privateKey=own.privateKey.original, certificate=own.original)
        site = Site(self.pages)
        site.noisy = False
        port = reactor.listenSSL(0, site, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.https = f"https://localhost:{port.getHost().port}/404"
        self.cacert = authority.path

    async def status(self, make: Any, cacert: str | None) -> int:
        http = make(cacert)
        self.addCleanup(lambda: start(http.close()))

        def run() -> Any:
            outcome: list[Any] = []
            start(ask(http, "GET", self.https)).addBoth(outcome.append)
            if isinstance(outcome[0], Failure):
                outcome[0].raiseException()
            return outcome[0]

        answer = await (deferToThread(run) if isinstance(http, BlockingHttp) else ask(http, "GET", self.https))
        return answer.status

    async def test_certificates_are_verified(self) -> None:
        for make in (lambda cacert: TreqHttp(reactor, cacert), BlockingHttp):
            self.assertEqual(await self.status(make, self.cacert), 404)
            other = Authority(self.mktemp(), "another authority").path
            for untrusted in (None, other):
                with self.assertRaises(Unavailable):
                    await self.status(make, untrusted)

    async def test_files_that_are_none(self) -> None:
        empty = Path(self.mktemp())
        empty.write_text("nothing")
        for make in (lambda cacert: TreqHttp(reactor, cacert), BlockingHttp):
            for path in (str(empty), "/nowhere"):
                with self.assertRaises(Unavailable) as caught:
                    await self.status(make, path)
                self.assertIn("os_cacert", caught.exception.reason)
