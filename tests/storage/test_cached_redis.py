"""The cache with a real redis-server, which is killed, paused and filled while it is in use."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.clients.tools import missing
from tests.services.redis import RedisServer
from txregistry.concurrency import start
from txregistry.errors import NotFound
from txregistry.interfaces import IStorageDriver
from txregistry.storage.cache_keys import CacheKeys, Lives
from txregistry.storage.cached import CachedDriver
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.storage.redis_cache import Address, RedisCache, RedisLink
from txregistry.testing.drivers import DriverSuite

clock: Any = reactor

TAG = "docker/registry/v2/repositories/a/b/_manifests/tags/t{}/current/link"
#: Short ones, so that what outlives them is seen soon.
LIVES = Lives(short=0.6, long=1.0, guard=0.2)


def sleep(seconds: float) -> Deferred[Any]:
    return deferLater(clock, seconds)


class WithRedis(TestCase):
    timeout = 120
    options: tuple[str, ...] = ()
    password = ""

    def setUp(self):
        try:
            import txredisapi  # noqa: F401  # only whether it is there
        except ImportError:
            raise missing("txredisapi is not installed") from None
        self.server = RedisServer(*self.options, password=self.password)
        self.addCleanup(self.server.stop)
        self.store = Contents()

    async def node(self, lives: Lives = LIVES, root: str = "/prod", **more: Any) -> CachedDriver:
        """A driver with connections of its own, which are up."""
        address = Address("127.0.0.1", self.server.port, **{"password": self.password or None, "timeout": 0.1, **more})
        keys = CacheKeys(["memory"], root, lives)
        cache = RedisCache(
            lambda size: RedisLink(address, size, clock),
            clock,
            f"127.0.0.1:{self.server.port}",
            longest=lives.long,
            guard=lives.guard,
            retry=(0.02, 0.1),
            lifeless=keys.originals,
        )
        driver = CachedDriver(MemoryDriver(clock, contents=self.store), cache, keys, clock)
        driver.prepare()
        self.addCleanup(driver.close)
        return driver

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something, for as long as the test may take."""
        while not true():
            await sleep(0.01)


class SuiteTests(DriverSuite, WithRedis):
    """The driver suite, reading through Redis."""

    def setUp(self):
        super().setUp()
        return start(self.connect())

    async def connect(self) -> None:
        lives = Lives(guard=0.001)
        self.nodes = [await self.node(lives), await self.node(lives)]
        await self.until(lambda: all(node._cache.usable([]) for node in self.nodes))

    def make_driver(self) -> IStorageDriver:
        self.store.objects.clear()
        self.store.growing.clear()
        self.server.ask("FLUSHALL")
        return self.nodes[0].cached

    def sibling(self, driver: Any) -> IStorageDriver:
        return self.nodes[1].cached

    async def stall(self, driver: Any, path: str) -> None:
        self.store.growing[path].modified -= 6


class ServedTests(WithRedis):
    async def test_from_redis(self):
        one, two = await self.node(Lives(guard=0.05)), await self.node()
        await self.until(lambda: one._cache.usable([]) and two._cache.usable([]))
        for number, data in enumerate((b"", b"123", b"1.5", b"\xff\x00\r\n$3\r\n", bytes(200_000))):
            path = TAG.format(number)
            version = await one.put(path, data)
            await sleep(0.1)
            await one.cached.read(path, 1 << 20)
            del self.store.objects[path]
            self.assertEqual(await two.cached.read(path, 1 << 20), (data, version))
            with self.assertRaises(NotFound):
                await two.read(path, 1 << 20)

    async def test_lives_and_names(self):
        driver = await self.node(Lives(guard=0.05))
        await self.until(lambda: driver._cache.usable([]))
        paths = (TAG.format(1), "images/0123456789abcdef/json", "images/0123456789abcdef/_checksum")
        for path in paths:
            await driver.put(path, b"1")
        await sleep(0.1)
        for path in paths:
            await driver.cached.read(path, 10)
        json = "cache_path:/prodimages/0123456789abcdef/json"
        self.assertIn(b"$1\r\n1\r\n", self.server.ask("GET", json))
        lives = [int(self.server.ask("TTL", json)[1:]), int(self.server.ask("TTL", json[:-4] + "_checksum")[1:])]
        self.assertTrue(3500 < lives[0] <= 3600 and 20 < lives[1] <= 30, lives)
        await driver.remove("images")
        self.assertEqual(self.server.ask("EXISTS", json), b":0\r\n")

    async def test_entries_without_a_life_go_at_start(self):
        for number in range(20):
            self.server.ask("SET", f"cache_path:/pr*dimages/{number}/json", "{}")
        self.server.ask("SET", "cache_path:/pradimages/1/json", "{}")
        await self.node(root="/pr*d")
        await self.until(lambda: self.server.ask("DBSIZE") == b":1\r\n")
        self.assertEqual(self.server.ask("EXISTS", "cache_path:/pradimages/1/json"), b":1\r\n")

    async def test_full(self):
        driver = await self.node()
        await self.until(lambda: driver._cache.usable([]))
        self.server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.ask("CONFIG", "SET", "maxmemory", "1")
        await driver.put(TAG.format(1), b"1")
        self.assertEqual((await driver.cached.read(TAG.format(1), 10))[0], b"1")
        self.assertTrue(driver._cache.usable([]))


