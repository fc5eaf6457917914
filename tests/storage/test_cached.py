"""The cache beside a driver: a scripted Redis, a memory driver, no sockets and no time but the test's."""

import contextlib
import itertools
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.storage.fake_redis import FakeRedis, World, failure_of, interleavings
from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound, TooLarge, Unavailable
from txregistry.interfaces import ICaches, IPartial, IProvesFresh, IRedirects, IStorageDriver, ISweeps
from txregistry.storage.cache_keys import CacheKeys, Lives
from txregistry.storage.cached import LARGEST, NO_VERSION, CachedDriver
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.drivers import DriverSuite
from txregistry.testing.pools import result_of

TAG = "docker/registry/v2/repositories/a/b/_manifests/tags/latest"
LINK = f"{TAG}/current/link"
BLOB = "docker/registry/v2/blobs/sha256/aa/aabb/data"
IMAGE = "images/0123456789abcdef"
V1_TAG = "repositories/library/x/tag_latest"


class CachedSuite(DriverSuite, TestCase):
    """The whole driver, reading through the cache, on a store that two nodes share."""

    def make_driver(self) -> IStorageDriver:
        self.world = World()
        return self.world.node().cached

    def sibling(self, driver: IStorageDriver) -> IStorageDriver:
        return self.world.node().cached

    async def stall(self, driver: IStorageDriver, path: str) -> None:
        self.world.clock.advance(6)

    async def test_it_is_the_cache_that_answers(self) -> None:
        driver = self.make_driver()
        version = await driver.put("a/b", b"1")
        self.world.clock.advance(self.world.lives.guard)
        await driver.read("a/b", 10)
        self.world.contents.objects.clear()
        self.assertEqual(await self.sibling(driver).read("a/b", 10), (b"1", version))
        await self.fails(TooLarge, driver.read("a/b", 0))


class FreshSuite(CachedSuite):
    """The same, reading from the store."""

    def make_driver(self) -> IStorageDriver:
        self.world = World()
        return self.world.node()

    def sibling(self, driver: IStorageDriver) -> IStorageDriver:
        return self.world.node()

    async def test_it_is_the_cache_that_answers(self) -> None:
        driver = self.make_driver()
        await driver.put("a/b", b"1")
        self.world.clock.advance(self.world.lives.guard)
        assert isinstance(driver, CachedDriver)
        await driver.cached.read("a/b", 10)
        self.world.contents.objects.clear()
        await self.fails(NotFound, driver.read("a/b", 10))


class WithoutRedisSuite(CachedSuite):
    """The same while Redis is gone."""

    def make_driver(self) -> IStorageDriver:
        self.world = World()
        self.world.redis.alive = False
        return self.world.node().cached

    async def test_it_is_the_cache_that_answers(self) -> None:
        driver = self.make_driver()
        await driver.put("a/b", b"1")
        self.assertEqual((await driver.read("a/b", 10))[0], b"1")
        self.assertEqual(self.world.redis.commands, [])


class InterfaceTests(SynchronousTestCase):
    def test_of_the_driver(self):
        driver = World().node()
        verifyObject(IStorageDriver, driver)
        verifyObject(ICaches, driver)
        verifyObject(IPartial, result_of(driver.partial("uploads/one", create=True)))
        verifyObject(IStorageDriver, driver.cached)

    def test_what_the_driver_below_offers(self):
        world = World()
        driver = world.node()
        self.assertTrue(IProvesFresh.providedBy(driver))
        self.assertFalse(ISweeps.providedBy(driver))
        self.assertFalse(IRedirects.providedBy(driver))
        result_of(driver.put("a", b"1"))
        self.assertEqual(IProvesFresh(driver).read_now("a", 1), b"1")
        self.assertEqual([IProvesFresh(driver).exists_now(path) for path in "ab"], [True, False])

    def test_what_is_there_now_is_not_what_is_cached(self):
        self.assertFalse(IProvesFresh.providedBy(World().node().cached))


