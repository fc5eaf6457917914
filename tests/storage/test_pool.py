"""The pool: jobs always run, cancels wait, lanes do not block each other, stop waits."""

import threading
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from txregistry.errors import NotFound, Unavailable
from txregistry.interfaces import IPool
from txregistry.storage.pool import Pool
from txregistry.testing.pools import ImmediatePool, ManualPool, result_of


class PoolTests(TestCase):
    def make_pool(self, size=1, small=1):
        pool = Pool(cast(IReactorFromThreads, reactor), size, small)
        self.addCleanup(pool.stop)
        return pool

    def gate(self):
        """An event that opens at the test's end at the latest, so that no thread outlives a failed test."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        return gate

    async def test_results(self):
        """A job runs in a thread; its result and its failure come back to the reactor's."""
        pool = self.make_pool()
        verifyObject(IPool, pool)
        for run in (pool.run, pool.run_small):
            self.assertFalse(await run(isInIOThread))
            self.assertTrue(isInIOThread())
            self.assertEqual(await run(divmod, 7, 2), (3, 1))
            with self.assertRaises(ZeroDivisionError):
                await run(divmod, 7, 0)

    async def test_lanes(self):
        """With all threads of the bulk lane busy and many jobs waiting for one, the small lane answers."""
        pool = self.make_pool(size=2)
        gate = self.gate()
        waiting = [pool.run(gate.wait) for _ in range(40)]
        self.assertEqual(await pool.run_small(divmod, 7, 2), (3, 1))
        self.assertFalse(any(each.called for each in waiting))
        gate.set()
        await gatherResults(waiting)

    async def test_cancelled_while_running(self):
        """The cancel is delivered when the job has returned, not before."""
        pool = self.make_pool()
        begun, gate, ended = self.gate(), self.gate(), []

        def job():
            begun.set()
            gate.wait()
            ended.append(True)

        running = pool.run(job)
        await pool.run_small(begun.wait)
        running.cancel()
        self.assertNoResult(running)
        gate.set()
        with self.assertRaises(CancelledError):
            await running
        self.assertEqual(ended, [True])

    async def test_cancelled_while_queued(self):
        """A job that had not begun runs all the same, in its turn."""
        pool = self.make_pool()
        gate = self.gate()
        order: list[int] = []
        first = pool.run(gate.wait)
        queued = [pool.run(order.append, number) for number in range(5)]
        queued[1].cancel()
        queued[3].cancel()
        gate.set()
        await first
        outcomes: list[bool] = []
        for each in queued:
            each.addCallbacks(lambda _: outcomes.append(True), lambda failure: outcomes.append(False))
            await each
        self.assertEqual(order, [0, 1, 2, 3, 4])
        self.assertEqual(outcomes, [True, False, True, False, True])

    async def test_stop(self):
        """It waits for running and queued jobs and those that their results start; then nothing runs any more."""
        pool = self.make_pool()
        gate = self.gate()
        done: list[str] = []
        pool.run(gate.wait).addCallback(lambda _: pool.run_small(done.append, "started by a result"))
        pool.run(done.append, "queued")
        stopping = pool.stop()
        self.assertNoResult(stopping)
        gate.set()
        await stopping
        self.assertEqual(sorted(done), ["queued", "started by a result"])
        self.failureResultOf(pool.run(done.append, "late"), Unavailable)
        self.successResultOf(pool.stop())
        self.assertEqual(len(done), 2)


class TestPoolsTests(SynchronousTestCase):
    def fail_job(self):
        raise NotFound("x")

    def test_immediate(self):
        pool = ImmediatePool()
        verifyObject(IPool, pool)
        self.assertEqual(result_of(pool.run(divmod, 7, 2)), (3, 1))
        self.failureResultOf(pool.run_small(self.fail_job), NotFound)
        self.successResultOf(pool.stop())

    def test_manual(self):
        pool = ManualPool()
        verifyObject(IPool, pool)
        one, two = pool.run(divmod, 7, 2), pool.run_small(self.fail_job)
        self.assertEqual(pool.waiting, ["bulk", "small"])
        pool.step()
        self.assertEqual(self.successResultOf(one), (3, 1))
        pool.work()
        self.assertNoResult(two)
        pool.deliver()
        self.failureResultOf(two, NotFound)

    def test_result_of(self):
        self.assertRaises(AssertionError, result_of, Deferred())
        self.assertRaises(NotFound, result_of, ImmediatePool().run(self.fail_job))
