"""Two servers and one upload: one stalls or dies before any of its requests, or both come at the same moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.swift.base import SmallSegments, driver_on
from tests.storage.swift.fake import FakeHttp, FakeSwift, Reply, Request
from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NotFound, Unavailable


class OvertakenTests(SmallSegments):
    """A holder stalls before each of its requests while another one takes over; then it wakes."""

    async def _take_over(self, end: str) -> None:
        self.server.now += 120
        other = driver_on(self.server)
        try:
            taker = await other.partial("u/1")
        except NotFound:  # the commit was too far to be overtaken
            self._ended = True
            return
        self.assertEqual((taker.offset, taker.state), (250, b"saved"))
        if end == "commit":
            await taker.write([b"y" * 250], 250)
            await taker.commit("taken")
        elif end == "cancel":
            await taker.cancel()
        await taker.close()

    _ended = False

    def _stalled(self, at: int, end: str) -> bool:
        """Whether the commit that stalled before its request number `at` was acknowledged."""
        self.server = FakeSwift()
        self.driver = driver_on(self.server)
        partial: Any = self.successResultOf(self.driver.partial("u/1", create=True))
        self.successResultOf(partial.write([b"x" * 250], 0))
        self.successResultOf(partial.checkpoint(b"saved"))
        self.successResultOf(partial.write([b"z" * 250], 250))
        begin, stalled = len(self.server.log), False

        def stall(_request: Request) -> Reply | None:
            nonlocal stalled
            if not stalled and len(self.server.log) - begin == at + 1:
                stalled = True
                self.run_all(self._take_over(end))
            return None

        self.server.fault = stall
        done: Deferred[None] = partial.commit("own")
        failure: list[Any] = []
        done.addErrback(failure.append)
        self.successResultOf(partial.close())
        self.server.fault = lambda _: None
        if failure:
            self.assertTrue(failure[0].check(LostRace, NotFound, Unavailable), failure)
        self.assertTrue(stalled)
        return not failure

    def test_at_each_request_of_a_commit(self) -> None:
        for end in ("commit", "cancel", "close"):
            at, lost = 0, 0
            while not self._ended:
                fine = self._stalled(at, end)
                lost += not fine
                self._look(end, fine)
                at += 1
            self._ended = False
            self.assertGreater(lost, 8, end)

    def test_in_the_middle_of_a_manifest(self) -> None:
        """The server has seen that all segments are there, of which another one then removes some."""
        for end in ("commit", "cancel"):
            self.server = FakeSwift()
            self.driver = driver_on(self.server)
            partial: Any = self.successResultOf(self.driver.partial("u/1", create=True))
            self.successResultOf(partial.write([b"x" * 250], 0))
            self.successResultOf(partial.checkpoint(b"saved"))
            self.successResultOf(partial.write([b"z" * 250], 250))

            def stall(request: Request, end: str = end) -> None:
                if request.path.endswith("/own") and request.method == "PUT":
                    self.server.late = lambda _: None
                    self.run_all(self._take_over(end))

            self.server.late = stall
            self.failureResultOf(partial.commit("own"), LostRace)
            self.successResultOf(partial.close())
            self.failureResultOf(start(self.content("own")), NotFound)
            self._look(end, False)

    def _look(self, end: str, fine: bool) -> None:
        """What was acknowledged is whole, and what can be seen is whole or not at all."""
        if end == "commit" and not self._ended:
            self.assertEqual(self.run_all(self.content("taken")), b"x" * 250 + b"y" * 250)
        try:
            own = self.run_all(self.content("own"))
        except self.failureException as error:
            self.assertIn("NotFound", str(error))
            self.assertFalse(fine)
        else:
            self.assertEqual(own, b"x" * 250 + b"z" * 250)


class KilledTests(SmallSegments):
    """A server dies before each of the requests of a push; another one goes on."""

    DATA = bytes(number % 251 for number in range(700))

    async def _push(self) -> None:
        partial = await self.driver.partial("u/1", create=True)
        await partial.write([self.DATA[:250]], 0)
        await partial.checkpoint(b"saved")
        await partial.write([self.DATA[250:]], 250)
        await partial.commit("blob")

    async def _go_on(self, cancel: bool) -> str:
        """What another server finds."""
        self.server.now += 120
        self.driver = driver_on(self.server)
        try:
            partial = await self.driver.partial("u/1")
        except NotFound:
            return "nothing"
        self.assertIn((partial.offset, partial.state), [(0, b""), (250, b"saved")])
        if cancel:
            await partial.cancel()
        else:
            await partial.write([self.DATA[partial.offset :]], partial.offset)
            await partial.commit("blob")
        await partial.close()
        return "cancelled" if cancel else "blob"

    def _killed(self, at: int, cancel: bool) -> tuple[bool, str]:
        """Whether the push was acknowledged, and what came after it."""
        self.server = FakeSwift()
        self.driver = driver_on(self.server)

        def dead(_request: Request) -> Reply | None:
            if len(self.server.log) > at:
                raise Unavailable("", "dead")
            return None

        self.server.fault = dead
        failed: list[Any] = []
        start(self._push()).addErrback(failed.append)
        self.server.fault = lambda _: None
        return not failed, self.run_all(self._go_on(cancel))

    def test_at_each_request(self) -> None:
        for cancel in (False, True):
            at, fine, seen = 0, False, set()
            while not fine:
                fine, found = self._killed(at, cancel)
                seen.add(found)
                if fine or found == "blob" or "some/ röot/blob" in self.server.containers["c"]:
                    self.assertEqual(self.run_all(self.content("blob")), self.DATA, at)
                self.successResultOf(self.driver.sweep(self.server.now + 1))
                if "some/ röot/blob" in self.server.containers["c"]:
                    self.assertEqual(self.run_all(self.content("blob")), self.DATA, at)
                    self.successResultOf(self.driver.remove("blob"))
                # Records of what has ended go with the partial object's directory.
                left = [key for key in self.keys() if "/records/" not in key]
                self.assertEqual(left, [], at)
                at += 1
            self.assertGreater(at, 20)
            self.assertEqual(seen, {"nothing", "cancelled" if cancel else "blob"})


class Steps:
    """Requests of several, of which a test lets one go on at a time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._waiting: list[tuple[set[object], Deferred[None]]] = []
        self.under_way: set[object] = set()

    def wait(self, what: str) -> Deferred[None]:
        """Fires when it is its turn. A sleep is longer than each request takes that is under way."""
        turn: Deferred[None] = Deferred()
        self._waiting.append((set(self.under_way) if what == "sleep" else set(), turn))
        return turn

    def run(self) -> None:
        """Let all go on to their ends."""
        while self._waiting:
            entry = self._random.choice([entry for entry in self._waiting if not entry[0] & self.under_way])
            self._waiting.remove(entry)
            entry[1].callback(None)


