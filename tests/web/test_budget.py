"""The memory for bodies that are held as a whole."""

from typing import cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.concurrency import start
from txregistry.errors import BodyTooLarge, TooManyRequests
from txregistry.web.budget import PATIENCE, SMALL, Budget
from txregistry.web.request import RegistryRequest

LARGE = SMALL + 1
LIMIT = 10 * LARGE


class Request:
    """As much of a request as is looked at."""

    def __init__(self, clock, length, come):
        self.site = self.body = self
        self.reactor = clock
        self.length = length
        self.come = come

    async def read(self, limit):
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(limit)
        await self.come
        return b"x"

    def fail(self, error):
        self.come.errback(error)


class BudgetTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.budget = Budget(3 * LARGE)
        self.running = []

    def hold(self, length, come=None):
        """Begin to hold a body of this length, which is here, or comes when `come` fires; what ends it."""
        end: Deferred[None] = Deferred()
        request = cast(RegistryRequest, Request(self.clock, length, come or succeed(None)))

        async def run():
            async with self.budget.body(request, LIMIT) as data:
                self.assertEqual(data, b"x")
                self.running.append(length)
                try:
                    await end
                finally:
                    self.running.remove(length)

        return end, start(run())

    def test_turns(self):
        """Who comes first is first, also if he asks for more; small bodies wait for nobody."""
        first, second = self.hold(LARGE), self.hold(2 * LARGE)
        third, fourth, small = self.hold(LARGE + 1), self.hold(LARGE), self.hold(SMALL)
        self.assertEqual(self.running, [LARGE, 2 * LARGE, SMALL])
        first[0].callback(None)
        self.assertEqual(self.running, [2 * LARGE, SMALL])
        second[0].callback(None)
        self.assertEqual(self.running, [SMALL, LARGE + 1, LARGE])
        for end, _ in (third, fourth, small):
            end.callback(None)
        self.assertEqual(self.running, [])
        self.hold(3 * LARGE)
        self.assertEqual(self.running, [3 * LARGE])

    def test_unknown_lengths_count_as_the_largest(self):
        """Even where that is more than there is."""
        end, _ = self.hold(None)
        self.hold(LARGE)
        self.assertEqual(self.running, [None])
        end.callback(None)
        self.assertEqual(self.running, [LARGE])

    def test_who_gives_up_is_passed_over(self):
        self.hold(LARGE)
        waiting, behind = self.hold(3 * LARGE), self.hold(LARGE)
        self.assertEqual(self.running, [LARGE])
        waiting[1].cancel()
        self.failureResultOf(waiting[1], CancelledError)
        self.assertEqual(self.running, [LARGE, LARGE])
        self.assertNoResult(behind[1])

    def test_slow_bodies(self):
        """They may take their time as long as nobody waits for theirs."""
        slow = [self.hold(LARGE, Deferred()) for _ in range(2)]
        self.clock.advance(10 * PATIENCE)
        here, waiting = self.hold(LARGE), self.hold(LARGE)
        late, small = self.hold(LARGE, Deferred()), self.hold(SMALL, Deferred())
        self.clock.advance(PATIENCE - 1)
        for _, done in (*slow, here, waiting, late, small):
            self.assertNoResult(done)
        self.clock.advance(1)
        for _, done in slow:
            self.failureResultOf(done, TooManyRequests)
        self.assertEqual(self.running, [LARGE, LARGE])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        next_one = self.hold(LARGE)
        self.clock.advance(PATIENCE)
        self.failureResultOf(late[1], TooManyRequests)
        for _, done in (here, waiting, small, next_one):
            self.assertNoResult(done)
        self.assertEqual(self.running, [LARGE, LARGE, LARGE])

    def test_failures_give_back(self):
        for _ in range(5):
            end, done = self.hold(3 * LARGE)
            end.errback(OSError())
            self.failureResultOf(done, OSError)
        end, done = self.hold(LIMIT + 1)
        self.failureResultOf(done, BodyTooLarge)
        self.hold(3 * LARGE)
        self.assertEqual(self.running, [3 * LARGE])
