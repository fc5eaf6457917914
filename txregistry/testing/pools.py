"""Pools without threads: one that runs a job at once, and one that runs it when it is told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from txregistry.concurrency import Patient
from txregistry.interfaces import IPool

T = TypeVar("T")


def _run(result: Patient[T], function: Callable[..., T], args: tuple[object, ...]) -> None:
    try:
        value = function(*args)
    except BaseException:
        result.deliver(Failure())
    else:
        result.deliver(value)


@implementer(IPool)
class ImmediatePool:
    """Runs a job in the caller's thread before it answers; every Deferred has fired."""

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run a job at once."""
        result: Patient[T] = Patient()
        _run(result, function, args)
        return result

    def run_small(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run a job at once."""
        return self.run(function, *args)

    def stop(self) -> Deferred[None]:
        """There is nothing to wait for."""
        return succeed(None)


@implementer(IPool)
class ManualPool:
    """Keeps jobs until `step` runs the oldest; `waiting` has the lane ("bulk" or "small") of each.

    Between the run of a job and `deliver` it is as in a real pool after the thread has finished and before the
    reactor has heard of it.
    """

    def __init__(self) -> None:
        self._jobs: deque[tuple[str, Patient[Any], Callable[..., Any], tuple[object, ...]]] = deque()
        self._finished: deque[tuple[Patient[Any], Any]] = deque()

    @property
    def waiting(self) -> list[str]:
        """The lanes of the jobs that have not run, oldest first."""
        return [lane for lane, *_ in self._jobs]

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Keep a job of the bulk lane."""
        return self._keep("bulk", function, args)

    def run_small(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Keep a job of the lane of small objects."""
        return self._keep("small", function, args)

    def _keep(self, lane: str, function: Callable[..., T], args: tuple[object, ...]) -> Deferred[T]:
        result: Patient[T] = Patient()
        self._jobs.append((lane, result, function, args))
        return result

    def work(self) -> None:
        """Run the oldest job, and keep its result back."""
        _, result, function, args = self._jobs.popleft()
        try:
            self._finished.append((result, function(*args)))
        except BaseException:
            self._finished.append((result, Failure()))

    def deliver(self) -> None:
        """Hand out the oldest result that was kept back."""
        result, value = self._finished.popleft()
        result.deliver(value)

    def step(self) -> None:
        """Run the oldest job and hand out its result."""
        self.work()
        self.deliver()

    def flush(self) -> None:
        """Run all jobs, those included that their results start."""
        while self._jobs or self._finished:
            if self._finished:
                self.deliver()
            else:
                self.work()

    def stop(self) -> Deferred[None]:
        """Run what is left."""
        self.flush()
        return succeed(None)


def result_of(deferred: Deferred[T]) -> T:
    """The result of a Deferred that must have fired by now, which keeps it; or its exception raised."""
    outcome: list[Any] = []

    def look(result: Any) -> Any:
        outcome.append(result)
        return None if isinstance(result, Failure) else result

    deferred.addBoth(look)
    assert outcome, "the Deferred has not fired"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result