def filled(world: World, path: str, data: bytes) -> None:
    """Put an object and let Redis have it."""
    driver = world.node()
    result_of(driver.put(path, data))
    world.clock.advance(world.lives.guard)
    result_of(driver.cached.read(path, 1 << 20))


class KeyTests(SynchronousTestCase):
    def setUp(self):
        self.world = World()

    def keys(self) -> set[bytes]:
        """The keys with a value, each of which has a life."""
        for value, until in self.world.redis.data.values():
            self.assertIsNotNone(until, value)
        return {key for key, (value, _) in self.world.redis.data.items() if value}

    def test_the_keys_of_the_original(self):
        filled(self.world, f"{IMAGE}/json", b"{}")
        filled(self.world, f"{IMAGE}/ancestry", b"[]")
        filled(self.world, f"{IMAGE}/_checksum", b"sha256:00")
        self.assertEqual(
            self.keys(),
            {b"cache_path:/prod%s/%s" % (IMAGE.encode(), part) for part in (b"json", b"ancestry", b"_checksum")},
        )
        self.assertEqual(self.world.redis.data[b"cache_path:/prodimages/0123456789abcdef/json"][0], b"{}")
        read = result_of(self.world.node().cached.read(f"{IMAGE}/json", 10))
        self.assertEqual(read, (b"{}", NO_VERSION))

    def test_without_a_root(self):
        keys = CacheKeys(["s3"], "", Lives()).place(f"{IMAGE}/_checksum")
        assert keys is not None
        self.assertEqual(keys.key, b"cache_path:/images/0123456789abcdef/_checksum")

    def test_unfinished_json_has_another_key_and_a_short_life(self):
        result_of(self.world.node().put(f"{IMAGE}/_inprogress", b"true"))
        filled(self.world, f"{IMAGE}/json", b"{}")
        (key,) = self.keys()
        self.assertTrue(key.startswith(b"txregistry:1:"), key)
        until = self.world.redis.data[key][1]
        self.assertEqual(until, self.world.clock.seconds() + self.world.lives.short)
        result_of(self.world.node().remove(f"{IMAGE}/_inprogress"))
        self.world.clock.advance(self.world.lives.short)
        result_of(self.world.node().cached.read(f"{IMAGE}/json", 10))
        (key,) = (key for key in self.keys() if key.startswith(b"cache_path:"))
        self.assertEqual(self.world.redis.data[key][1], self.world.clock.seconds() + self.world.lives.long)

    def test_whether_it_is_finished_is_no_condition_of_serving_it(self):
        for verb in ("stat", "read"):
            world = World()
            driver = world.node()
            result_of(driver.put(f"{IMAGE}/json", b"{}"))
            world.clock.advance(world.lives.guard)
            calls: list[str] = []
            original = getattr(driver._inner, verb)

            def failing(original: Any, calls: list[str], fails_at: int, path: str, *more: Any) -> Any:
                calls.append(path)
                return fail(Unavailable(path)) if len(calls) == fails_at else original(path, *more)

            fails_at = {"stat": 1, "read": 2}[verb]
            self.patch(driver._inner, verb, partial(failing, original, calls, fails_at))
            self.assertEqual(result_of(driver.cached.read(f"{IMAGE}/json", 10))[0], b"{}")
            self.assertEqual(len(calls), fails_at)
            self.assertTrue(all(not key.startswith(b"cache_path:") for key in world.redis.data))

    def test_lives(self):
        short, long = self.world.lives.short, self.world.lives.long
        for path, life in (
            (LINK, short),
            (BLOB, long),
            (V1_TAG, short),
            (f"{IMAGE}/_checksum", short),
            (f"{IMAGE}/json", long),
            (f"{IMAGE}/_files", short),
            ("repositories/library/x/_index_images", short),
        ):
            self.world.redis.data.clear()
            filled(self.world, path, b"1")
            (key,) = self.keys()
            self.assertEqual(self.world.redis.data[key][1], self.world.clock.seconds() + life, path)

    def test_never_cached(self):
        driver = self.world.node()
        for path in (
            "repositories/library/x/_private",
            "repositories/library/x/_images_list",
            f"{IMAGE}/_inprogress",
            f"{IMAGE}/layer",
            "docker/registry/v2/repositories/a/_uploads/u/startedat",
            "_txregistry/state/v1/x/push",
            "_txregistry/index/referrers/a/_indexed",
        ):
            sent = len(self.world.redis.commands)
            result_of(driver.put(path, b"1"))
            result_of(driver.cached.read(path, 10))
            result_of(driver.remove(path))
            self.assertEqual(len(self.world.redis.commands), sent, path)
        self.assertEqual(self.world.redis.data, {})

    def test_large_objects_are_not_kept(self):
        filled(self.world, LINK, bytes(LARGEST + 1))
        self.assertEqual(self.keys(), set())
        filled(self.world, LINK, bytes(LARGEST))
        self.assertEqual(len(self.keys()), 1)

    def test_stores_of_one_root_do_not_meet(self):
        filled(self.world, V1_TAG, b"one")
        self.world.contents.objects.clear()
        other = self.world.node(store=("s3", "other-bucket")).cached
        self.failureResultOf(other.read(V1_TAG, 10), NotFound)
        self.assertEqual(result_of(self.world.node().cached.read(V1_TAG, 10))[0], b"one")

    def test_the_original_does_not_go_on_with_what_we_changed(self):
        """All that it cached is deleted with our change, be it of no use to us."""
        for path in (V1_TAG, f"{IMAGE}/json", "repositories/library/x/json"):
            key = b"cache_path:/prod" + path.encode()
            for change in ("put", "remove"):
                self.world.redis.data[key] = (b"old", None)
                node = self.world.node()
                changing: Deferred[Any] = node.put(path, b"1") if change == "put" else node.remove(path)
                result_of(changing)
                self.assertNotIn(key, self.world.redis.data, (path, change))

    def test_entries_without_a_life_are_not_believed(self):
        """The original, still running, puts them there before it writes to the store."""
        path = f"{IMAGE}/_checksum"
        key = b"cache_path:/prod" + path.encode()
        driver = self.world.node()
        result_of(driver.put(path, b"right"))
        self.world.redis.data[key] = (b"wrong", None)
        self.assertEqual(result_of(driver.cached.read(path, 10))[0], b"right")
        self.assertEqual(result_of(driver.cached.read(path, 10))[0], b"right")
        self.assertEqual(self.world.redis.data[key], (b"right", self.world.clock.seconds() + 30))

    def test_entries_without_a_life_are_dropped_at_start(self):
        self.world = World(root="/p[ro]d*")
        data = self.world.redis.data
        for number in range(1300):
            data[b"cache_path:/p[ro]d*images/%d/json" % number] = (b"{}", None)
        kept = {b"cache_path:/otherimages/1/json": (b"{}", None), b"diff-worker": (b"x", None)}
        data.update(kept)
        alive = {b"cache_path:/p[ro]d*images/x/json": (b"{}", self.world.clock.seconds() + 99)}
        data.update(alive)
        self.world.node()
        for _ in range(40):
            self.world.clock.advance(0.01)
        left = {key for key in data if key not in kept and key not in alive}
        # The fake's cursor is a position, which moves as keys go; a real one does not lose keys.
        self.assertLess(len(left), 1300)
        for _ in range(4):
            self.world.node()
            for _ in range(40):
                self.world.clock.advance(0.01)
        self.assertEqual(data, {**kept, **alive})


