"""When the background works: soon after a change, again after a failure, and not after the end."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.storage.glance.base import ID, LAYER, GlanceCase
from txregistry.storage.glance.background import EVERY, FIRST, LONGEST_PAUSE, PAUSE, SOON
from txregistry.storage.glance.store import InUse, claim
from txregistry.storage.memory import Contents


class BackgroundTests(GlanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.driver = self.node()
        self.driver.prepare()
        self.clock.advance(FIRST)
        self.addCleanup(lambda: self.do(self.driver.close()))

    def state(self, path: str = LAYER) -> str:
        return self.record(self.driver, path).state

    def test_soon_after_a_change(self) -> None:
        self.push(self.driver, LAYER, b"x")
        self.assertEqual(self.state(), "alternate")
        self.clock.advance(SOON)
        self.assertEqual(self.state(), "glance")

    def test_what_another_left(self) -> None:
        self.push(self.node(), LAYER, b"x")
        self.clock.advance(EVERY)
        self.assertEqual(self.state(), "glance")

    def test_after_an_outage(self) -> None:
        self.fake.out = True
        self.push(self.driver, LAYER, b"x")
        self.clock.advance(SOON)
        asked = self.fake.tokens
        self.push(self.driver, f"images/{'e' * 64}/layer", b"y")
        self.clock.advance(SOON)  # a change does not shorten the pause
        self.assertEqual(self.fake.tokens, asked)
        for pause in (PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE, LONGEST_PAUSE, LONGEST_PAUSE):
            self.clock.advance(pause)
        self.assertEqual(self.state(), "alternate")
        self.fake.out = False
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual((self.state(), self.state(f"images/{'e' * 64}/layer")), ("glance", "glance"))
        self.push(self.driver, LAYER, b"z")
        self.clock.advance(SOON)
        self.assertEqual(self.state(), "glance")

    def test_what_fails_alone_holds_nothing_up(self) -> None:
        paths = [f"images/{number:064x}/layer" for number in range(12)]

        def refuse(method: str, target: str) -> None:
            if method == "PUT" and target.split("/")[-2] in claims():
                self.fake.images[target.split("/")[-2]].document["status"] = "killed"

        def claims() -> set[str]:
            return {self.record(self.driver, path).claim for path in paths[:2]}

        for path in paths:
            self.push(self.driver, path, path.encode())
        self.fake.before = refuse
        self.clock.advance(SOON)
        self.assertEqual([self.state(path) for path in paths], ["alternate"] * 2 + ["glance"] * 10)
        self.fake.before = lambda method, target: None
        self.clock.advance(PAUSE)
        self.assertEqual({self.state(path) for path in paths}, {"glance"})

    def test_a_change_while_it_works(self) -> None:
        waiting: Deferred[None] = Deferred()
        load = self.driver.mover.settle

        async def slow(path: str) -> bool:
            await waiting
            return await load(path)

        self.driver.mover.settle = slow  # type: ignore[method-assign]  # something that takes its time
        self.push(self.driver, LAYER, b"x")
        self.clock.advance(SOON)
        self.push(self.driver, f"images/{'e' * 64}/layer", b"y")
        waiting.callback(None)
        self.assertEqual(self.state(f"images/{'e' * 64}/layer"), "alternate")
        self.clock.advance(SOON)
        self.assertEqual(self.state(f"images/{'e' * 64}/layer"), "glance")

    def test_the_end(self) -> None:
        started: list[str] = []

        async def slow(path: str) -> bool:
            started.append(path)
            await Deferred()
            return True

        self.driver.mover.settle = slow  # type: ignore[method-assign]  # something that never ends
        self.push(self.driver, LAYER, b"x")
        self.clock.advance(SOON)
        self.assertEqual(started, [LAYER])
        self.do(self.driver.close())
        self.push(self.driver, LAYER, b"y")
        self.clock.advance(1000)
        self.assertEqual(started, [LAYER])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_mistake_does_not_end_it(self) -> None:
        settle = self.driver.mover.settle

        async def broken(path: str) -> bool:
            raise ZeroDivisionError

        self.driver.mover.settle = broken  # type: ignore[method-assign]  # a mistake
        self.push(self.driver, LAYER, b"x")
        self.clock.advance(SOON)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.driver.mover.settle = settle  # type: ignore[method-assign]
        self.clock.advance(PAUSE)
        self.assertEqual(self.state(), "glance")


class StoreTests(GlanceCase):
    def test_two_servers_of_one_store(self) -> None:
        for _ in range(2):
            driver = self.node()
            self.do(claim(driver.client, driver.alternate))
        self.assertEqual(len(self.fake.images), 1)

    def test_a_second_store_is_refused(self) -> None:
        first = self.node()
        self.push(first, LAYER, b"x")
        self.round(first)
        images = dict(self.fake.images)
        self.contents = Contents()
        second = self.node()
        error = self.fails(InUse, claim(second.client, second.alternate))
        self.assertNotIn("\n", error.reason)
        self.assertIn("storage_alternate", error.reason)
        self.assertEqual(self.fake.images, images)
        self.push(second, f"images/{ID}/layer", b"y")
        self.fails(InUse, second.background.round())
        self.assertEqual(self.fake.images, images)

    def test_of_two_at_once_the_older_one(self) -> None:
        driver = self.node()

        def between(method: str, target: str) -> None:
            if method == "POST":
                self.fake.before = lambda method, target: None
                self.fake.add("older", {"txregistry": "store", "txregistry_store": "x"}, None, created_at="2000")

        self.fake.before = between
        self.fails(InUse, claim(driver.client, driver.alternate))
        self.assertEqual(list(self.fake.images), ["older"])
