"""Bodies and large answers: what is handed over, and back-pressure in both directions."""

from hypothesis import given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txregistry.concurrency import start
from txregistry.errors import BodyTooLarge, ClientGone, MalformedBody
from txregistry.testing.agent import WINDOW, Agent, Exchange
from txregistry.web.body import HIGH_WATER, SMALL, Body
from txregistry.web.channel import DRAIN_BYTES
from txregistry.web.sending import send_chunks


class Source:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def body_awaited(self) -> None:
        self.calls.append("awaited")

    def body_arrived(self) -> None:
        self.calls.append("arrived")

    def hold_body(self) -> None:
        self.calls.append("hold")

    def release_body(self) -> None:
        self.calls.append("release")


class BodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.source = Source()

    def body(self, length: int | None = None) -> Body:
        return Body(self.source, self.clock, length)

    def collect(self, iterator) -> tuple[list, Deferred]:
        got: list = []

        async def run() -> None:
            while (item := await anext(iterator, None)) is not None:
                got.append(item)

        return got, start(run())

    def test_chunks_at_once(self) -> None:
        body = self.body()
        got, done = self.collect(body)
        body.write(b"a")
        self.assertEqual(got, [b"a"])
        body.write(b"b")
        self.assertEqual(got, [b"a", b"b"])
        self.assertNoResult(done)
        body.end()
        self.successResultOf(done)
        self.assertEqual(body.received, 2)

    def test_length_ends_it(self) -> None:
        body = self.body(2)
        got, done = self.collect(body)
        self.assertEqual(body.remaining, 2)
        body.write(b"ab")
        self.successResultOf(done)
        self.assertEqual((got, body.remaining), ([b"ab"], 0))

    def test_empty(self) -> None:
        got, done = self.collect(self.body(0))
        self.successResultOf(done)
        self.assertEqual((got, self.source.calls), ([], []))

    def test_batch_is_full(self) -> None:
        body = self.body()
        got, _ = self.collect(body.batches(4))
        for chunk in (b"ab", b"c", b"defg"):
            self.assertEqual(got, [])
            body.write(chunk)
        self.assertEqual(got, [[b"abcdefg"]])

    def test_batch_exceeds_its_size_by_less_than_a_chunk(self) -> None:
        chunks = [bytes([n]) * SMALL for n in range(3)]
        body = self.body(3 * SMALL)
        for chunk in chunks:
            body.write(chunk)
        got, done = self.collect(body.batches(SMALL + 1))
        self.successResultOf(done)
        self.assertEqual(got, [chunks[:2], chunks[2:]])

    def test_small_pieces_are_joined(self) -> None:
        """So that no batch has more of them than one system call takes."""
        data = bytes(range(250)) * 40
        body = self.body(len(data))
        for byte in data:
            body.write(bytes([byte]))
        batch = self.successResultOf(start(anext(body.batches(HIGH_WATER))))
        self.assertEqual(b"".join(batch), data)
        self.assertEqual(len(batch), 3)

    def test_batch_is_old(self) -> None:
        body = self.body()
        got, done = self.collect(body.batches(1000, age=1.0))
        self.clock.advance(5)
        body.write(b"a")
        self.clock.advance(0.5)
        body.write(b"b")
        self.assertEqual(got, [])
        self.clock.advance(0.5)
        self.assertEqual(got, [[b"ab"]])
        body.write(b"c")
        body.end()
        self.successResultOf(done)
        self.assertEqual(got[1:], [[b"c"]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_age_counts_while_the_reader_is_busy(self) -> None:
        body = self.body()
        body.write(b"a")
        self.clock.advance(1)
        got, _ = self.collect(body.batches(1000, age=1.0))
        self.assertEqual(got, [[b"a"]])

    def test_age_of_what_a_batch_left(self) -> None:
        """It begins anew: a stream that never empties the buffer would always be old."""
        body = self.body()
        body.write(bytes(SMALL))
        body.write(b"b")
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(start(anext(body.batches(SMALL)))), [bytes(SMALL)])
        rest = start(anext(body.batches(SMALL)))
        self.assertNoResult(rest)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(rest), [b"b"])

    def test_read(self) -> None:
        body = self.body()
        result = start(body.read(3))
        body.write(b"ab")
        body.write(b"c")
        self.assertNoResult(result)
        body.end()
        self.assertEqual(self.successResultOf(result), b"abc")

    def test_read_too_large(self) -> None:
        error = self.failureResultOf(start(self.body(4).read(3)), BodyTooLarge).value
        self.assertEqual(error.limit, 3)
        self.assertEqual(self.source.calls, [])
        body = self.body()
        result = start(body.read(3))
        body.write(b"abc")
        self.assertNoResult(result)
        body.write(b"d")
        self.failureResultOf(result, BodyTooLarge)

    def test_failure_comes_after_the_bytes(self) -> None:
        body = self.body(10)
        got, done = self.collect(body.batches(1000))
        body.write(b"a")
        body.write(b"b")
        body.fail(ClientGone())
        self.failureResultOf(done, ClientGone)
        self.assertEqual(got, [[b"ab"]])

    def test_first_failure_counts(self) -> None:
        body = self.body()
        body.fail(MalformedBody())
        body.fail(ClientGone())
        self.failureResultOf(start(body.read(1)), MalformedBody)

    def test_failure_after_the_end_is_none(self) -> None:
        body = self.body(1)
        body.write(b"a")
        body.fail(ClientGone())
        self.assertEqual(self.successResultOf(start(body.read(1))), b"a")

    def test_closed(self) -> None:
        body = self.body(10)
        body.write(b"a")
        result = start(body.read(10))
        body.close()
        self.failureResultOf(result, ClientGone)
        self.assertEqual(self.source.calls, ["awaited"])  # the connection is another request's by now
        body.write(b"bc")
        self.assertEqual(body.remaining, 7)
        self.failureResultOf(start(body.read(10)), ClientGone)

    def test_cancelled_wait(self) -> None:
        body = self.body()
        body.write(b"a")
        result = start(anext(body.batches(10)))
        result.cancel()
        self.failureResultOf(result)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        got, done = self.collect(body)
        body.end()
        self.successResultOf(done)
        self.assertEqual(got, [b"a"])

    def test_back_pressure(self) -> None:
        body = self.body()
        body.write(bytes(HIGH_WATER))
        self.assertEqual(self.source.calls, [])
        body.write(b"a")
        self.assertEqual(self.source.calls, ["hold"])
        self.successResultOf(start(anext(body.batches(HIGH_WATER))))
        self.assertEqual(self.source.calls, ["hold", "release"])
        self.assertFalse(body.held)

    def test_batch_larger_than_the_buffer(self) -> None:
        """A size that the buffer never reaches is no wait without end."""
        body = self.body()
        result = start(anext(body.batches(10 * HIGH_WATER)))
        body.write(bytes(HIGH_WATER))
        self.assertEqual(self.successResultOf(result), [bytes(HIGH_WATER)])

    def test_the_source_knows_when_somebody_waits(self) -> None:
        body = self.body(2)
        body.write(b"a")
        self.successResultOf(start(anext(body)))
        self.assertEqual(self.source.calls, [])
        result = start(anext(body))
        self.assertEqual(self.source.calls, ["awaited"])
        body.write(b"b")
        self.successResultOf(result)
        self.assertEqual(self.source.calls, ["awaited", "arrived"])

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(
        st.lists(st.one_of(st.binary(min_size=1, max_size=20), st.floats(0.1, 2.0)), max_size=30),
        st.integers(1, 40),
        st.booleans(),
        st.sampled_from(["end", "fail"]),
    )
    def test_every_byte_in_order(self, steps: list, size: int, known: bool, end: str) -> None:
        """However bytes and time come: all of them are handed over, in order, and none waits longer than its age."""
        data = b"".join(step for step in steps if isinstance(step, bytes))
        body = self.body(len(data) if known and end == "end" else None)
        got, done = self.collect(body.batches(size))
        for step in steps:
            if isinstance(step, bytes):
                body.write(step)
            else:
                self.clock.advance(step)
        self.clock.advance(1)
        self.assertEqual(b"".join(b"".join(batch) for batch in got), data)
        if end == "end":
            body.end()
            self.successResultOf(done)
        else:
            body.fail(ClientGone())
            self.failureResultOf(done, ClientGone)
        self.assertTrue(all(batch and sum(map(len, batch[:-1])) < size for batch in got))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Pieces:
    """Chunks that are there at once, or one at a time as the test fires them."""

    def __init__(self, pieces: list[bytes], *, slow: bool = False) -> None:
        self.pieces = pieces
        self.given = 0
        self.closed = 0
        self.slow = slow
        self.waiting: Deferred[None] | None = None

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        if self.slow:
            self.waiting = Deferred()
            await self.waiting
        if self.given == len(self.pieces):
            raise StopAsyncIteration
        self.given += 1
        return self.pieces[self.given - 1]

    def close(self) -> None:
        self.closed += 1


class SendChunksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ended: list[str] = []
        self.log: list[str] = []

    def agent(self, pieces: Pieces) -> Agent:
        app = Klein()

        @app.route("/", methods=["GET", "HEAD"])
        async def route(request):
            request.setHeader("Content-Length", str(sum(map(len, pieces.pieces))))
            await send_chunks(request, pieces)
            self.ended.append("ended")

        @app.route("/plain")
        def plain(request):
            return bytes(2 * WINDOW)

        return Agent(app.resource(), access_log=self.log.append)

    def test_whole(self) -> None:
        pieces = Pieces([b"abc", b"de"])
        response = self.successResultOf(self.agent(pieces).request("GET", "/"))
        self.assertEqual(response.body, b"abcde")
        self.assertIsNone(response.header("Transfer-Encoding"))
        self.assertEqual(pieces.closed, 1)

    def test_head(self) -> None:
        pieces = Pieces([b"abc"])
        response = self.successResultOf(self.agent(pieces).request("HEAD", "/"))
        self.assertEqual((response.header("Content-Length"), pieces.given, pieces.closed), ("3", 0, 1))

    def test_slow_reader(self) -> None:
        pieces = Pieces([bytes([n]) * WINDOW for n in range(50)])
        exchange = self.agent(pieces).start("GET", "/", length=0)
        self.successResultOf(exchange.response)
        connection = self.agent(pieces := Pieces(pieces.pieces)).connect()
        connection.reading = False
        response = connection.response()
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        most = 0
        while connection.unread:
            most = max(most, len(connection.unread))
            connection.read()
        self.assertEqual(self.successResultOf(response).body, b"".join(pieces.pieces))
        self.assertLess(most, 3 * WINDOW)

    def test_second_answer_to_a_slow_reader(self) -> None:
        """An answer waits for the one before, of which the transport is full."""
        pieces = Pieces([bytes(WINDOW)] * 20)
        connection = self.agent(pieces).connect()
        connection.reading = False
        connection.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(len(self.log), 1)
        self.assertEqual(pieces.given, 0)
        connection.read()
        self.assertEqual(pieces.given, 1)  # with the headers it is more than a window
        connection.lose()

    def test_client_leaves(self) -> None:
        for slow in (False, True):
            with self.subTest(slow=slow):
                pieces = Pieces([bytes(WINDOW)] * 20, slow=slow)
                connection = self.agent(pieces).connect()
                connection.reading = False
                connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                connection.lose()
                self.assertLess(pieces.given, 3)
                self.assertEqual((pieces.closed, self.ended, self.flushLoggedErrors()), (1, [], []))
                self.assertIn('HTTP/1.1" 200 ', self.log.pop())

    def test_client_leaves_a_plain_resource(self) -> None:
        """Without Klein nobody cancels, and it ends as well; also when the client had left before."""
        results = []

        class Plain(Resource):
            isLeaf = True

            def render(self, request):
                self.request = request
                results.append(start(send_chunks(request, pieces)))
                return NOT_DONE_YET

        pieces = Pieces([bytes(WINDOW)] * 20)
        resource = Plain()
        connection = Agent(resource).connect()
        connection.reading = False
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertNoResult(results[0])
        connection.lose()
        self.failureResultOf(results[0], CancelledError)
        self.failureResultOf(start(send_chunks(resource.request, pieces)), CancelledError)
        self.assertEqual(pieces.closed, 2)

    def test_client_leaves_a_source_that_cannot_be_cancelled(self) -> None:
        class Stubborn(Pieces):
            async def __anext__(self) -> bytes:
                self.waiting = Deferred(lambda _: None)
                self.given += 1
                waiting = self.waiting
                outer: Deferred[bytes] = Deferred(lambda d: d.callback(b"late"))
                waiting.addCallback(lambda _: outer.callback(b"piece"))
                return await outer

        pieces = Stubborn([b"piece"] * 5)
        exchange = self.agent(pieces).start("GET", "/", length=0)
        exchange.lose()
        self.assertEqual((pieces.given, pieces.closed, self.flushLoggedErrors()), (1, 1, []))

    def test_source_fails(self) -> None:
        class Failing(Pieces):
            async def __anext__(self) -> bytes:
                if self.given:
                    raise OSError("bad disk")
                return await super().__anext__()

        pieces = Failing([b"abc", b"de"])
        exchange = self.agent(pieces).start("GET", "/", length=0)
        self.failureResultOf(exchange.response)
        self.assertEqual(pieces.closed, 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class UploadBackPressureTests(SynchronousTestCase):
    """The connection is not read while the route is behind."""

    def test_pauses_and_goes_on(self) -> None:
        app = Klein()
        gates: list[Deferred[None]] = []
        sizes: list[int] = []

        @app.route("/", methods=["PUT"])
        async def route(request):
            async for batch in request.body.batches(1 << 19):
                sizes.append(sum(map(len, batch)))
                gates.append(Deferred())
                await gates[-1]
            return b"%d" % sum(sizes)

        agent = Agent(app.resource())
        size = 8 << 20
        for length in (size, None):
            with self.subTest(length=length):
                sizes.clear()
                exchange = agent.start("PUT", "/", length=length)
                for _ in range(size >> 16):
                    exchange.send(bytes(1 << 16))
                exchange.end()
                connection = exchange.connection
                self.assertTrue(connection.paused)
                while gates:
                    self.assertLess(connection.sent - sum(sizes), HIGH_WATER + (1 << 18))
                    gates.pop(0).callback(None)
                agent.clock.advance(60)
                response = self.successResultOf(exchange.response)
                self.assertEqual(response.body, b"%d" % size)
                self.assertEqual(connection.unsent, 0)

    def held(self, length: int) -> tuple[Exchange, Deferred[bytes]]:
        """An upload of 2 MiB whose route waits, and lets the client wait; and what the route will answer."""
        app = Klein()
        answer: Deferred[bytes] = Deferred()

        @app.route("/", methods=["PUT"])
        def route(request):
            request.setHeader("Content-Length", "1")
            return answer

        exchange = Agent(app.resource()).start("PUT", "/", length=length)
        exchange.send(bytes(length))
        self.assertTrue(exchange.connection.paused)
        return exchange, answer

    def test_short_rest_of_a_held_body(self) -> None:
        exchange, answer = self.held(HIGH_WATER + (1 << 16) + 100)
        self.assertEqual(exchange.connection.unsent, 100)
        answer.callback(b"a")
        self.assertIsNone(self.successResultOf(exchange.response).header("Connection"))
        self.assertEqual(exchange.connection.unsent, 0)

    def test_long_rest_of_a_held_body(self) -> None:
        exchange, answer = self.held(HIGH_WATER + (10 << 20))
        before = exchange.connection.sent
        answer.callback(b"a")
        self.assertEqual(self.successResultOf(exchange.response).header("Connection"), "close")
        self.assertLess(exchange.connection.sent - before, DRAIN_BYTES + (1 << 17))
        self.assertGreater(exchange.connection.sent - before, DRAIN_BYTES)

    def test_sending_does_not_end_the_hold(self) -> None:
        """A transport that can send again is no reason to read what nobody takes; and the other way round."""
        exchange, _ = self.held(2 * HIGH_WATER)
        connection = exchange.connection
        self.patch(connection, "_deliver", lambda: None)  # a socket is read in the reactor's next turn only
        connection.protocol.pauseProducing()
        connection.protocol.resumeProducing()
        self.assertTrue(connection.paused)
        connection.protocol.pauseProducing()
        connection.protocol.release_body()
        self.assertTrue(connection.paused)
        connection.protocol.requests[0].body.held = False
        connection.protocol.resumeProducing()
        self.assertFalse(connection.paused)

    def test_no_timer_while_held(self) -> None:
        app = Klein()
        gate: Deferred[None] = Deferred()

        @app.route("/", methods=["PUT"])
        async def route(request):
            await gate
            return b"%d" % len(await request.body.read(1 << 22))

        agent = Agent(app.resource())
        exchange = agent.start("PUT", "/", length=1 << 22)
        exchange.send(bytes(1 << 22))
        agent.clock.advance(3600)
        self.assertGreater(exchange.connection.unsent, 1 << 21)
        gate.callback(None)
        self.assertEqual(self.successResultOf(exchange.response).body, b"4194304")
