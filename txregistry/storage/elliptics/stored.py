"""How objects lie in a group: the bytes, and behind them a trailer with their version; pure.

The trailer is what all groups agree by, as one back-end loses the timestamps of its records: 48 bytes, namely the
stamp (nanoseconds of the epoch, big-endian, 8), a nonce (16), the kind (1), seven bytes of zero, and a mark (16). What
the original wrote has none; it is older than everything of ours, its `EMPTY` is an empty object and its `DIRECTORY`
none at all.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_TRAILER = struct.Struct(">Q16sB7x16s")
_MARK = b"\x93txregistry-obj\x01"
TRAILER_SIZE = _TRAILER.size

#: The largest object that lies in its key whole, in bytes; a larger one is a pointer to data.
INLINE = 64 * 1024

#: More than any record of ours has: pointers and checkpoints of uploads in very many pieces included.
LARGEST_RECORD = 16 * 1024 * 1024

PLAIN, TOMBSTONE, POINTER, FOREIGN = 0, 1, 2, 3

Stamp = tuple[int, bytes]

#: Older than every object.
NEVER: Stamp = (0, b"")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as one group has it: its kind, its bytes without the trailer, its stamp, and the bytes as they lie.

    `raw` is empty where there is no object. Of a FOREIGN object that is large only the beginning is in `data`, and
    `total` is its size.
    """

    kind: int
    data: bytes
    stamp: Stamp
    raw: bytes
    total: int
    modified: float

    @property
    def is_live(self) -> bool:
        """Whether it is an object for whoever asks."""
        return self.kind != TOMBSTONE

    @property
    def is_whole(self) -> bool:
        """Whether all of its bytes are here."""
        return len(self.raw) == self.total

    @property
    def proof(self) -> bytes:
        """What a compare and swap must name to replace it; where there is none, a hash that nothing has."""
        return hashlib.sha512(self.raw).digest() if self.raw else IMPOSSIBLE


#: A create must not replace anything: no bytes have this hash.
IMPOSSIBLE = b"\xff" * 64

#: What a group has where it has nothing.
ABSENT = Stored(TOMBSTONE, b"", NEVER, b"", 0, 0.0)


def encode(kind: int, data: bytes, stamp: Stamp) -> Stored:
    """An object of ours as it is going to lie."""
    raw = data + _TRAILER.pack(stamp[0], stamp[1], kind, _MARK)
    return Stored(kind, data, stamp, raw, len(raw), stamp[0] / 1e9)


def decode(raw: bytes, total: int, modified: float) -> Stored:
    """An object as it lies; of a larger one than was read (`total` bytes) only the beginning is needed."""
    if len(raw) == total and raw.endswith(_MARK) and len(raw) >= TRAILER_SIZE:
        nanoseconds, nonce, kind, _ = _TRAILER.unpack(raw[-TRAILER_SIZE:])
        return Stored(kind, raw[:-TRAILER_SIZE], (nanoseconds, nonce), raw, total, nanoseconds / 1e9)
    if raw == b"DIRECTORY":
        return Stored(TOMBSTONE, b"", (0, b"\0"), raw, total, modified)
    data = b"" if raw == b"EMPTY" else raw
    # Of two that the original wrote any may win, but it must be the same one everywhere.
    return Stored(FOREIGN, data, (0, hashlib.sha256(raw).digest()[:16]), raw, total, modified)


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of a large object: the first `size` of what lies at `key` in each of `groups`; more may lie there."""

    key: str
    size: int
    groups: tuple[int, ...]


def pack_segments(segments: Sequence[Segment]) -> list[Any]:
    """Segments as JSON has them."""
    return [[segment.key, segment.size, list(segment.groups)] for segment in segments]


def unpack_segments(value: Any) -> tuple[Segment, ...]:
    """Segments from JSON."""
    return tuple(Segment(key, size, tuple(groups)) for key, size, groups in value)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What lies at the path of a large object: its size, the sha256 of its bytes where that is known, and where they
    are. `moving` is the path to which it is being moved, which may have the same bytes.
    """

    segments: tuple[Segment, ...]
    version: str
    moving: str = ""

    @property
    def size(self) -> int:
        """Bytes in the object."""
        return sum(segment.size for segment in self.segments)

    @property
    def keys(self) -> set[str]:
        """Where its bytes lie."""
        return {segment.key for segment in self.segments}

    def encode(self) -> bytes:
        """As JSON."""
        fields = {"segments": pack_segments(self.segments), "version": self.version, "moving": self.moving}
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> Pointer:
        """From JSON."""
        fields = json.loads(data)
        return cls(unpack_segments(fields["segments"]), fields["version"], fields["moving"])
