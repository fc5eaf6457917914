"""Servers that die, or sleep and wake up, between any two requests; and Glance down and up again a hundred times."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.storage.glance.base import LAYER, GlanceCase
from tests.storage.glance.fake import URL, FakeGlance
from txregistry.errors import NotFound, StorageError, Unavailable
from txregistry.storage.glance.driver import GlanceDriver
from txregistry.storage.glance.mover import LEASE
from txregistry.storage.glance.records import BYTES, PENDING
from txregistry.storage.glance.store import claim

OLD, NEW = b"the old bytes", b"and the new ones"
ATTEMPT = "_txregistry/state/v1/attempts/one/layer"
#: What may be asked of the alternate.
_VERBS = {"read", "open", "put", "stat", "list", "move", "remove", "partial", "settle"}


class Brake:
    """Lets so many requests of a server through; the next one, and all after it, wait until `release`, or for ever.

    That one was not made yet, or if `after`, its answer is what does not come.
    """

    def __init__(self, limit: int, *, after: bool) -> None:
        self.limit, self.after = limit, after
        self.seen = 0
        self._waiting: list[tuple[Deferred[None], Any]] = []
        self.released = False

    @property
    def hit(self) -> bool:
        return self.seen > self.limit

    async def through(self, call: Callable[[], Any]) -> Any:
        self.seen += 1
        if self.released or self.seen <= self.limit:
            return await call()
        result = None
        if self.after and self.seen == self.limit + 1:
            result = await call()
            await self._wait()
            return result
        await self._wait()
        return await call()

    def _wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if self.released:
            waiting.callback(None)
        else:
            self._waiting.append((waiting, None))
        return waiting

    def release(self) -> None:
        self.released = True
        waiting, self._waiting = self._waiting, []
        for each, _ in waiting:
            each.callback(None)


class BrakedAlternate:
    """An alternate behind a brake."""

    def __init__(self, inner: Any, brake: Brake) -> None:
        self._inner, self._brake = inner, brake

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name not in _VERBS:
            return verb

        def call(*args: Any, **kwargs: Any) -> Any:
            return Deferred.fromCoroutine(self._brake.through(lambda: verb(*args, **kwargs)))

        return call


class BrakedGlance(FakeGlance):
    """A Glance behind a brake."""

    def __init__(self, inner: FakeGlance, brake: Brake) -> None:
        self._inner, self._brake = inner, brake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open(self, method: str, url: str, headers: Any = None, body: Any = None, path: str = "") -> Any:
        if not url.startswith(URL):
            return await self._inner.open(method, url, headers, body, path)
        return await self._brake.through(lambda: self._inner.open(method, url, headers, body, path))


class RaceCase(GlanceCase):
    def braked(self, brake: Brake) -> GlanceDriver:
        driver = self.node(BrakedGlance(self.fake, brake))
        alternate: Any = BrakedAlternate(driver.alternate, brake)
        driver = GlanceDriver(alternate, driver.client, driver.mover._pool, self.clock)
        driver.background._claimed = driver.adoption._scanned = True
        return driver

    def fresh(self) -> GlanceDriver:
        """A store with a layer in Glance, and a server on it that never sleeps."""
        super().setUp()
        driver = self.node()
        self.do(claim(driver.client, driver.alternate))
        self.push(driver, LAYER, OLD)
        self.round(driver)
        return driver

    def seen(self, driver: GlanceDriver) -> bytes | None:
        try:
            return self.bytes_at(driver, LAYER)
        except self.failureException:
            self.fails(NotFound, driver.open(LAYER))
            return None

    def at_rest(self, driver: GlanceDriver) -> bytes | None:
        """Bring everything to rest, and see that nothing is left of anything; what is served then."""
        for _ in range(3):
            self.clock.advance(LEASE + 1)
            self.round(driver)
        record = self.record(driver, LAYER)
        expected = {record.image} if record.state == "glance" else set()
        marks = {name for name, image in self.fake.images.items() if "txregistry" in image.document}
        self.assertEqual(set(self.fake.images) - marks, expected)
        self.assertEqual([path for path in self.contents.objects if path.startswith(PENDING)], [])
        self.clock.advance(25 * 3600)
        self.do(driver.records.sweep(self.clock.seconds() - 24 * 3600))
        self.assertEqual([path for path in self.contents.objects if path.startswith(BYTES)], [])
        return self.seen(driver)


class DeathTests(RaceCase):
    """A server dies at any request, and another goes on."""

    def die(self, prepare: Callable[[GlanceDriver], None], work: Callable[[GlanceDriver], Deferred[Any]],
            allowed: Callable[[bool, bytes | None], bool]) -> int:  # fmt: skip
        points = 0
        for after in (False, True):
            for limit in range(1000):
                alive = self.fresh()
                prepare(alive)
                brake = Brake(limit, after=after)
                outcome: list[Any] = []
                work(self.braked(brake)).addBoth(outcome.append)
                acknowledged = outcome in ([None], [""])
                found = self.seen(alive)
                self.assertTrue(allowed(acknowledged, found), (limit, after, found))
                rested = self.at_rest(alive)
                self.assertTrue(allowed(acknowledged, rested), (limit, after, rested))
                if found is not None:
                    self.assertEqual(rested, found, (limit, after))
                points += brake.hit
                if not brake.hit:
                    self.assertTrue(acknowledged, outcome)
                    break
        return points

    def test_while_moving(self) -> None:
        points = self.die(
            lambda alive: self.push(alive, LAYER, NEW),
            lambda driver: Deferred.fromCoroutine(driver.background.round()),
            lambda acknowledged, found: found == NEW,
        )
        self.assertGreater(points, 30)

    def test_while_committing(self) -> None:
        async def commit(driver: GlanceDriver) -> None:
            partial = await driver.partial("uploads/one", create=True)
            await partial.write([NEW], 0)
            await partial.commit(LAYER)

        points = self.die(
            lambda alive: None,
            lambda driver: Deferred.fromCoroutine(commit(driver)),
            lambda acknowledged, found: found in ((NEW,) if acknowledged else (OLD, NEW)),
        )
        self.assertGreater(points, 6)

    def test_while_putting_a_layer_in_place(self) -> None:
        """As the end of a V1 push does; what died in between is done again by whoever comes next."""
        for repeated in (False, True):

            def prepare(alive: GlanceDriver) -> None:
                self.do(alive.put(ATTEMPT, NEW))

            def allowed(acknowledged: bool, found: bytes | None, repeated: bool = repeated) -> bool:
                return found in ((NEW,) if acknowledged or repeated else (OLD, NEW))

            seen = self.seen

            def seen_after(driver: GlanceDriver, repeated: bool = repeated, seen: Any = self.seen) -> bytes | None:
                if repeated:
                    try:
                        self.do(driver.move(ATTEMPT, LAYER))
                    except self.failureException:
                        self.fails(NotFound, driver.move(ATTEMPT, LAYER))
                found: bytes | None = seen(driver)
                return found

            self.seen = seen_after  # type: ignore[method-assign]
            points = self.die(prepare, lambda driver: driver.move(ATTEMPT, LAYER), allowed)
            self.seen = seen  # type: ignore[method-assign]
            self.assertGreater(points, 8)

    def test_while_deleting(self) -> None:
        points = self.die(
            lambda alive: None,
            lambda driver: driver.remove(LAYER),
            lambda acknowledged, found: found in ((None,) if acknowledged else (OLD, None)),
        )
        self.assertGreater(points, 4)

    def test_while_clearing(self) -> None:
        points = self.die(
            lambda alive: self.do(alive.remove(LAYER)),
            lambda driver: Deferred.fromCoroutine(driver.background.round()),
            lambda acknowledged, found: found is None,
        )
        self.assertGreater(points, 10)


class SleepTests(RaceCase):
    """A server sleeps at any request, another one changes the same thing, and then it wakes up."""

    def sleep(self, work: Callable[[GlanceDriver], Deferred[Any]], change: Callable[[GlanceDriver], None],
              expected: Callable[[bool], tuple[bytes | None, ...]], first: bytes = NEW) -> int:  # fmt: skip
        points = 0
        for clear in (False, True):
            for after in (False, True):
                for limit in range(1000):
                    alive = self.fresh()
                    self.push(alive, LAYER, first)
                    self.do(alive.put(ATTEMPT, b"moved here"))
                    brake = Brake(limit, after=after)
                    outcome: list[Any] = []
                    work(self.braked(brake)).addBoth(outcome.append)
                    change(alive)
                    if clear:
                        for _ in range(2):
                            self.clock.advance(LEASE + 1)
                            self.round(alive)
                    brake.release()
                    self.assertEqual(len(outcome), 1)
                    self.assertIn(self.at_rest(alive), expected(brake.hit), (limit, after, clear, outcome))
                    points += brake.hit
                    if not brake.hit:
                        break
        return points

    @staticmethod
    def moving(driver: GlanceDriver) -> Deferred[Any]:
        return Deferred.fromCoroutine(driver.background.round())

    def test_moving_what_is_replaced(self) -> None:
        points = self.sleep(self.moving, lambda alive: self.push(alive, LAYER, b"newest"), lambda _: (b"newest",))
        self.assertGreater(points, 60)

    def test_moving_what_is_deleted(self) -> None:
        points = self.sleep(self.moving, lambda alive: self.do(alive.remove(LAYER)), lambda _: (None,))
        self.assertGreater(points, 60)

    def test_moving_what_is_deleted_and_made_again(self) -> None:
        def change(alive: GlanceDriver) -> None:
            self.do(alive.remove(LAYER))
            self.clock.advance(LEASE + 1)
            self.round(alive)
            self.push(alive, LAYER, b"again")

        self.assertGreater(self.sleep(self.moving, change, lambda _: (b"again",)), 60)

    def test_moving_what_others_move(self) -> None:
        def change(alive: GlanceDriver) -> None:
            self.clock.advance(LEASE + 1)
            self.round(alive)

        self.assertGreater(self.sleep(self.moving, change, lambda _: (NEW,)), 60)

    def test_deleting_what_is_replaced(self) -> None:
        points = self.sleep(
            lambda driver: driver.remove(LAYER),
            lambda alive: self.push(alive, LAYER, b"newest"),
            lambda overlap: (b"newest", None) if overlap else (b"newest",),
        )
        self.assertGreater(points, 8)

    def test_two_put_the_same_layer_in_place(self) -> None:
        def change(alive: GlanceDriver) -> None:
            try:
                self.do(alive.move(ATTEMPT, LAYER))
            except self.failureException:
                self.fails(NotFound, alive.move(ATTEMPT, LAYER))

        points = self.sleep(
            lambda driver: driver.move(ATTEMPT, LAYER).addErrback(lambda failure: failure.trap(NotFound)),
            change,
            lambda _: (b"moved here",),
        )
        self.assertGreater(points, 20)


class OutageTests(GlanceCase):
    """Glance goes and comes around writes, overwrites and deletes; nothing old is served, nothing deleted rises."""

    def test_a_hundred_rounds(self) -> None:
        figures: Counter[str] = Counter()
        chance = random.Random(20)
        nodes = [self.node(), self.node()]
        self.round(nodes[0])
        paths = [f"images/{number:064x}/layer" for number in range(6)]
        expected: dict[str, bytes | None] = dict.fromkeys(paths)
        fails_in = [0]

        def maybe(method: str, target: str) -> None:
            fails_in[0] -= 1
            if fails_in[0] == 0:
                self.fake.out = True
                raise Unavailable("", "cut off")

        self.fake.before = maybe
        for number in range(100):
            self.fake.out = chance.random() < 0.5
            fails_in[0] = chance.choice([0, chance.randrange(1, 20)])
            for path in chance.sample(paths, 3):
                node = chance.choice(nodes)
                if chance.random() < 0.7:
                    expected[path] = b"%d %d" % (number, chance.randrange(1 << 30))
                    self.push(node, path, expected[path] or b"")
                elif expected[path] is not None:
                    self.do(node.remove(path))
                    expected[path] = None
                self.clock.advance(chance.choice([0, 1, LEASE]))
                if chance.random() < 0.6:
                    Deferred.fromCoroutine(chance.choice(nodes).background.round()).addErrback(
                        lambda failure: failure.trap(StorageError)
                    )
                figures.update(self.look(nodes, expected))
            self.fake.out = False
        fails_in[0] = 0
        found = self.do(nodes[0].reconcile(lambda line: None))
        figures.update(self.look(nodes, expected))
        self.assertEqual((found.left, found.lost), ((), ()))
        self.assertEqual((figures["old"], figures["risen"], figures["lost"]), (0, 0, 0), figures)
        self.assertGreater(figures["right"], 500)
        self.assertGreater(figures["unavailable"], 100)
        alive = {path for path, data in expected.items() if data is not None}
        self.assertEqual(len(self.fake.images), len(alive) + 1)

    def look(self, nodes: list[GlanceDriver], expected: dict[str, bytes | None]) -> Counter[str]:
        """What is served of each path."""
        figures: Counter[str] = Counter()
        for path, data in expected.items():
            for node in nodes:

                async def read(node: GlanceDriver = node, path: str = path) -> bytes | None:
                    try:
                        reader = await node.open(path)
                    except NotFound:
                        return None
                    return b"".join([piece async for piece in reader.chunks(0, reader.size)])

                outcome: list[Any] = []
                Deferred.fromCoroutine(read()).addBoth(outcome.append)
                if outcome == [data]:
                    figures["right"] += 1
                elif isinstance(outcome[0], bytes | None):
                    figures["risen" if data is None else "lost" if outcome[0] is None else "old"] += 1
                else:
                    outcome[0].trap(Unavailable)
                    figures["unavailable"] += 1
        return figures
