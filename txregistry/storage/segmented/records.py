"""The record of a partial object: who holds it, for how long, and what its last checkpoint was.

Records are numbered from 1, and each names the ETag of the one before it. Whoever has written the next one has made a
compare and swap; which of two that is, an engine finds out by what its store promises.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from txregistry.errors import LostRace

#: Seconds after the last byte when a holder may be overtaken, and between two records while bytes flow.
HOLD, RENEW = 5.0, 1.0
#: Seconds of a hold during a commit, in which no byte of a client moves.
COMMIT_HOLD = 60.0


class NeverStood(LostRace):
    """A record lost the race, and it is certain that nobody has built or ever will build on it."""


@dataclass(frozen=True)
class Record:
    """What is known of a partial object to all who may want it; `upload` is the final key and id of a commit's upload.

    It is held for `hold` seconds from when the record was written, by the clock of the store. `segments` are key and
    size of each, and `moved` is when bytes last moved, in seconds of the epoch.
    `previous` is the ETag of the record with the number before, and `nonce` sees to it that no two ETags are equal.
    """

    previous: str = ""
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    hold: float = 0.0
    moved: float = 0.0
    offset: int = 0
    state: bytes = b""
    segments: tuple[tuple[str, int], ...] = ()
    upload: tuple[str, str] | None = None
    ended: bool = False

    @property
    def names(self) -> AbstractSet[str]:
        """The keys of its segments."""
        return {name for name, _ in self.segments}

    def is_held(self, age: float) -> bool:
        """Whether its hold lasts, when it was written so many seconds ago; ages are differences of whole seconds."""
        return self.hold > 0 and age < self.hold + 1

    def follows(self, number: int, before: str | None) -> bool:
        """Whether it belongs to a chain as its record `number`, with what is there as the one before (None: nothing).

        Old records are removed, so that a number can become free again below, or after the end of, a living chain.
        """
        return number == 1 or before == self.previous

    def successor(self, etag: str, **changes: Any) -> Record:
        """The next record of the chain, whose own ETag is given; what is not changed stays as it is."""
        return replace(self, previous=etag, nonce=uuid.uuid4().hex, **changes)

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({**self.__dict__, "state": base64.b64encode(self.state).decode()}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """From JSON."""
        fields = json.loads(data)
        fields["state"] = base64.b64decode(fields["state"])
        fields["segments"] = tuple((name, size) for name, size in fields["segments"])
        fields["upload"] = tuple(fields["upload"]) if fields["upload"] else None
        return cls(**fields)
