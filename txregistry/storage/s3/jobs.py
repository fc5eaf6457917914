"""Several jobs as one piece of work, which like each of them is not over before it has ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

from txregistry.concurrency import Patient, start

T = TypeVar("T")


def patient(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run a coroutine to its end, cancelled or not."""
    outer: Patient[T] = Patient()
    start(coroutine).addBoth(outer.deliver)
    return outer


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
