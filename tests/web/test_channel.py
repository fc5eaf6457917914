"""The channel and the request, in memory: every kind of route, every way for a request to arrive."""

from itertools import product

from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.concurrency import start
from txregistry.errors import ClientGone
from txregistry.testing.agent import Agent, Connection, NoResponse, request_head
from txregistry.web import channel as module
from txregistry.web.channel import DRAIN_BYTES, DRAIN_SECONDS, Phase
from txregistry.web.site import RegistrySite

BODY = b"0123456789" * 5
MARK = 20  # where "reads some" stops


class Routes:
    """A Klein app with one route of every kind, and a record of what happened in them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seen: list[bytes] = []
        self.events: list[str] = []
        app = self.app = Klein()

        def later(value: bytes) -> Deferred[bytes]:
            result: Deferred[bytes] = Deferred()
            clock.callLater(1, result.callback, value)
            return result

        async def some(request) -> bytes:
            read = b""
            while len(read) < MARK:
                read += await anext(request.body)
            return b"read %d" % (len(read) >= MARK)

        async def everything(request) -> bytes:
            return b"read " + await request.body.read(1 << 20)

        @app.route("/<kind>/<reads>", methods=["PUT", "POST"])
        def route(request, kind, reads):
            self.events.append("entered")
            if reads == "none":
                return {"sync": lambda: b"read", "deferred": lambda: later(b"read"), "coroutine": coroutine}[kind]()
            reader = some if reads == "some" else everything
            if kind == "coroutine":
                return reader(request)
            return start(reader(request)).addCallback(lambda read: later(read) if kind == "slow" else read)

        async def coroutine() -> bytes:
            return b"read"

        @app.route("/after", methods=["GET", "HEAD"])
        def after(request):
            self.events.append("after")
            request.setHeader("Content-Length", "5")
            return b"after"

        @app.route("/wait", methods=["GET", "PUT"])
        def wait(request):
            waiting: Deferred[bytes] = Deferred(lambda _: self.events.append("cancelled"))
            return waiting

        @app.route("/late", methods=["PUT"])
        async def late(request):
            await later(b"")
            return await request.body.read(100)

        @app.route("/catch", methods=["PUT"])
        async def catch(request):
            try:
                async for batch in request.body.batches(1 << 19):
                    self.seen.extend(batch)
            except (ClientGone, CancelledError) as error:
                self.events.append(type(error).__name__)
                raise
            return b"whole"

        @app.route("/refuse", methods=["PUT"])
        def refuse(request):
            self.events.append("refused")
            request.setResponseCode(401)
            request.setHeader("Content-Length", "4")
            return b"who?"

        @app.route("/small", methods=["PUT"])
        async def small(request):
            return await request.body.read(10)


class ChannelTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.routes = Routes(self.clock)
        self.log: list[str] = []
        self.agent = Agent(self.routes.app.resource(), self.clock, access_log=self.log.append)

    def settle(self) -> None:
        self.clock.pump([0, 1, 0, 1])


def chunked(body: bytes) -> bytes:
    halves = [body[:MARK], body[MARK:]]
    return b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves if half) + b"0\r\n\r\n"


class EveryRouteTests(ChannelTestCase):
    """Kinds of routes x what they read x how the request arrives x framing, with a pipelined GET behind each."""

    def exchange(self, kind: str, reads: str, arrival: str, framing: str) -> tuple:
        connection = self.agent.connect()
        first, second = connection.response(), connection.response()
        head = request_head("PUT", f"/{kind}/{reads}", length=None if framing == "chunked" else len(BODY))
        body = chunked(BODY) if framing == "chunked" else BODY
        behind = request_head("GET", "/after")
        if arrival == "apart":
            connection.send(head)
            self.clock.advance(1)
            connection.send(body + behind)
        elif arrival == "at once":
            connection.send(head + body + behind)
        else:
            whole = head + body + behind
            for at in range(len(whole)):
                connection.send(whole[at : at + 1])
        self.settle()
        return connection, first, second

    def check(self, kind: str, reads: str, arrival: str, framing: str) -> None:
        self.routes.events.clear()
        self.log.clear()
        connection, first, second = self.exchange(kind, reads, arrival, framing)
        response = self.successResultOf(first)
        self.assertEqual(response.code, 200)
        self.assertEqual(response.body, {"none": b"read", "some": b"read 1", "all": b"read " + BODY}[reads])
        if response.header("Connection") == "close":
            self.assertEqual(framing, "chunked")
            self.assertNotEqual(reads, "all")
            self.failureResultOf(second, NoResponse)
            self.assertEqual(self.routes.events, ["entered"])
            self.assertTrue(connection.half_closed)
            self.assertIs(connection.protocol.phase, Phase.CLOSING)
            self.clock.advance(DRAIN_SECONDS)
            self.assertTrue(connection.closed)
            self.clock.advance(0)
        else:
            self.assertEqual(self.successResultOf(second).body, b"after")
            self.assertEqual(self.routes.events, ["entered", "after"])
            self.assertFalse(connection.closed)
            self.assertIs(connection.protocol.phase, Phase.IDLE)
        self.assertEqual(len(self.log), len(self.routes.events))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_all(self) -> None:
        kinds = [(kind, "none") for kind in ("sync", "deferred", "coroutine")]
        kinds += product(("deferred", "slow", "coroutine"), ("some", "all"))
        for (kind, reads), arrival, framing in product(
            kinds, ("apart", "at once", "byte by byte"), ("length", "chunked")
        ):
            with self.subTest(f"{kind} route, reads {reads}, {arrival}, {framing}"):
                self.check(kind, reads, arrival, framing)

    def test_fully_read_chunked_bodies_keep_the_connection(self) -> None:
        for arrival in ("apart", "at once", "byte by byte"):
            _, first, second = self.exchange("coroutine", "all", arrival, "chunked")
            self.assertIsNone(self.successResultOf(first).header("Connection"))
            self.assertEqual(self.successResultOf(second).body, b"after")

    def test_entered_with_the_headers(self) -> None:
        exchange = self.agent.start("PUT", "/coroutine/all", length=len(BODY))
        self.assertEqual(self.routes.events, ["entered"])
        exchange.send(BODY)
        self.assertEqual(self.successResultOf(exchange.response).body, b"read " + BODY)

    def test_head_request(self) -> None:
        connection = self.agent.connect()
        head, get = connection.response(head=True), connection.response()
        connection.send(request_head("HEAD", "/after") + request_head("GET", "/after"))
        self.assertEqual(self.successResultOf(head).header("Content-Length"), "5")
        self.assertEqual(self.successResultOf(get).body, b"after")

    def test_http_1_0(self) -> None:
        answers = {"/coroutine/all": b"read " + BODY, "/coroutine/some": b"read 1", "/refuse": b"who?"}
        for target, answer in answers.items():
            connection = self.agent.connect()
            response = connection.response()
            connection.send(b"PUT %s HTTP/1.0\r\nContent-Length: 50\r\n\r\n" % target.encode() + BODY)
            self.assertEqual(self.successResultOf(response).body, answer)
            self.assertTrue(connection.closed or connection.half_closed)
            self.assertIs(connection.protocol.phase, Phase.CLOSING)
            self.assertEqual(connection.unsent, 0)

    def test_connection_close_in_a_list(self) -> None:
        connection = self.agent.connect()
        first, second = connection.response(), connection.response()
        get = request_head("GET", "/after", {"Connection": "keep-alive, Close"})
        connection.send(get + get)
        self.assertEqual(self.successResultOf(first).header("Connection"), "close")
        self.failureResultOf(second, NoResponse)
        self.assertEqual(self.routes.events, ["after"])


class EarlyAnswerTests(ChannelTestCase):
    """Answers to requests whose body is still being sent."""

    def test_large_refused_upload(self) -> None:
        exchange = self.agent.start("PUT", "/refuse", length=300 << 20)
        response = self.successResultOf(exchange.response)
        self.assertEqual((response.code, response.body, response.header("Connection")), (401, b"who?", "close"))
        connection = exchange.connection
        self.assertTrue(connection.half_closed)
        self.assertFalse(connection.closed)
        while not connection.unsent:
            exchange.send(bytes(1 << 20))
            self.assertLess(connection.sent, 2 * DRAIN_BYTES)
        self.assertGreaterEqual(connection.sent, DRAIN_BYTES)
        self.clock.advance(DRAIN_SECONDS)
        self.assertTrue(connection.closed)
        self.assertEqual(self.log[0].split('"')[2].split()[0], "401")
        self.assertEqual(len(self.log), 1)

    def test_short_rest_is_skipped(self) -> None:
        exchange = self.agent.start("PUT", "/refuse", length=module.SHORT_REST)
        self.assertIsNone(self.successResultOf(exchange.response).header("Connection"))
        self.assertIs(exchange.connection.protocol.phase, Phase.REST)
        exchange.send(bytes(module.SHORT_REST))
        after = exchange.connection.response()
        exchange.connection.send(request_head("GET", "/after"))
        self.assertEqual(self.successResultOf(after).body, b"after")

    def test_short_rest_never_comes(self) -> None:
        exchange = self.agent.start("PUT", "/refuse", length=10)
        self.clock.advance(60)
        self.assertTrue(exchange.connection.closed)

    def test_pipelined_request_after_a_close_is_not_executed(self) -> None:
        exchange = self.agent.start("PUT", "/refuse", length=1 << 20)
        exchange.send(bytes(1 << 20))
        exchange.connection.send(request_head("GET", "/after"))
        self.assertEqual(self.routes.events, ["refused"])

    def test_connection_close_is_kept(self) -> None:
        """Whoever asks for an end of the connection gets it, also when the body was read to its end."""
        for framing, length in (("length", len(BODY)), ("chunked", None)):
            with self.subTest(framing):
                exchange = self.agent.start("PUT", "/coroutine/all", {"Connection": "close"}, length=length)
                exchange.send(BODY)
                exchange.end()
                self.assertEqual(self.successResultOf(exchange.response).header("Connection"), "close")
                self.assertTrue(exchange.connection.closed)

    def test_secure(self) -> None:
        """A TLS transport says that it closes, and reads on."""
        agent = Agent(self.routes.app.resource(), self.clock, secure=True)
        exchange = agent.start("PUT", "/refuse", length=1 << 20)
        self.assertEqual(self.successResultOf(exchange.response).code, 401)
        self.assertTrue(exchange.connection.closed)
        self.assertFalse(exchange.connection.half_closed)

    def test_too_large(self) -> None:
        for length, chunks in ((11, None), (0, [b"12345678901"])):
            with self.subTest(length=length):
                response = self.successResultOf(
                    self.agent.request("PUT", "/small", body=bytes(length), chunks=chunks)
                )
                self.assertEqual(response.code, 413)
                self.assertIn("10 bytes", response.text)

    def test_end_of_a_large_answer(self) -> None:
        """The connection is half-closed also when the transport was full at the end of the answer."""
        app = Klein()

        @app.route("/", methods=["PUT"])
        def route(request):
            return bytes(100_000)

        connection = Agent(app.resource(), self.clock).connect()
        connection.reading = False
        connection.send(request_head("PUT", "/", length=1 << 20))
        self.assertTrue(connection.half_closed)
        connection.lose()

    def pipelined(self, count: int) -> Connection:
        """Requests for 10,000 bytes each, sent at once by a client that reads nothing yet."""
        app = Klein()

        @app.route("/<number>")
        def route(request, number):
            self.routes.events.append(number)
            return bytes(10_000)

        connection = Agent(app.resource(), self.clock).connect()
        connection.reading = False
        connection.send(b"".join(request_head("GET", f"/{number}") for number in range(count)))
        return connection

    def test_answers_that_nobody_reads(self) -> None:
        """Requests wait behind answers that the client does not take, however many it has sent."""
        connection = self.pipelined(2000)
        self.assertLess(len(self.routes.events), 10)
        self.assertLess(len(connection.unread), 100_000)
        self.assertTrue(connection.paused)
        connection.protocol.readConnectionLost()  # it may say meanwhile that it sends no more
        connection.reading = True
        connection.read()
        self.assertEqual(self.routes.events, [str(number) for number in range(2000)])
        self.assertEqual(connection.received.count(b"HTTP/1.1 200 OK\r\n"), 2000)
        connection.send(b"GET /half HTTP/1.1\r\n")
        self.clock.advance(16)
        self.assertIn(b"HTTP/1.1 408 ", connection.received)
        connection.lose()

    def test_answers_are_waited_for(self) -> None:
        """A slow reader is not told that its next head is late; one that never reads is given up."""
        connection = self.pipelined(20)
        before = len(connection.unread)
        self.clock.advance(100)
        self.assertEqual((len(connection.unread), connection.closed), (before, False))
        self.clock.advance(1100)
        self.assertTrue(connection.closed)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reading_after_the_answer(self) -> None:
        """Nobody waits for a body that nobody will get."""
        app = Klein()
        readers = []

        @app.route("/", methods=["PUT"])
        def route(request):
            readers.append(start(request.body.read(100)))
            return b""

        exchange = Agent(app.resource(), self.clock).start("PUT", "/", length=10)
        self.assertEqual(self.successResultOf(exchange.response).code, 200)
        self.failureResultOf(readers[0], ClientGone)

    def test_answer_shorter_than_promised(self) -> None:
        app = Klein()

        @app.route("/")
        def route(request):
            request.setHeader("Content-Length", "10")
            return b"123"

        exchange = Agent(app.resource(), self.clock).start("GET", "/", length=0)
        self.failureResultOf(exchange.response, NoResponse)
        self.clock.advance(0)
        self.assertTrue(exchange.connection.closed)

    def test_error_in_the_middle_of_an_answer(self) -> None:
        app = Klein()

        @app.route("/")
        def route(request):
            request.setHeader("Content-Length", "10")
            request.write(b"123")
            raise ZeroDivisionError

        exchange = Agent(app.resource(), self.clock).start("GET", "/", length=0)
        self.assertIn(b"\r\n\r\n123", self.failureResultOf(exchange.response, NoResponse).value.args[0])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ExpectTests(ChannelTestCase):
    HEADERS = {"Expect": "100-continue"}

    def test_first_read_answers(self) -> None:
        exchange = self.agent.start("PUT", "/coroutine/all", self.HEADERS, length=len(BODY))
        self.assertEqual(exchange.connection.continued, 1)
        exchange.send(BODY)
        self.assertEqual(self.successResultOf(exchange.response).body, b"read " + BODY)
        self.assertEqual(exchange.connection.continued, 1)
        self.assertFalse(exchange.connection.half_closed)

    def test_refusal_leaves_without(self) -> None:
        for target, length, code in (("/refuse", 10, 401), ("/small", 11, 413)):
            exchange = self.agent.start("PUT", target, self.HEADERS, length=length)
            response = self.successResultOf(exchange.response)
            self.assertEqual((response.code, response.header("Connection")), (code, "close"))
            self.assertEqual(exchange.connection.continued, 0)

    def test_body_that_did_not_wait(self) -> None:
        connection = self.agent.connect()
        response = connection.response()
        connection.send(request_head("PUT", "/coroutine/all", self.HEADERS, len(BODY)) + BODY)
        self.assertEqual(self.successResultOf(response).body, b"read " + BODY)


    def test_body_that_was_here_first(self) -> None:
        """Nobody has to ask for what has come already."""
        exchange = self.agent.start("PUT", "/late", self.HEADERS, length=len(BODY))
        exchange.send(BODY[:10])
        self.settle()
        exchange.send(BODY[10:])
        self.assertEqual(self.successResultOf(exchange.response).body, BODY)
        self.assertEqual(exchange.connection.continued, 0)

    def test_not_in_the_middle_of_an_answer(self) -> None:
        app = Klein()

        @app.route("/", methods=["PUT"])
        async def route(request):
            request.setHeader("Content-Length", "4")
            request.write(b"a")
            return await request.body.read(3)

        exchange = Agent(app.resource(), self.clock).start("PUT", "/", self.HEADERS, length=3)
        exchange.send(b"bcd")
        response = self.successResultOf(exchange.response)
        self.assertEqual((response.body, response.header("Connection")), (b"abcd", "close"))


class MalformedTests(ChannelTestCase):
    """What cannot be parsed is answered with a text, and nothing behind it is executed."""

    def refused(self, sent: bytes, code: int) -> None:
        self.log.clear()
        connection = self.agent.connect()
        response = connection.response()
        connection.send(sent + request_head("GET", "/after"))
        result = self.successResultOf(response)
        self.assertEqual((result.code, result.header("Connection")), (code, "close"))
        self.assertTrue(result.text.strip())
        self.assertTrue(connection.half_closed)
        self.assertNotIn("after", self.routes.events)
        self.assertEqual(len(self.log), 1)
        self.assertIn(f'" {code} ', self.log[0])
        connection.lose()

    def test_heads(self) -> None:
        self.refused(b"nonsense\r\n\r\n", 400)
        self.refused(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400)
        self.refused(b"GET / HTTP/1.1\r\nno colon\r\nHost: a\r\n\r\n", 400)
        self.refused(b"PUT /refuse HTTP/1.1\r\nContent-Length: -1\r\nHost: a\r\n\r\n", 400)
        self.refused(b"PUT /refuse HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400)
        self.refused(b"GET / HTTP/1.1\r\nno colon\r\n\r\n" + b"a" * 33000, 400)
        self.refused(b"nonsense\r\n" + b"a" * 100000, 400)
        for header in (b"", b"Host: a\r\n"):
            lengthy = b"PUT /refuse HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n"
            self.refused(lengthy + header + b"\r\n", 400)
        self.assertEqual(self.routes.events, [])

    def test_lines_behind_a_refusal(self) -> None:
        """They are thrown away in one go, as what comes later is."""
        connection = self.agent.connect()
        taken: list[object] = []
        self.patch(connection.protocol, "lineReceived", self.counting(taken, connection.protocol.lineReceived))
        connection.send(b"nonsense\r\n" + b"\r\n" * 10_000)
        self.assertLess(len(taken), 10)
        self.assertTrue(connection.half_closed)
        connection.lose()

    @staticmethod
    def counting(taken, function):
        def counted(line):
            taken.append(line)
            return function(line)

        return counted

    def test_limits(self) -> None:
        self.refused(b"GET /" + b"a" * 33000 + b" HTTP/1.1\r\n\r\n", 414)
        self.refused(b"GET /" + b"a" * 100000, 414)
        self.refused(b"GET / HTTP/1.1\r\nA: " + b"a" * 33000 + b"\r\n\r\n", 431)
        self.refused(b"GET / HTTP/1.1\r\nA: " + b"a" * 100000, 431)
        self.refused(b"GET / HTTP/1.1\r\n" + b"A: %s\r\n" % (b"a" * 990) * 34 + b"\r\n", 431)
        self.refused(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 501 + b"\r\n", 431)
        self.assertIn('"GET / HTTP/1.1" 431', self.log[0])

    def test_targets_with_a_host(self) -> None:
        for target in ("http://a/after", "HTTPS://a:443/after?x=/y"):
            self.assertEqual(self.successResultOf(self.agent.request("GET", target)).code, 200)
        self.assertEqual([uri.split()[6] for uri in self.log], ["/after", "/after?x=/y"])
        for target in ("http://a", "http://a?/after"):
            self.assertEqual(self.successResultOf(self.agent.request("GET", target)).code, 404)

    def test_within_limits(self) -> None:
        for headers in ({"A": "a" * 32000}, [("A", "b")] * 498):
            self.assertEqual(self.successResultOf(self.agent.request("GET", "/after", headers)).code, 200)
        self.assertEqual(self.successResultOf(self.agent.request("GET", "/after?" + "a" * 32000)).code, 200)

    def test_second_head(self) -> None:
        connection = self.agent.connect()
        first, second = connection.response(), connection.response()
        connection.send(request_head("GET", "/after") + b"nonsense\r\n\r\n")
        self.assertEqual(self.successResultOf(first).code, 200)
        self.assertEqual(self.successResultOf(second).code, 400)
        self.assertIn('"- - HTTP/1.1" 400', self.log[1])

    def test_chunk(self) -> None:
        self.refused(request_head("PUT", "/coroutine/all", length=None) + b"5\r\n12345\r\nzz\r\n", 400)
        self.refused(request_head("PUT", "/catch", length=None) + b"3\r\n12345\r\n", 400)
        self.assertEqual(b"".join(self.routes.seen), b"123")
        self.flushLoggedErrors()

    def test_chunk_while_the_route_does_not_read(self) -> None:
        exchange = self.agent.start("PUT", "/deferred/none", length=None)
        exchange.connection.send(b"zz\r\n" + request_head("GET", "/after"))
        self.assertNoResult(exchange.response)
        self.assertTrue(exchange.connection.paused)
        self.settle()
        self.assertEqual(self.successResultOf(exchange.response).header("Connection"), "close")
        self.assertTrue(exchange.connection.half_closed)
        self.assertEqual(self.routes.events, ["entered"])

    def test_hosts(self) -> None:
        """One of them, which may be empty; none in HTTP/1.0."""
        for hosts in (b"", b"Host: a\r\nHost: a\r\n"):
            self.refused(b"GET /after HTTP/1.1\r\n" + hosts + b"\r\n", 400)
            self.refused(b"PUT /refuse HTTP/1.1\r\n" + hosts + b"Content-Length: 1000000\r\n\r\n" + bytes(100), 400)
        self.refused(b"GET /after HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400)
        self.assertEqual(self.routes.events, [])
        for sent in (b"GET /after HTTP/1.1\r\nHost:\r\n\r\n", b"GET /after HTTP/1.0\r\n\r\n"):
            connection = self.agent.connect()
            response = connection.response()
            connection.send(sent)
            self.assertEqual(self.successResultOf(response).code, 200)

    def test_tls_hello(self) -> None:
        connection = self.agent.connect()
        response = connection.response()
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00")
        self.assertTrue(connection.closed)
        self.assertEqual(self.successResultOf(response).code, 400)


class TimeTests(ChannelTestCase):
    def test_idle(self) -> None:
        connection = self.agent.connect()
        self.clock.advance(59)
        self.assertFalse(connection.closed)
        self.clock.advance(1)
        self.assertTrue(connection.closed)

    def test_idle_after_an_answer(self) -> None:
        exchange = self.agent.start("GET", "/after", length=0)
        self.clock.advance(59)
        self.assertFalse(exchange.connection.closed)
        self.clock.advance(1)
        self.assertTrue(exchange.connection.closed)
        self.assertFalse(exchange.connection.half_closed)

    def test_slow_head(self) -> None:
        """A byte a second prolongs nothing, neither in a first head nor in one behind another request."""
        for before in (b"", request_head("GET", "/after")):
            connection = self.agent.connect()
            if before:
                connection.response()
            connection.send(before + b"G")
            response = connection.response()
            for byte in b"ET /after HTTP/1.1\r\nA: b":
                self.assertNoResult(response)
                self.clock.advance(1)
                connection.send(bytes([byte]))
                if connection.half_closed:
                    break
            self.assertEqual(self.successResultOf(response).code, 408)

    def test_route_takes_its_time(self) -> None:
        exchange = self.agent.start("PUT", "/wait", length=10)
        self.clock.advance(3600)
        self.assertFalse(exchange.connection.closed)

    def test_body_never_comes(self) -> None:
        exchange = self.agent.start("PUT", "/catch", length=10)
        exchange.send(b"123")
        self.clock.pump([1] * 59)
        self.assertFalse(exchange.connection.closed)
        self.clock.pump([1] * 3)
        self.failureResultOf(exchange.response, NoResponse)
        self.assertEqual(self.routes.events, ["ClientGone"])
        self.assertEqual(self.routes.seen, [b"123"])

    def test_body_trickles(self) -> None:
        """A byte a second is not enough, however long the route would wait."""
        exchange = self.agent.start("PUT", "/catch", length=1 << 20)
        for _ in range(62):
            self.assertNoResult(exchange.response)
            exchange.send(b"a")
            self.clock.advance(1)
            if exchange.connection.closed:
                break
        self.failureResultOf(exchange.response, NoResponse)
        self.assertEqual(self.routes.events, ["ClientGone"])

    def test_body_is_slow_but_not_too_slow(self) -> None:
        """With pauses, and in a connection that has sent one before."""
        connection = self.agent.connect()
        for _ in range(2):
            response = connection.response()
            connection.send(request_head("PUT", "/catch", length=20 * (1 << 16)))
            for _ in range(20):
                self.clock.pump([1] * 59)
                connection.send(bytes(1 << 16))
            self.clock.advance(1)
            self.assertEqual(self.successResultOf(response).body, b"whole")

    def test_other_rates(self) -> None:
        site = RegistrySite(self.routes.app.resource(), self.clock, timeout=10, minimum_rate=0.5)
        connection = Connection(site, self.clock, secure=False, peer=IPv4Address("TCP", "127.0.0.1", 1))
        response = connection.response()
        connection.send(request_head("PUT", "/catch", length=100))
        for _ in range(100):
            self.clock.advance(1)
            connection.send(b"a")
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(response).body, b"whole")
        self.clock.advance(10)
        self.assertTrue(connection.closed)

    def test_nothing_is_left_running(self) -> None:
        self.successResultOf(self.agent.request("PUT", "/catch", body=BODY))
        self.agent.start("PUT", "/catch", length=10).lose()
        self.agent.start("PUT", "/refuse", length=1 << 20).lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Producer:
    def stopProducing(self) -> None:
        """The connection was lost."""


class LostClientTests(ChannelTestCase):
    def test_during_upload(self) -> None:
        exchange = self.agent.start("PUT", "/catch", length=10)
        exchange.send(b"12345")
        exchange.lose()
        self.assertEqual(self.routes.seen, [b"12345"])
        self.assertEqual(self.routes.events, ["ClientGone"])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(len(self.log), 1)
        self.assertIn('"PUT /catch HTTP/1.1" 499 -', self.log[0])

    def test_klein_cancels_the_route(self) -> None:
        self.agent.start("GET", "/wait", length=0).lose()
        self.assertEqual(self.routes.events, ["cancelled"])
        self.assertEqual(len(self.log), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_all_connections_are_cut(self) -> None:
        idle, waiting = self.agent.connect(), self.agent.start("GET", "/wait", length=0)
        self.assertEqual(len(self.agent.site.channels), 2)
        self.agent.site.cut_connections()
        self.failureResultOf(waiting.response, NoResponse)
        self.clock.advance(0)
        self.assertTrue(idle.closed)
        self.assertEqual((self.routes.events, self.agent.site.channels), (["cancelled"], set()))

    def test_unregister_producer(self) -> None:
        """A route that lets go of its producer after the client left, or after its answer, meets no error."""
        kept = []
        app = Klein()

        @app.route("/")
        def route(request):
            kept.append(request)
            return Deferred(lambda _: None)

        exchange = Agent(app.resource(), self.clock).start("GET", "/", length=0)
        kept[0].registerProducer(Producer(), True)
        exchange.lose()
        kept[0].unregisterProducer()
        kept[0].write(b"nobody")
        kept[0].finish()
        self.assertIsNone(kept[0].producer)


class LogTests(ChannelTestCase):
    def test_combined_format(self) -> None:
        self.agent.clock.advance(86400)
        headers = {"User-Agent": 'a"b\\', "Referer": "http://r/é"}
        self.successResultOf(self.agent.request("GET", "/after?a=b", headers))
        self.assertEqual(
            self.log,
            ['127.0.0.1 - - [02/Jan/1970:00:00:00 +0000] "GET /after?a=b HTTP/1.1" 200 5 '
             '"http://r/\\xE9" "a\\x22b\\x5C"\n'],
        )  # fmt: skip

    def test_http_2_is_not_offered(self) -> None:
        self.assertEqual(self.agent.site.acceptableProtocols(), [b"http/1.1"])
