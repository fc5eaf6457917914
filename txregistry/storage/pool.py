"""The only way to a thread: a pool of our own, with two lanes, whose Deferreds wait for their job.

A thread cannot be stopped. So a job that was handed over runs, whatever becomes of whoever asked for it: one that
never ran would leave a hole in a file, and one that was given up while it ran would still write. A job therefore
owns what it works on, and must never wait for a client.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from txregistry.concurrency import Patient
from txregistry.errors import Unavailable
from txregistry.interfaces import IPool

T = TypeVar("T")


class Lanes(Protocol):
    """What a driver needs of a pool; `IPool` with the type of each job's result."""

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run a job in the bulk lane."""
        ...

    def run_small(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run a job in the lane of small objects."""
        ...

    def stop(self) -> Deferred[None]:
        """Wait for all jobs and end the threads."""
        ...


class _Lane:
    """One thread pool; `unfinished` counts the jobs whose results have not been delivered.

    The standard library's pool, as it takes half the CPU of Twisted's for a job, which small objects have many of.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int, name: str, idle: Callable[[], None]) -> None:
        self._reactor = reactor
        self._idle = idle
        # No thread before the first job: twistd forks into the background after the pool was made.
        self._threads = ThreadPoolExecutor(size, name)
        self.unfinished = 0

    def run(self, function: Callable[..., T], args: tuple[object, ...]) -> Deferred[T]:
        result: Patient[T] = Patient()
        self.unfinished += 1

        def job() -> None:  # in the thread
            value: T | Failure
            try:
                value = function(*args)
            except BaseException:
                value = Failure()
            self._reactor.callFromThread(self._deliver, result, value)

        self._threads.submit(job)
        return result

    def _deliver(self, result: Patient[T], value: T | Failure) -> None:
        self.unfinished -= 1
        result.deliver(value)
        if not self.unfinished:
            self._idle()

    def stop(self) -> None:
        self._threads.shutdown()


@implementer(IPool)
class Pool:
    """`size` threads for large data and `small` of their own for manifests, links and other small objects."""

    def __init__(self, reactor: IReactorFromThreads, size: int = 8, small: int = 4) -> None:
        self._bulk = _Lane(reactor, size, "bulk", self._idle)
        self._small = _Lane(reactor, small, "small", self._idle)
        self._stopping: list[Deferred[None]] = []
        self._stopped = False

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run `function` in a thread of the bulk lane; Unavailable once the pool is stopped."""
        return self._run(self._bulk, function, args)

    def run_small(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """The same in the lane of small objects, which no large upload can fill."""
        return self._run(self._small, function, args)

    def _run(self, lane: _Lane, function: Callable[..., T], args: tuple[object, ...]) -> Deferred[T]:
        if self._stopped:
            return fail(Unavailable("", "the server is shutting down"))
        return lane.run(function, args)

    def stop(self) -> Deferred[None]:
        """Wait for all jobs, those that their results start included, and end the threads."""
        if self._stopped:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._stopping.append(waiting)
        self._idle()
        return waiting

    def _idle(self) -> None:
        """End the threads if that is wished and nothing runs; joining idle threads takes no time."""
        if not self._stopping or self._bulk.unfinished or self._small.unfinished:
            return
        self._stopped = True
        self._bulk.stop()
        self._small.stop()
        stopping, self._stopping = self._stopping, []
        for waiting in stopping:
            waiting.callback(None)
