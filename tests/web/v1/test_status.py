"""`_status`: what is tried, what is said of each failure, and that nobody waits for long."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.v1.base import V1TestCase
from txregistry.concurrency import Patient, start
from txregistry.core.v1.status import Status
from txregistry.errors import Unavailable
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.registry import MemoryRegistry


class Redis:
    """A queue in a Redis that answers an echo with whatever `answer` makes of the value."""

    def __init__(self) -> None:
        self.answer: Any = succeed
        self.keys: list[bytes] = []

    async def push(self, image_id: str) -> None:
        raise AssertionError

    async def pop(self) -> str | None:
        return None

    async def echo(self, key: bytes, value: bytes) -> bytes | None:
        self.keys.append(key)
        found: bytes | None = await self.answer(value)
        return found

    async def close(self) -> None:
        pass


class Unconfigured(V1TestCase):
    def test_it_is_no_failure(self) -> None:
        for path in ("/_status", "/v1/_status"):
            answer = self.get(path)
            self.assertEqual(answer.code, 200)
            self.assertEqual(
                answer.json(),
                {
                    "failures": {"redis": "unconfigured"},
                    "host": socket.gethostname(),
                    "services": ["redis", "storage"],
                },
            )
            self.assertEqual(self.ask("HEAD", path).code, 200)
        self.assertEqual(self.paths(), [])

    def test_a_store_that_fails(self) -> None:
        self.patch(self.memory.driver, "put", lambda path, data: fail(Unavailable(path, "no answer")))
        answer = self.get("/_status")
        self.assertEqual(answer.code, 503)
        self.assertEqual(
            answer.json()["failures"], {"redis": "unconfigured", "storage": "Unavailable: no answer"}
        )

    def test_a_store_that_lies(self) -> None:
        self.patch(self.memory.driver, "read", lambda path, limit: succeed((b"other", "1")))
        answer = self.get("/_status")
        self.assertEqual(answer.code, 503)
        self.assertEqual(
            answer.json()["failures"]["storage"], "Set value is different from what was received"
        )


class Configured(V1TestCase):
    def setUp(self) -> None:
        self.redis = Redis()
        self.memory = MemoryRegistry(self.policy, self.options, diff_queue=self.redis)

    def report(self, code: int) -> dict[str, str]:
        """The failures in an answer with this status."""
        answer = self.get("/v1/_status")
        self.assertEqual((answer.code, answer.json()["services"]), (code, ["redis", "storage"]))
        found: dict[str, str] = answer.json()["failures"]
        return found

    def test_both_work(self) -> None:
        self.assertEqual([self.report(200), self.report(200)], [{}, {}])
        self.assertEqual(len(set(self.redis.keys)), 2)

    def test_a_redis_that_fails(self) -> None:
        for error, text in ((ConnectionError("refused"), "refused"), (TimeoutError(), "TimeoutError")):
            self.redis.answer = lambda _, error=error: fail(error)
            self.assertEqual(self.report(503), {"redis": text})

    def test_a_redis_that_lies(self) -> None:
        for value in (None, b"other"):
            self.redis.answer = lambda _, value=value: succeed(value)
            self.assertEqual(self.report(503), {"redis": "Set value is different from what was received"})

    def test_both_fail(self) -> None:
        self.redis.answer = lambda _: fail(OSError("gone"))
        self.patch(self.memory.driver, "put", lambda path, data: fail(Unavailable(path)))
        self.assertEqual(self.report(503), {"redis": "gone", "storage": "Unavailable"})

    def test_neither_answers(self) -> None:
        # A job in a thread takes no notice of a cancel.
        self.redis.answer = lambda _: Patient()
        self.patch(self.memory.driver, "put", lambda path, data: Patient())
        due = self.memory.agent.request("GET", "/_status")
        self.memory.clock.advance(9.9)
        self.assertNoResult(due)
        self.memory.clock.advance(0.2)
        answer = self.successResultOf(due)
        self.assertEqual(answer.code, 503)
        late = "no answer within 10 s"
        self.assertEqual(answer.json()["failures"], {"redis": late, "storage": late})

    def test_a_client_that_leaves(self) -> None:
        self.patch(self.memory.driver, "put", lambda path, data: Deferred())
        exchange = self.memory.agent.start("GET", "/_status", length=0)
        exchange.lose()
        self.assertEqual(self.flushLoggedErrors(), [])


class Checks(SynchronousTestCase):
    def test_they_run_side_by_side(self) -> None:
        clock, redis = Clock(), Redis()
        redis.answer = lambda value: Deferred()
        driver = MemoryDriver(clock)
        self.patch(driver, "put", lambda path, data: Deferred())
        due = start(Status(driver, clock, redis).failures())
        clock.advance(10)
        failures: dict[str, str] = self.successResultOf(due)
        self.assertEqual(list(failures), ["redis", "storage"])
