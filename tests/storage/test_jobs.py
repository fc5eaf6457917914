"""Several pieces of work as one."""

from functools import partial

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from txregistry.concurrency import start
from txregistry.storage.jobs import Shared, all_of, in_order, patient


class AllTests(SynchronousTestCase):
    def test_a_failure_waits_for_the_others(self):
        other: Deferred[int] = Deferred()
        done = start(all_of([fail(ValueError()), other]))
        self.assertNoResult(done)
        other.callback(1)
        self.failureResultOf(done, ValueError)
        self.assertEqual(self.successResultOf(start(all_of([succeed(1), succeed(2)]))), [1, 2])


class OrderTests(SynchronousTestCase):
    def in_order(self, begun, width=2):
        async def between():
            pass

        return start(in_order([partial(self.begin, one) for one in begun], width, between))

    def begin(self, one):
        self.begun.append(one)
        return one

    def setUp(self):
        self.begun = []

    def test_so_many_at_once(self):
        works: list[Deferred[str]] = [Deferred() for _ in range(3)]
        done = self.in_order(works)
        self.assertEqual(self.begun, works[:2])
        works[1].callback("b")
        self.assertEqual(self.begun, works[:2])
        works[0].callback("a")
        self.assertEqual(self.begun, works)
        works[2].callback("c")
        self.assertEqual(self.successResultOf(done), ["a", "b", "c"])

    def test_none_is_under_way_after_a_failure(self):
        works: list[Deferred[str]] = [Deferred() for _ in range(3)]
        done = self.in_order(works)
        works[0].errback(ValueError())
        self.assertNoResult(done)
        works[1].errback(KeyError())
        self.failureResultOf(done, ValueError)
        self.assertEqual(self.begun, works[:2])


class SharedTests(SynchronousTestCase):
    def setUp(self):
        self.asked = []
        self.shared = Shared(self.work)

    async def work(self):
        self.asked.append(Deferred())
        return await self.asked[-1]

    def test_one_for_all(self):
        waiting = [self.shared.ask() for _ in range(2)]
        self.asked[0].callback(1)
        self.assertEqual([self.successResultOf(one) for one in waiting], [1, 1])
        later = self.shared.ask()
        self.asked[1].errback(ValueError())
        self.failureResultOf(later, ValueError)
        self.assertEqual(len(self.asked), 2)

    def test_who_leaves_ends_it_for_nobody(self):
        first, second = self.shared.ask(), self.shared.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.asked[0].callback(1)
        self.assertEqual(self.successResultOf(second), 1)
        self.assertEqual(len(self.asked), 1)


class PatientTests(SynchronousTestCase):
    def test_cancelled_it_goes_on(self):
        work: Deferred[int] = Deferred()
        seen = []

        async def working():
            seen.append(await work)

        patient(working()).addErrback(lambda _: None).cancel()
        self.assertEqual(seen, [])
        work.callback(1)
        self.assertEqual(seen, [1])