class SteppedHttp(FakeHttp):
    """Requests that go on when they are let, by the step."""

    def __init__(self, server: FakeSwift, steps: Steps) -> None:
        super().__init__(server)
        self._steps = steps

    async def wait(self, what: str) -> None:
        """Until it is this one's turn."""
        await self._steps.wait(what)

    async def open(self, *arguments: Any) -> Any:
        """See Http."""
        this = object()
        self._steps.under_way.add(this)
        try:
            return await super().open(*arguments)
        finally:
            self._steps.under_way.discard(this)


class SameMomentTests(SynchronousTestCase):
    """Requests of several servers in any order."""

    def several(self, seed: int, count: int, work: Callable[[Any, int], Any], prepare: Callable[[Any], Any]) -> Any:
        """The outcomes of `count` servers that do the same on one store."""
        server, steps = FakeSwift(), Steps(seed)
        self.successResultOf(start(prepare(driver_on(server))))
        server.now += 60
        outcomes: list[Any] = []
        for number in range(count):
            driver = driver_on(server, SteppedHttp(server, steps))
            start(work(driver, number)).addBoth(outcomes.append)
        steps.run()
        self.assertEqual(len(outcomes), count)
        return server, outcomes

    def test_one_takes_what_is_free(self) -> None:
        async def prepare(driver: Any) -> None:
            partial = await driver.partial("u/1", create=True)
            await partial.write([b"0123"], 0)
            await partial.checkpoint(b"saved")

        async def work(driver: Any, number: int) -> int | None:
            try:
                partial = await driver.partial("u/1")
                await partial.write([b"%d" % number * 4], 4)
                await partial.checkpoint(b"%d" % number)
            except (Busy, LostRace, NotFound):
                return None
            return number

        won = 0
        for seed in range(150):
            server, outcomes = self.several(seed, 3, work, prepare)
            winners = [outcome for outcome in outcomes if outcome is not None]
            self.assertLessEqual(len(winners), 1, seed)
            info = self.successResultOf(driver_on(server).peek("u/1"))
            if winners:
                self.assertEqual((info.offset, info.state), (8, b"%d" % winners[0]), seed)
            else:
                self.assertEqual((info.offset, info.state), (4, b"saved"), seed)
            won += len(winners)
        self.assertGreater(won, 75)

    def test_one_is_the_first(self) -> None:
        async def prepare(_driver: Any) -> None: ...

        async def work(driver: Any, number: int) -> int | None:
            try:
                await driver.put("a", b"%d" % number, if_absent=True)
            except LostRace:
                return None
            return number

        for seed in range(150):
            server, outcomes = self.several(seed, 4, work, prepare)
            (winner,) = [outcome for outcome in outcomes if outcome is not None]
            self.assertEqual(self.successResultOf(driver_on(server).read("a", 10))[0], b"%d" % winner)

    def test_no_step_of_a_counter_is_lost(self) -> None:
        async def prepare(driver: Any) -> None:
            await driver.put("a", b"0")

        async def work(driver: Any, _number: int) -> None:
            while True:
                data, version = await driver.read("a", 10)
                try:
                    await driver.put("a", b"%d" % (int(data) + 1), if_match=version)
                except LostRace:
                    continue
                return

        for seed in range(60):
            server, outcomes = self.several(seed, 3, work, prepare)
            self.assertEqual(outcomes, [None] * 3)
            self.assertEqual(self.successResultOf(driver_on(server).read("a", 10))[0], b"3")