class DeleteTests(SynchronousTestCase):
    def test_below_a_directory(self):
        """A directory's objects go from Redis too, and nothing else."""
        cases = [
            (TAG, [LINK, f"{TAG}/index/sha256/aa/link"], f"{TAG}2/current/link"),
            ("repositories/library/x", [V1_TAG, "repositories/library/x/json"], "repositories/library/xx/json"),
            (TAG[:-6] + "link", [TAG[:-6] + "link/current/link"], LINK),
            (IMAGE, [f"{IMAGE}/json", f"{IMAGE}/_checksum"], f"{IMAGE}0/_checksum"),
        ]
        for directory, paths, other in cases:
            world = World()
            for path in (*paths, other):
                filled(world, path, path.encode())
            world.clock.advance(0)
            result_of(world.node().remove(directory))
            world.contents.objects.clear()
            reader = world.node().cached
            for path in paths:
                self.assertIsNotNone(failure_of(reader.read(path, 1000)), path)
            self.assertEqual(result_of(reader.read(other, 1000))[0], other.encode())

    def test_moves_and_commits(self):
        world = World()
        for path in (LINK, V1_TAG, "a/b"):
            filled(world, path, b"old")
        driver = world.node()
        result_of(driver.move(LINK, V1_TAG))
        self.failureResultOf(world.node().cached.read(LINK, 10), NotFound)
        result_of(driver.put(V1_TAG, b"new"))
        self.assertEqual(result_of(world.node().cached.read(V1_TAG, 10))[0], b"new")
        upload = result_of(driver.partial("docker/registry/v2/repositories/a/_uploads/u", create=True))
        result_of(upload.write([b"committed"], 0))
        result_of(upload.commit("a/b"))
        self.assertEqual(result_of(world.node().cached.read("a/b", 10))[0], b"committed")

    def test_a_failed_change_is_told_too(self):
        """An engine that did not answer may have done it."""
        world = World()
        filled(world, LINK, b"old")
        driver = world.node()

        def put(path: str, data: bytes, *_: Any) -> Deferred[Any]:
            result_of(MemoryDriver(world.clock, contents=world.contents).put(path, data))
            raise Unavailable(path)

        self.patch(driver._inner, "put", put)
        self.assertIsNotNone(failure_of(driver.put(LINK, b"new")))
        self.assertEqual(result_of(world.node().cached.read(LINK, 10))[0], b"new")

    def test_a_lost_race_clears_what_lost_it(self):
        world = World()
        driver = world.node()
        version = result_of(driver.put(LINK, b"1"))
        world.clock.advance(10)
        result_of(driver.cached.read(LINK, 10))
        result_of(MemoryDriver(world.clock, contents=world.contents).put(LINK, b"2"))  # and Redis is not told
        self.failureResultOf(driver.put(LINK, b"3", if_match=version), LostRace)
        self.assertEqual(result_of(driver.cached.read(LINK, 10))[0], b"2")


