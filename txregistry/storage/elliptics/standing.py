"""Which groups have everything: what lets one group answer alone, though a write needs only one; blocking.

With a quorum below what a reader needs (two groups, of which one makes a write) the overlap of readers and writers
is gone as soon as a group is down: alone, a group cannot know what the other took without it. The registry can.
A group is **complete** when

* it is a member: it was compared once with all the others, so that it is no empty disk in the place of a full one;
* each other group either answered and had no note of anything that this one missed, or was away and this one holds a
  mark that it went on without that;
* its server has not gone since: a connection that is used for nothing else would have ended, and while it was away
  another registry may have written without it; and
* no write of this process missed it since.

A reader may trust a complete group alone, and a write that a group missed stands only if a complete one took it. So
of two groups only one can go on without the other: the second is not complete before it has what it missed, and the
first one's mark is taken back before that. What cannot be told is answered with `Unavailable`.

Where two registries reach only one group each, while both groups run, both go on, and of two writes of one object the
later counts as soon as somebody sees both. Where one registry alone misses a group, the others learn that from its
notes at their next look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from txregistry.storage.elliptics.connection import Connection


class Standing:
    """What one process knows of the groups; `connect` makes a connection to a group."""

    def __init__(self, connect: Callable[[int], Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._misses: dict[int, int] = {}
        self._witnesses: dict[int, Connection] = {}

    def complete(self, group: int) -> bool:
        """Whether the group is known to have every acknowledged write. Ask after reading, not before."""
        with self._lock:
            witness = self._witnesses.get(group)
            if witness is None or not witness.ended:
                return witness is not None
            self._drop(group)
            return False

    def missed(self, group: int) -> None:
        """The group missed something. Called after that was noted in another one, and before it is acknowledged."""
        with self._lock:
            self._misses[group] = self._misses.get(group, 0) + 1
            self._drop(group)

    def examine(self, group: int) -> Examination:
        """Begin to look whether a group is complete, before the notes in the others are read. Lost."""
        with self._lock:
            misses = self._misses.get(group, 0)
        return Examination(group, misses, self._connect(group))

    def passed(self, examination: Examination) -> None:
        """It is complete, unless it missed something meanwhile."""
        group = examination.group
        with self._lock:
            if self._misses.get(group, 0) == examination.misses:
                self._drop(group)
                self._witnesses[group] = examination.witness
                return
        examination.witness.close()

    def close(self) -> None:
        """Trust no group any more."""
        with self._lock:
            for group in list(self._witnesses):
                self._drop(group)

    def _drop(self, group: int) -> None:
        witness = self._witnesses.pop(group, None)
        if witness is not None:
            witness.close()


class Examination:
    """A look whether a group is complete: how often it had missed something, and a connection from before the look."""

    def __init__(self, group: int, misses: int, witness: Connection) -> None:
        self.group, self.misses, self.witness = group, misses, witness
