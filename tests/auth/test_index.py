"""The index: what it is asked, and what each of its answers, or none, means."""

import json
from collections.abc import Callable
from functools import partial

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from txregistry.auth import index
from txregistry.auth.image_lists import LIST_LIMIT
from txregistry.auth.index import LIFE, TIMEOUT, Index
from txregistry.concurrency import start
from txregistry.errors import UpstreamUnavailable
from txregistry.model.v1.names import V1Repository

BAR = V1Repository("foo", "bar")
GOOD = json.dumps([{"id": "a"}, {"id": "b", "checksum": "x"}, {"id": "a"}]).encode()


class ScriptedIndex(Resource):
    """Answers each request alike, and remembers what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.code = 200
        self.body = GOOD
        self.headers: dict[str, str] = {}
        self.silent = False
        self.uris: list[bytes] = []
        self.asked: list[dict[bytes, list[bytes]]] = []

    def render(self, request):
        self.uris.append(request.uri)
        self.asked.append({name.lower(): values for name, values in request.requestHeaders.getAllRawHeaders()})
        request.setResponseCode(self.code)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        if self.silent:
            request.write(self.body)
            return NOT_DONE_YET
        return self.body


@implementer(IAgent)
class FailingAgent:
    """Gives each request the same failure, or none at all."""

    def __init__(self, make: "Callable[[], Deferred[object]]") -> None:
        self.make = make
        self.requests = 0

    def request(self, method, uri, headers=None, bodyProducer=None):
        self.requests += 1
        return self.make()


class IndexTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.resource = ScriptedIndex()
        self.index = Index("http://index.example/base/", RequestTraversalAgent(self.resource), self.clock)

    def verify(self, authorization: str = "Token x", kind: str = "write", repository: V1Repository = BAR):
        return start(self.index.verify(authorization, kind, repository))

    def verdict(self, *how):
        return self.successResultOf(self.verify(*how))

    def unavailable(self, deferred) -> str:
        error = self.failureResultOf(deferred, UpstreamUnavailable).value
        self.assertGreater(error.retry_after, 0)
        return error.detail

    def test_what_is_asked(self):
        text = 'Token Token signature=abc,repository="foo/bar",access=write'
        self.assertEqual(self.verdict(text), (("a", "b"), True))
        self.assertEqual(self.resource.uris, [b"/base/v1/repositories/foo/bar/images"])
        asked = self.resource.asked[0]
        self.assertEqual(asked[b"authorization"], [text.encode()])
        self.assertEqual(asked[b"accept-encoding"], [b"identity"])
        self.assertNotIn(b"cookie", asked)

    def test_names_are_quoted(self):
        self.verdict("Token x", "read", V1Repository("f?o/#é", "b%2Fx"))
        self.assertEqual(self.resource.uris, [b"/base/v1/repositories/f%3Fo%2F%23%C3%A9/b%2Fx/images"])

    def test_answers_that_refuse(self):
        for code in (201, 204, 301, 302, 307, 400, 401, 403, 404, 500):
            self.resource.code = code
            self.resource.headers = {"Location": "http://elsewhere.example/"}
            self.assertIsNone(self.verdict(), code)
        self.assertEqual(len(self.resource.uris), 10)

    def test_bodies_that_refuse(self):
        for body in (
            b"",
            b"{",
            b"null",
            b"3",
            b'"ab"',
            b'{"id": "a"}',
            b'{"a": {"id": "a"}}',
            b"[1]",
            b'["a"]',
            b"[null]",
            b'[{"id": "a"}, {}]',
            b'[{"id": 1}]',
            b'[{"id": null}]',
            b"\xff",
            b"[" * 100_000,
        ):
            self.resource.body = body
            self.assertIsNone(self.verdict(), body[:20])

    def test_an_empty_list_is_one(self):
        self.resource.body = b"[]"
        self.assertEqual(self.verdict(), ((), True))

    def test_down(self):
        for code in (502, 503, 504):
            self.resource.code = code
            self.assertIn(str(code), self.unavailable(self.verify()))

    def test_compressed_answers_are_not_unpacked(self):
        self.resource.headers = {"Content-Encoding": "gzip"}
        self.assertEqual(self.verdict(), (("a", "b"), True))

    def test_no_connection(self):
        for error, text in [
            (ConnectionLost("lost"), "lost"),
            (ResponseFailed([Failure(ValueError("broken"))]), "broken"),
            (RuntimeError(), "RuntimeError"),
        ]:
            self.index = Index("http://x", FailingAgent(partial(fail, error)), self.clock)
            self.assertIn(text, self.unavailable(self.verify()))

    def test_huge(self):
        self.resource.body = b"[" + b" " * LIST_LIMIT + b"]"
        self.assertIn("larger", self.unavailable(self.verify()))

    def test_largest(self):
        self.resource.body = b"[" + b" " * (LIST_LIMIT - 2) + b"]"
        self.assertEqual(self.verdict(), ((), True))

    def test_slow(self):
        cancelled: list[object] = []
        self.index = Index("http://x", FailingAgent(lambda: Deferred(cancelled.append)), self.clock)
        verdict = self.verify()
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(verdict)
        self.clock.advance(1)
        self.assertIn("within", self.unavailable(verdict))
        self.assertEqual(len(cancelled), 1)

    def test_slow_body(self):
        self.resource.silent = True
        verdict = self.verify()
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(verdict)
        self.clock.advance(1)
        self.unavailable(verdict)
        # It is asked anew.
        self.resource.silent = False
        self.assertEqual(self.verdict(), (("a", "b"), True))

    def test_those_that_wait_for_their_turn_have_no_more_time(self):
        agent = FailingAgent(Deferred)
        self.index = Index("http://x", agent, self.clock)
        waiting = [self.verify(f"Token {number}") for number in range(index._AT_ONCE + 3)]
        self.assertEqual(agent.requests, index._AT_ONCE)
        self.clock.advance(TIMEOUT)
        for verdict in waiting:
            self.unavailable(verdict)
        # Nothing is held for ever.
        again = self.verify("again")
        self.assertGreater(agent.requests, index._AT_ONCE)
        self.clock.advance(TIMEOUT)
        self.unavailable(again)

    def test_good_answers_are_kept_for_a_while(self):
        self.assertEqual(self.verdict(), (("a", "b"), True))
        self.clock.advance(LIFE - 1)
        self.assertEqual(self.verdict(), (("a", "b"), False))
        self.clock.advance(1)
        self.assertEqual(self.verdict(), (("a", "b"), True))
        self.assertEqual(len(self.resource.uris), 2)

    def test_only_for_the_same_question(self):
        for how in [
            ("Token x", "write", BAR),
            ("Token X", "write", BAR),
            ("Token x", "read", BAR),
            ("Token x", "write", V1Repository("foo", "baz")),
        ]:
            self.assertEqual(self.verdict(*how), (("a", "b"), True))
        self.assertEqual(len(self.resource.uris), 4)

    def test_bad_answers_are_not_kept(self):
        self.resource.code = 401
        self.assertIsNone(self.verdict())
        self.resource.code = 503
        self.unavailable(self.verify())
        self.resource.code = 200
        self.assertEqual(self.verdict(), (("a", "b"), True))

    def test_kept_answers_are_bounded(self):
        self.patch(index, "_MOST_ANSWERS", 3)
        self.patch(index, "_MOST_IDS", 5)
        for number in range(4):
            self.verdict(f"Token {number}")
        self.assertEqual((len(self.index._good), self.index._ids), (2, 4))
        self.assertEqual(self.verdict("Token 3"), (("a", "b"), False))
        self.assertEqual(self.verdict("Token 1"), (("a", "b"), True))

    def test_asked_once_by_many(self):
        answers: list[Deferred[object]] = []

        def ask():
            answers.append(Deferred())
            return answers[-1]

        self.index = Index("http://x", FailingAgent(ask), self.clock)
        first, second, third = self.verify(), self.verify(), self.verify("another")
        self.assertEqual(len(answers), 2)
        # Whoever asked first leaves.
        first.cancel()
        self.failureResultOf(first)
        self.assertNoResult(second)
        answers[0].errback(ConnectionLost())
        self.unavailable(second)
        self.assertNoResult(third)
        answers[1].errback(ConnectionLost())
        self.unavailable(third)

    def test_no_cookie_is_carried_to_another(self):
        self.resource.headers = {"Set-Cookie": "session=of-the-first; Path=/"}
        self.verdict("Token of A")
        self.verdict("Token of B")
        self.resource.code = 401
        self.verdict("Token of C")
        self.verdict("Token of D")
        self.assertEqual(len(self.resource.asked), 4)
        self.assertEqual([asked.get(b"cookie") for asked in self.resource.asked], [None] * 4)
