"""How much memory the bytes of all partial objects may take that were not sent to the store yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class Unsent(Generic[Holder]):
    """The unsent bytes of all partial objects of a process, by holder; threads may share it.

    It bounds nothing by itself: whoever adds to it lets those send theirs that have added nothing for longest.
    """

    def __init__(self, limit: int = 48 * 1024 * 1024) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: dict[Holder, int] = {}

    @property
    def exceeded(self) -> bool:
        """Whether there are too many."""
        return self.total > self._limit

    @property
    def total(self) -> int:
        """All of them, in bytes."""
        with self._lock:
            return sum(self._held.values())

    def note(self, holder: Holder, size: int) -> None:
        """A holder has so many bytes now, as the one that moved last; none with 0."""
        with self._lock:
            self._held.pop(holder, None)
            if size:
                self._held[holder] = size

    def others(self, but: Holder) -> Sequence[Holder]:
        """All holders but one; those first that have moved nothing for longest."""
        with self._lock:
            return [holder for holder in self._held if holder is not but]

    def left(self, holder: Holder, size: int) -> None:
        """A holder has sent all but so many bytes, without which its place among the others does not change."""
        with self._lock:
            if holder in self._held:
                self._held[holder] = size
