"""Waiting for what may never end."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed  # noqa: A004 - Twisted's own
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.concurrency import Patient, within


class WithinTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()

    def test_in_time(self):
        work: Deferred[int] = Deferred()
        due = within(work, 5, self.clock)
        self.clock.advance(4)
        self.assertNoResult(due)
        work.callback(3)
        self.assertEqual(self.successResultOf(due), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self):
        self.assertEqual(self.successResultOf(within(succeed(3), 5, self.clock)), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure(self):
        work: Deferred[int] = Deferred()
        due = within(work, 5, self.clock)
        work.errback(OSError("gone"))
        self.failureResultOf(due, OSError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self):
        cancelled: list[Any] = []
        due: Deferred[None] = within(Deferred(cancelled.append), 5, self.clock)
        self.clock.advance(5)
        self.failureResultOf(due, TimeoutError)
        self.assertEqual(len(cancelled), 1)

    def test_what_takes_no_notice_of_a_cancel(self):
        for outcome in ("result", "failure"):
            work: Patient[int] = Patient()
            due = within(work, 5, self.clock)
            self.clock.advance(5)
            self.failureResultOf(due, TimeoutError)
            if outcome == "result":
                work.deliver(3)
            else:
                work.errback(OSError("gone"))
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_cancel_from_outside(self):
        cancelled: list[Any] = []
        due: Deferred[None] = within(Deferred(cancelled.append), 5, self.clock)
        due.cancel()
        self.failureResultOf(due, CancelledError)
        self.assertEqual(len(cancelled), 1)
        self.clock.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