class InterleavingTests(SynchronousTestCase):
    """Readers and writers on different nodes, in every order of their steps."""

    def run_all(self, path: str, before: bytes | None, *changes: Any, pause: float = 0.0) -> int:
        """All orders of one reader and the writers; old values may be seen for no longer than a short life.

        With a `pause` that much time passes before each step. How many ended with an old value in Redis.
        """
        late = 0
        orders = 0

        def make() -> World:
            world = World(Lives(guard=2.0))
            if before is not None:
                result_of(world.node().put(path, before))
                world.clock.advance(world.lives.guard)
            nodes = [world.node(f"writer {number}") for number in range(len(changes))]
            reader = world.node("reader").cached
            step = world.stage.step

            def paused(actor: str) -> None:
                world.clock.advance(pause)
                step(actor)

            self.patch(world.stage, "step", paused)
            world.stage.held = True
            start(self.look(reader, path))
            for node, change in zip(nodes, changes, strict=True):
                ensureDeferred(change(node))
            return world

        for order, world in interleavings(make):
            orders += 1
            world.stage.held = False
            found = world.contents.objects.get(path)
            now = None if found is None else found.data
            # Nobody changes it any more: the age of an old value is at least the time since here.
            ended = world.clock.seconds()
            for wait in (0, 1, 14, 14.9, 0.1, 600):
                world.clock.advance(wait)
                age = world.clock.seconds() - ended
                for node in (world.node(), world.node()):
                    seen = result_of(start(self.look(node.cached, path)))
                    if seen != now:
                        self.assertLess(age, world.lives.short, (order, seen))
                        late += age == 0
        self.assertGreater(orders, 5)
        return late

    async def look(self, driver: IStorageDriver, path: str) -> bytes | None:
        try:
            return (await driver.read(path, 1000))[0]
        except NotFound:
            return None

    def test_put(self):
        self.assertEqual(self.run_all(LINK, b"old", lambda node: node.put(LINK, b"new")), 0)
        self.assertEqual(self.run_all(V1_TAG, b"old", lambda node: node.put(V1_TAG, b"new")), 0)

    def test_remove(self):
        self.assertEqual(self.run_all(LINK, b"old", lambda node: node.remove(LINK)), 0)
        self.assertEqual(self.run_all(V1_TAG, b"old", lambda node: node.remove(V1_TAG)), 0)

    def test_remove_of_a_directory(self):
        self.assertEqual(self.run_all(LINK, b"old", lambda node: node.remove(TAG)), 0)

    def test_two_writers(self):
        changes = [lambda node: node.put(LINK, b"one"), lambda node: node.put(LINK, b"two")]
        self.assertEqual(self.run_all(LINK, b"old", *changes), 0)

    def test_a_writer_and_a_remover(self):
        async def remove(node: IStorageDriver) -> None:
            with contextlib.suppress(NotFound):
                await node.remove(TAG)

        self.assertEqual(self.run_all(LINK, None, lambda node: node.put(LINK, b"one"), remove), 0)

    def test_a_reader_slower_than_the_guard_leaves_an_old_value_for_a_life_at_most(self):
        """Without this the tests above would prove nothing of lives: here old values do get into Redis."""
        self.assertGreater(self.run_all(LINK, b"old", lambda node: node.put(LINK, b"new"), pause=3.0), 0)
        self.assertGreater(self.run_all(LINK, b"old", lambda node: node.remove(LINK), pause=3.0), 0)

    def test_a_checksum_whose_key_cannot_be_guarded(self):
        path = f"{IMAGE}/_checksum"
        self.assertGreater(self.run_all(path, b"old", lambda node: node.put(path, b"new")), 0)

    def test_json_that_is_replaced_while_it_is_pushed(self):
        """What is cached for long is what was finished, whatever a reader saw on the way."""
        path = f"{IMAGE}/json"

        async def push(node: IStorageDriver) -> None:
            await node.put(f"{IMAGE}/_inprogress", b"true")
            await node.put(path, b"first")
            await node.put(path, b"second")
            await node.remove(f"{IMAGE}/_inprogress")

        self.run_all(path, None, push)
        self.run_all(path, None, push, pause=3.0)


