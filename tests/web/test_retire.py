"""A site that retires: no connection is cut, and each ends with its next answer or by its idle timeout."""

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.testing.agent import Agent, request_head
from txregistry.web.site import IDLE_TIMEOUT


class RetireTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.waiting: Deferred[bytes] = Deferred()
        app = Klein()

        @app.route("/now", methods=["GET"])
        def now(request) -> bytes:
            return b"now"

        @app.route("/wait", methods=["GET"])
        def wait(request) -> "Deferred[bytes]":
            return self.waiting

        @app.route("/put", methods=["PUT"])
        async def put(request) -> bytes:
            return await request.body.read(100)

        self.agent = Agent(app.resource(), self.clock)

    def test_without_connections(self):
        self.successResultOf(self.agent.site.retire())

    def test_next_answer_is_the_last(self):
        connection = self.agent.connect()
        connection.send(request_head("GET", "/now"))
        self.assertIsNone(self.successResultOf(connection.response()).header("Connection"))
        gone = self.agent.site.retire()
        self.clock.advance(1)
        self.assertFalse(connection.closed)
        self.assertNoResult(gone)
        connection.send(request_head("GET", "/now"))
        response = self.successResultOf(connection.response())
        self.assertEqual((response.code, response.header("Connection")), (200, "close"))
        self.clock.advance(1)
        self.assertTrue(connection.closed)
        self.successResultOf(gone)

    def test_answer_under_way(self):
        connection = self.agent.connect()
        connection.send(request_head("GET", "/wait"))
        gone = self.agent.site.retire()
        self.clock.advance(1)
        self.assertNoResult(gone)
        self.waiting.callback(b"late")
        response = self.successResultOf(connection.response())
        self.assertEqual((response.body, response.header("Connection")), (b"late", "close"))
        self.clock.advance(1)
        self.successResultOf(gone)

    def test_body_under_way(self):
        connection = self.agent.connect()
        connection.send(request_head("PUT", "/put", length=10) + b"12345")
        gone = self.agent.site.retire()
        self.clock.advance(1)
        connection.send(b"67890")
        response = self.successResultOf(connection.response())
        self.assertEqual((response.body, response.header("Connection")), (b"1234567890", "close"))
        self.clock.advance(1)
        self.successResultOf(gone)

    def test_idle(self):
        connection = self.agent.connect()
        gone = self.agent.site.retire()
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertNoResult(gone)
        self.clock.pump([1, 1])
        self.assertTrue(connection.closed)
        self.successResultOf(gone)

    def test_twice(self):
        self.agent.connect()
        gone = self.agent.site.retire()
        self.agent.site.retire()
        self.assertNoResult(gone)
