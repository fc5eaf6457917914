"""The queue of diffs in Redis, in the form that other programs know; against a real server if there is one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txregistry.concurrency import start
from txregistry.storage.redis_cache import Address, RedisLink
from txregistry.storage.redis_queue import LIMIT, RedisQueue

try:
    import txredisapi
except ImportError:
    txredisapi = None

REDIS = shutil.which("redis-server")


class Lists:
    """As much of Redis as the queue needs."""

    def __init__(self) -> None:
        self.elements: list[bytes] = []
        self.failing = False
        self.closed = 0

    def call(self, *command: bytes) -> Deferred[Any]:
        if self.failing:
            return fail(OSError("gone"))
        verb, key, *rest = command
        assert key == b"diff-worker"
        if verb == b"LPUSH":
            self.elements[:0] = rest
            return succeed(len(self.elements))
        if verb == b"LTRIM":
            first, last = map(int, rest)
            self.elements = self.elements[first : last + 1]
            return succeed(b"OK")
        assert verb == b"RPOP"
        return succeed(self.elements.pop() if self.elements else None)

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)


class FormTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lists = Lists()
        self.queue = RedisQueue(lambda: self.lists)

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(start(coroutine))

    def test_elements_are_json_strings_first_in_first_out(self) -> None:
        self.done(self.queue.push("abc"))
        self.done(self.queue.push("d"))
        self.assertEqual(self.lists.elements, [b'"d"', b'"abc"'])
        self.assertEqual([self.done(self.queue.pop()) for _ in range(3)], ["abc", "d", None])

    def test_what_is_no_id(self) -> None:
        for element in (b"", b"abc", b"3", b"null", b"\xff", b"[" * 100_000):
            self.lists.elements = [element]
            self.assertIsNone(self.done(self.queue.pop()))

    def test_the_oldest_go(self) -> None:
        for n in range(LIMIT + 2):
            self.done(self.queue.push(str(n)))
        self.assertEqual((len(self.lists.elements), self.done(self.queue.pop())), (LIMIT, "2"))

    def test_a_connection_that_fails_is_given_up(self) -> None:
        self.done(self.queue.push("a"))
        self.lists.failing = True
        self.failureResultOf(start(self.queue.pop()), OSError)
        self.assertEqual(self.lists.closed, 1)
        self.lists.failing = False
        self.assertEqual(self.done(self.queue.pop()), "a")
        for _ in range(2):
            self.done(self.queue.close())
        self.assertEqual(self.lists.closed, 2)


class RealTests(TestCase):
    timeout = 30
    skip = None if REDIS and txredisapi else "needs redis-server and txredisapi"

    def setUp(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [str(REDIS), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", "/tmp"]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.addCleanup(self.end)

    def end(self) -> None:
        self.server.kill()
        self.server.wait()

    async def test_with_the_real_server(self) -> None:
        address = Address("127.0.0.1", self.port, timeout=2.0)
        queue = RedisQueue(lambda: RedisLink(address, 1, reactor))
        link = RedisLink(address, 1, reactor)
        while True:
            try:
                await queue.push("a" * 64)
                break
            except Exception:
                # It is about to start.
                await deferLater(reactor, 0.1)
        self.assertEqual(await link.call(b"LRANGE", b"diff-worker", b"0", b"-1"), [json.dumps("a" * 64).encode()])
        await link.call(b"LPUSH", b"diff-worker", b'"123"')
        self.assertEqual([await queue.pop() for _ in range(3)], ["a" * 64, "123", None])
        await queue.close()
        await link.close()