class OutageTests(SynchronousTestCase):
    def setUp(self):
        self.world = World()
        self.clock = self.world.clock

    def read(self, driver: CachedDriver, path: str = LINK) -> bytes:
        """What a client is served now; storage alone has to do if Redis says nothing."""
        reading = driver.cached.read(path, 1000)
        self.clock.advance(0.25)
        return result_of(reading)[0]

    def commands(self) -> int:
        return len(self.world.redis.commands)

    def test_gone_at_start(self):
        self.world.redis.alive = False
        driver = self.world.node()
        result_of(driver.put(LINK, b"1"))
        self.assertEqual(result_of(driver.cached.read(LINK, 10))[0], b"1")
        self.world.redis.alive = True
        self.clock.pump([0.5, 10])
        result_of(driver.cached.read(LINK, 10))
        self.world.contents.objects.clear()
        self.assertEqual(result_of(driver.cached.read(LINK, 10))[0], b"1")

    def test_silent(self):
        """The first request waits for a moment, the others not at all."""
        filled(self.world, LINK, b"1")
        driver = self.world.node()
        self.world.redis.answers = False
        reading = driver.cached.read(LINK, 10)
        self.assertNoResult(reading)
        self.clock.advance(0.25)
        self.assertEqual(result_of(reading)[0], b"1")
        for _ in range(3):
            self.assertEqual(result_of(driver.cached.read(LINK, 10))[0], b"1")
            result_of(driver.put(LINK, b"1"))

    def test_a_put_while_silent(self):
        driver = self.world.node()
        self.world.redis.answers = False
        putting = driver.put(LINK, b"1")
        self.clock.advance(0.25)
        result_of(putting)
        result_of(driver.put(LINK, b"2"))

    def test_a_key_whose_change_is_under_way_is_not_asked_for(self):
        filled(self.world, LINK, b"old")
        driver = self.world.node()
        self.world.redis.answers = False
        putting = driver.put(LINK, b"new")
        self.assertNoResult(putting)
        self.assertEqual(result_of(driver.cached.read(LINK, 10))[0], b"new")
        self.world.redis.wake()
        result_of(putting)

    def test_what_changed_while_it_was_gone_is_told_when_it_is_back(self):
        filled(self.world, LINK, b"old")
        filled(self.world, V1_TAG, b"old")
        driver = self.world.node()
        self.world.redis.alive = False
        result_of(driver.cached.read(LINK, 10))
        result_of(driver.put(LINK, b"new"))
        result_of(driver.remove(V1_TAG))
        self.world.redis.alive = True
        self.clock.pump([0.5, 0.1])
        self.assertTrue(driver._cache.usable([b"any"]))
        for node in (driver, self.world.node()):
            self.assertEqual(self.read(node), b"new")
            self.failureResultOf(node.cached.read(V1_TAG, 10), NotFound)

    def test_a_cancelled_put_is_told_all_the_same(self):
        filled(self.world, LINK, b"old")
        driver = self.world.node("writer")
        self.world.stage.held = True
        putting = driver.put(LINK, b"new")
        self.world.stage.step("writer")  # the store has it
        putting.cancel()
        putting.cancel()
        self.world.stage.step("writer")
        self.assertIsNotNone(failure_of(putting))
        self.world.stage.held = False
        self.assertEqual(result_of(self.world.node().cached.read(LINK, 10))[0], b"new")

    def test_what_it_was_not_told_is_not_asked_for(self):
        """Not before the key was deleted with an answer; other keys neither, until Redis answers at all."""
        filled(self.world, LINK, b"old")
        driver = self.world.node()
        self.world.redis.answers = False
        putting = driver.put(LINK, b"new")
        self.clock.advance(0.25)
        result_of(putting)
        self.assertEqual(self.read(driver), b"new")
        self.clock.pump([0.25] * 20)
        self.assertEqual(self.read(driver), b"new")
        self.world.redis.wake()
        self.assertEqual(self.read(driver), b"new")
        self.clock.pump([1.0] * 10)
        self.assertTrue(driver._cache.usable([b"any"]))
        self.assertEqual(self.read(driver), b"new")
        self.assertEqual(self.read(self.world.node()), b"new")

    def test_a_fill_that_comes_after_the_deletion(self):
        """Overtaken: it was sent before, and Redis runs it last. In every order of what is in its sockets."""
        for number in range(24):
            world = self.world = World()
            self.clock = world.clock
            result_of(world.node().put(LINK, b"old"))
            self.clock.advance(20)
            one, two = world.node("one"), world.node("two")
            world.stage.held = True
            reading = one.cached.read(LINK, 10)
            world.stage.step("one")  # nothing in Redis
            world.stage.step("one")  # the old value from the store
            world.stage.held = False
            world.redis.answers = False
            world.stage.step("one")  # the fill is sent
            putting = two.put(LINK, b"new")
            changed = self.clock.seconds()
            self.clock.advance(0.25)
            self.assertEqual(result_of(reading)[0], b"old")
            result_of(putting)
            self.clock.pump([0.25] * 12)
            world.redis.wake(partial(permuted, number))
            for _ in range(70):
                for node in (one, two, world.node()):
                    if self.read(node) != b"new":
                        self.assertLess(self.clock.seconds() - changed, world.lives.short + 1)
                self.assertEqual(self.read(two), b"new")
            self.assertGreater(self.clock.seconds() - changed, world.lives.short)

    def test_a_late_fill_is_not_believed_after_its_time(self):
        """Redis was paused for longer than the life: an entry is as old as what it holds."""
        result_of(self.world.node().put(LINK, b"old"))
        self.clock.advance(20)
        driver = self.world.node("one")
        self.world.stage.held = True
        reading = driver.cached.read(LINK, 10)
        self.world.stage.step("one")
        self.world.stage.step("one")
        self.world.stage.held = False
        self.world.redis.answers = False
        self.world.stage.step("one")
        self.clock.advance(0.25)
        result_of(reading)
        self.world.contents.objects[LINK].data = b"new"  # by a node that could not tell anybody
        self.clock.pump([31, 0.25])
        self.world.redis.wake()
        self.assertTrue(any(b"old" in value for value, _ in self.world.redis.data.values()))
        self.assertEqual(self.read(self.world.node()), b"new")

    def test_full(self):
        """Nothing is filled any more; what changes is still deleted, and Redis still used."""
        filled(self.world, LINK, b"old")
        driver = self.world.node()
        self.world.redis.full = True
        result_of(driver.cached.read(V1_TAG.replace("x", "y"), 10).addErrback(lambda _: None))
        result_of(driver.put(V1_TAG, b"1"))
        with capturedLogs() as events:
            self.assertEqual(self.read(driver, V1_TAG), b"1")
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
        result_of(driver.put(LINK, b"new"))
        self.assertEqual(self.read(self.world.node()), b"new")
        self.assertTrue(driver._cache.usable([b"any"]))

    def test_flushed(self):
        filled(self.world, LINK, b"1")
        driver = self.world.node()
        self.world.redis.data.clear()
        self.assertEqual(self.read(driver), b"1")
        self.assertEqual(len(self.world.redis.data), 1)

    def test_one_warning_a_minute(self):
        self.world.redis.alive = False
        with capturedLogs() as events:
            driver = self.world.node()
            for number in range(1200):
                self.clock.advance(0.1)
                result_of(driver.put(LINK, b"%d" % number))
                result_of(driver.cached.read(LINK, 10))
        warnings = [event for event in events if event["log_level"] == LogLevel.warn]
        self.assertIn(len(warnings), (2, 3))
        self.assertNotIn("password", str(warnings))
        self.world.redis.alive = True
        with capturedLogs() as events:
            self.clock.pump([1.0] * 31)
        self.assertEqual([event["log_format"] for event in events], ["Redis at {where} answers"])

    def test_it_is_asked_less_and_less_often(self):
        self.world.redis.alive = False
        tried: list[float] = []

        def take(redis: FakeRedis, command: tuple[bytes, ...]) -> Any:
            tried.append(self.clock.seconds())
            return original(redis, command)

        original = FakeRedis.take
        self.patch(FakeRedis, "take", take)
        self.world.node()
        self.clock.pump([0.5] * 400)
        moments = sorted(set(tried))
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        self.assertEqual(gaps[:7], [0.5, 1, 2, 4, 8, 16, 30])
        self.assertEqual(set(gaps[7:]), {30.0})

    def test_more_changes_than_can_be_remembered(self):
        """Nothing is asked for until all that Redis holds has died."""
        filled(self.world, LINK, b"old")
        driver = self.world.node()
        self.world.redis.alive = False
        for number in range(10_001):
            result_of(driver.put(f"a/{number}", b""))
        result_of(driver.put(LINK, b"new"))
        self.assertLess(len(driver._cache._unsure), 10_000)
        self.world.redis.alive = True
        self.clock.pump([1.0] * 40)
        self.assertFalse(driver._cache.usable([b"any"]))
        self.clock.advance(3600)
        self.assertTrue(driver._cache.usable([b"any"]))

    def test_closed(self):
        driver = self.world.node()
        result_of(driver.close())
        self.world.redis.alive = False
        result_of(driver.put(LINK, b"1"))
        self.assertEqual(result_of(driver.cached.read(LINK, 10))[0], b"1")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_while_it_is_out_of_reach(self):
        self.world.redis.alive = False
        driver = self.world.node()
        result_of(driver.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])


def permuted(number: int, items: list[Any]) -> list[Any]:
    """One of the orders of a few items."""
    orders = itertools.permutations(items)
    return list(next(itertools.islice(orders, number * 7 % 24, None), tuple(items)))
