"""Several jobs as one piece of work, which like each of them is not over before it has ended."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

from txregistry.concurrency import Patient, start

T = TypeVar("T")


def patient(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run a coroutine to its end, cancelled or not."""
    outer: Patient[T] = Patient()
    start(coroutine).addBoth(outer.deliver)
    return outer


async def all_of(works: Sequence[Deferred[T]]) -> list[T]:
    """The results of jobs, of which none is under way any more, even when one has failed."""
    outcomes: list[tuple[bool, Any]] = await DeferredList(works, consumeErrors=True)
    for fine, outcome in outcomes:
        if not fine:
            outcome.raiseException()
    return [outcome for _, outcome in outcomes]
