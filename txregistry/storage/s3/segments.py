"""How large the segments of a partial object are, and how much memory all that are not sent yet may take."""

from __future__ import annotations

import threading
from typing import Protocol

#: The smallest part of a multipart upload, the last one aside, in bytes.
SEGMENT = 5 * 1024 * 1024
#: The most parts of an upload, and the largest object, in bytes.
PARTS, LARGEST = 10_000, 5 * 1024**4
#: A segment is this share of all that comes before it: 5 TiB are fewer than 8,000 of them.
SHARE = 1000
_MIB = 1024 * 1024


def segment_size(begin: int) -> int:
    """The size of the segment that begins at this offset, in bytes: 5 MiB in the first 5 GiB, then growing."""
    return max(SEGMENT, -(-(begin // SHARE) // _MIB) * _MIB)


class Spills(Protocol):
    """What has unsent bytes in memory."""

    def spill(self) -> int:
        """Send them, unless it is at work itself; how many bytes it still has. Blocks, and never fails."""
        ...


class Budget:
    """The unsent bytes of all partial objects of a process; threads may share it.

    It bounds nothing by itself: whoever adds to it lets those send theirs that have added nothing for longest.
    """

    def __init__(self, limit: int = 48 * _MIB) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: dict[Spills, int] = {}

    @property
    def exceeded(self) -> bool:
        """Whether there are too many."""
        return self.total > self._limit

    @property
    def total(self) -> int:
        """All of them, in bytes."""
        with self._lock:
            return sum(self._held.values())

    def note(self, holder: Spills, size: int) -> None:
        """A holder has so many bytes now, as the one that moved last; none with 0."""
        with self._lock:
            self._held.pop(holder, None)
            if size:
                self._held[holder] = size

    def relieve(self, but: Spills) -> None:
        """Let others send theirs until enough is free, in the caller's thread."""
        with self._lock:
            others = [holder for holder in self._held if holder is not but]
        for holder in others:
            if not self.exceeded:
                return
            left = holder.spill()
            with self._lock:
                if holder in self._held:
                    self._held[holder] = left
