"""Several pieces of work as one, or one on behalf of several who ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from txregistry.concurrency import Patient, start

T = TypeVar("T")


def patient(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run a coroutine to its end, cancelled or not."""
    outer: Patient[T] = Patient()
    start(coroutine).addBoth(outer.deliver)
    return outer


async def all_of(works: Sequence[Deferred[T]]) -> list[T]:
    """The results of all, of which none is under way any more, even when one has failed."""
    outcomes: list[tuple[bool, Any]] = await DeferredList(works, consumeErrors=True)
    for fine, outcome in outcomes:
        if not fine:
            outcome.raiseException()
    return [outcome for _, outcome in outcomes]


async def in_order(
    works: Iterable[Callable[[], Deferred[T]]], width: int, between: Callable[[], Awaitable[None]]
) -> list[T]:
    """The results of jobs, of which `width` are under way at once; none is any more when one has failed.

    `between` is called, and waited for, after each result.
    """
    results: list[T] = []
    under_way: deque[Deferred[T]] = deque()
    try:
        for work in works:
            if len(under_way) >= width:
                results.append(await under_way.popleft())
                await between()
            under_way.append(work())
        while under_way:
            results.append(await under_way.popleft())
        return results
    finally:
        # Empty unless one has failed, whose failure outweighs theirs.
        await DeferredList(under_way, consumeErrors=True)


class Shared(Generic[T]):
    """Work that is done once on behalf of all who ask while it goes on; `work` begins it."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._waiting: list[Deferred[T]] | None = None

    def ask(self) -> Deferred[T]:
        """The result of the work under way, or of a new one. Whoever cancels it leaves it to the others."""
        waiter: Deferred[T] = Deferred()
        if self._waiting is not None:
            self._waiting.append(waiter)
            return waiter
        self._waiting = [waiter]
        start(self._work()).addBoth(self._ended)
        return waiter

    def _ended(self, result: T | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for waiter in waiting:
            if waiter.called:  # it was cancelled
                continue
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(result)
