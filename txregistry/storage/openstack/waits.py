"""Several pieces of work as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

T = TypeVar("T")


async def all_of(works: Sequence[Deferred[T]]) -> list[T]:
    """The results of all, of which none is under way any more, even when one has failed."""
    outcomes: list[tuple[bool, Any]] = await DeferredList(works, consumeErrors=True)
    for fine, outcome in outcomes:
        if not fine:
            outcome.raiseException()
    return [outcome for _, outcome in outcomes]
