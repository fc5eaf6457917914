"""The queue of diffs in Redis, in the form that other programs know; against a real server if there is one."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txregistry.concurrency import start
from txregistry.core.v1.status import Status
from txregistry.storage.memory import MemoryDriver
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
        self.echoes: dict[bytes, tuple[bytes, ...]] = {}
        self.failing = False
        self.closed = 0

    def call(self, *command: bytes) -> Deferred[Any]:
        if self.failing:
            return fail(OSError("gone"))
        verb, key, *rest = command
        if verb == b"SETEX":
            self.echoes[key] = tuple(rest)
            return succeed(b"OK")
        if verb == b"GET":
            return succeed(self.echoes[key][1])
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

    def test_an_echo(self) -> None:
        self.assertEqual(self.done(self.queue.echo(b"key", b"value")), b"value")
        self.assertEqual(self.lists.echoes, {b"key": (b"5", b"value")})
        self.lists.failing = True
        self.failureResultOf(start(self.queue.echo(b"key", b"value")), OSError)
        self.assertEqual(self.lists.closed, 1)

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


class RealCase(TestCase):
    timeout = 30
    skip = None if REDIS and txredisapi else "needs redis-server and txredisapi"

    def setUp(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def serve(self, *options: str) -> None:
        command = [str(REDIS), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", "/tmp"]
        self.server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        self.addCleanup(self.end)

    def end(self) -> None:
        self.server.kill()
        self.server.wait()

    async def served(self, queue: RedisQueue) -> None:
        """Wait until it answers."""
        while True:
            try:
                await queue.pop()
                return
            except Exception:
                # It is about to start.
                await deferLater(reactor, 0.1)


class RealTests(RealCase):
    async def test_with_the_real_server(self) -> None:
        self.serve()
        address = Address("127.0.0.1", self.port, timeout=2.0)
        queue = RedisQueue(lambda: RedisLink(address, 1, reactor))
        link = RedisLink(address, 1, reactor)
        await self.served(queue)
        await queue.push("a" * 64)
        self.assertEqual(await link.call(b"LRANGE", b"diff-worker", b"0", b"-1"), [json.dumps("a" * 64).encode()])
        await link.call(b"LPUSH", b"diff-worker", b'"123"')
        self.assertEqual([await queue.pop() for _ in range(3)], ["a" * 64, "123", None])
        await queue.close()
        await link.close()


class RealStatusTests(RealCase):
    def status(self, password: str | None = None) -> tuple[Status, RedisQueue]:
        address = Address("127.0.0.1", self.port, password=password, timeout=1.0)
        queue = RedisQueue(lambda: RedisLink(address, 1, reactor))
        self.addCleanup(lambda: start(queue.close()))
        return Status(MemoryDriver(reactor), reactor, queue), queue

    async def test_a_server_that_comes_and_goes(self) -> None:
        self.serve()
        status, queue = self.status()
        await self.served(queue)
        self.assertEqual(await status.failures(), {})
        self.server.send_signal(signal.SIGSTOP)
        failures = await status.failures()
        self.assertEqual((list(failures), bool(failures["redis"])), (["redis"], True))
        self.server.send_signal(signal.SIGCONT)
        await self.served(queue)
        self.assertEqual(await status.failures(), {})
        self.end()
        failures = await status.failures()
        self.assertEqual((list(failures), bool(failures["redis"])), (["redis"], True))
        self.serve()
        await self.served(queue)
        self.assertEqual(await status.failures(), {})

    async def test_an_echo_dies(self) -> None:
        self.serve()
        _, queue = self.status()
        await self.served(queue)
        self.assertEqual(await queue.echo(b"key", b"\x00123"), b"\x00123")
        link = RedisLink(Address("127.0.0.1", self.port, timeout=1.0), 1, reactor)
        self.assertIn(await link.call(b"TTL", b"key"), range(1, 6))
        await link.close()

    async def test_a_password_that_is_refused_is_not_told(self) -> None:
        for options in (("--requirepass", "right"), ("--rename-command", "AUTH", "")):
            self.serve(*options)
            status, _ = self.status("Sesam-wrong")
            with capturedLogs() as events:
                told = await status.redis()
                while told is None or not re.search("AUTH|WRONGPASS|password", told):
                    await deferLater(reactor, 0.1)  # it is about to start
                    told = await status.redis()
            self.assertNotIn("Sesam", told)
            ours = [event for event in events if event["log_namespace"].startswith("txregistry")]
            self.assertNotIn("Sesam", "".join(map(formatEvent, ours)))
            self.end()