class PasswordTests(WithRedis):
    password = "correct horse"

    async def test_right(self):
        driver = await self.node(db=3)
        await self.until(lambda: driver._cache.usable([]))

    async def test_wrong(self):
        """It is not told in the log, and nothing waits."""
        with capturedLogs() as events:
            driver = await self.node(password="wrong battery")
            await driver.put(TAG.format(1), b"1")
            self.assertEqual((await driver.cached.read(TAG.format(1), 10))[0], b"1")
            await sleep(0.3)
        self.assertFalse(driver._cache.usable([]))
        self.assertNotIn("battery", str(events))
        (warning,) = [event for event in events if event["log_level"] == LogLevel.warn]
        self.assertIn("could not auth", formatEvent(warning))

    async def test_killed_while_signing_in(self):
        """Whenever it dies, it is found again."""
        driver = await self.node(db=1)
        for _ in range(10):
            await self.until(lambda: driver._cache.usable([]))
            self.server.kill()
            await driver.put(TAG.format(1), b"1")
            self.server.start()
        await self.until(lambda: driver._cache.usable([]))


class TroubleTests(WithRedis):
    """Nodes that write and read while Redis is in trouble. `changed` tells since when a path has its value."""

    failed = 0
    too_old = 0
    reads = 0
    from_redis = 0

    def now(self) -> float:
        return float(clock.seconds())

    async def write(self, node: CachedDriver, path: str, number: int) -> None:
        """Put, or remove, and note the time at which it was acknowledged."""
        value: bytes | None = b"%d" % number
        try:
            if number % 5 == 4 and path in self.store.objects:
                value = None
                await node.remove(path)
            else:
                await node.put(path, b"%d" % number)
        except Exception:
            self.failed += 1
        self.history.setdefault(path, []).append((self.now(), value))

    async def look(self, node: CachedDriver, path: str) -> None:
        """Read as clients do. A value is too old if its successor was acknowledged a life before the read began."""
        begun = self.now()
        try:
            seen: bytes | None = (await node.cached.read(path, 1000))[0]
        except NotFound:
            seen = None
        except Exception:
            self.failed += 1
            return
        self.reads += 1
        changes = self.history.get(path, [])
        following = [later for (_, value), (later, _) in pairwise(changes) if value == seen]
        current = bool(changes) and changes[-1][1] == seen
        if seen is not None and not current and following and begun - max(following) > LIVES.short:
            self.too_old += 1

    async def traffic(self, nodes: list[CachedDriver], paths: list[str], busy: Callable[[], bool]) -> None:
        self.history: dict[str, list[tuple[float, bytes | None]]] = {}

        async def writer(offset: int) -> None:
            number = 0
            while busy():
                number += 1
                await self.write(nodes[number % len(nodes)], paths[(number + offset) % len(paths)], number)
                await sleep(0.003)

        async def reader(offset: int) -> None:
            number = 0
            while busy():
                number += 1
                node = nodes[(number + offset) % len(nodes)]
                path = paths[(number // 3 + offset) % len(paths)]
                self.from_redis += node._cache.usable([])
                await self.look(node, path)
                await sleep(0.001)

        # One writer: the order of its writes is that of the store.
        await gatherResults([start(writer(0)), *(start(reader(offset)) for offset in range(4))])

    async def test_killed_and_started_in_a_loop(self):
        nodes = [await self.node(), await self.node()]
        stopped: list[bool] = []

        async def trouble() -> None:
            for _ in range(12):
                await sleep(0.15)
                await deferToThread(self.server.kill)
                await sleep(0.1)
                await deferToThread(self.server.start)
            await sleep(1)
            stopped.append(True)

        paths = [TAG.format(number) for number in range(8)]
        await gatherResults([start(trouble()), start(self.traffic(nodes, paths, lambda: not stopped))])
        self.assertEqual((self.failed, self.too_old), (0, 0))
        self.assertGreater(self.from_redis, 100)
        for path in paths:
            for node in nodes:
                await self.look(node, path)
        self.assertTrue(all(node._cache.usable([]) for node in nodes))

    async def test_paused_around_writes_and_deletes(self):
        """A hundred times, for longer than the nodes wait and for less, while they write and read."""
        nodes = [await self.node(timeout=0.05), await self.node(timeout=0.05)]
        stopped: list[bool] = []

        async def trouble() -> None:
            for number in range(100):
                mode = "WRITE" if number % 2 else "ALL"
                await deferToThread(self.server.ask, "CLIENT", "PAUSE", str(10 + number % 10 * 12), mode)
                await sleep(0.12 if number % 3 else 0.2)
            await sleep(1)
            stopped.append(True)

        paths = [TAG.format(number) for number in range(8)]
        await gatherResults([start(trouble()), start(self.traffic(nodes, paths, lambda: not stopped))])
        self.assertEqual((self.failed, self.too_old), (0, 0))
        self.assertGreater(self.from_redis, 100)
