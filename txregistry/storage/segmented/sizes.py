"""How large segments are: small ones first, and larger ones the more there are, so that an object has few enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: A segment is this share of all that comes before it, in whole MiB.
SHARE = 1000
_MIB = 1024 * 1024


def size_at(begin: int, smallest: int) -> int:
    """The size of the segment that begins at this offset, in bytes, in a store that takes none below `smallest`."""
    return max(smallest, -(-(begin // SHARE) // _MIB) * _MIB)


def full_and_tail(
    segments: Sequence[tuple[str, int]], size_of: Callable[[int], int]
) -> tuple[list[tuple[str, int]], tuple[str, int] | None, int]:
    """Those that are large enough for their places, the last one if it is not, and the offset behind the former.

    `segments` are key and size of each, `size_of` is the engine's size of a segment that begins at an offset.
    """
    full = list(segments)
    begin = sum(size for _, size in full)
    if full and full[-1][1] < size_of(begin - full[-1][1]):
        tail = full.pop()
        return full, tail, begin - tail[1]
    return full, None, begin
