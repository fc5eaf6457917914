"""How large the segments of a partial object are, their bytes, and how much memory all unsent ones may take."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Protocol

from txregistry.storage.segmented.memory import Unsent
from txregistry.storage.segmented.sizes import size_at

#: The smallest part of a multipart upload, the last one aside, in bytes.
SEGMENT = 5 * 1024 * 1024
#: The most parts of an upload, and the largest object, in bytes.
PARTS, LARGEST = 10_000, 5 * 1024**4


def segment_size(begin: int) -> int:
    """The size of the segment that begins at this offset, in bytes: 5 MiB in the first 5 GiB, then growing.

    5 TiB are fewer than 8,000 of them.
    """
    return size_at(begin, SEGMENT)


class Pieces:
    """Bytes as they arrived, in pieces: large ones are never joined, as each copy costs as much as a checksum."""

    def __init__(self, pieces: Iterable[bytes] = ()) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self.add(pieces)

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Iterable[bytes]) -> None:
        """Append a batch."""
        for piece in filter(None, batch):
            self._pieces.append(piece)
            self._size += len(piece)

    def cut(self, begin: int, end: int) -> list[bytes]:
        """Those between two offsets, in order."""
        found, at = [], 0
        for piece in self._pieces:
            if at >= end:
                break
            if at + len(piece) > begin:
                found.append(piece[max(0, begin - at) : end - at])
            at += len(piece)
        return found

    def stream(self) -> PiecesStream:
        """A stream over those that are there now."""
        return PiecesStream(tuple(self._pieces))


class PiecesStream(io.RawIOBase):
    """The body of a request: a file over pieces that are not empty, which are read as views where that is enough.

    boto3 reads it to sign it, again to send it, and from the beginning when it has to send it once more.
    """

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces, self._size = pieces, sum(map(len, pieces))
        self._at = self._number = self._inside = 0  # the offset, the piece that has it, and where in that it is

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The offset."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another offset."""
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if not 0 <= target <= self._size:
            raise ValueError(f"{target} is not in a stream of {self._size} bytes")
        self._at = self._inside = target
        self._number = 0
        while self._number < len(self._pieces) and self._inside >= len(self._pieces[self._number]):
            self._inside -= len(self._pieces[self._number])
            self._number += 1
        return target

    def read(self, size: int = -1) -> bytes | memoryview:
        """The next bytes: all without a `size`, else fewer also before the end, but at least a quarter of it."""
        wanted = self._size - self._at if size < 0 else min(size, self._size - self._at)
        view = self._take(wanted)
        if len(view) == wanted or 0 < size <= len(view) * 4:
            return view
        found = bytearray(view)
        while len(found) < wanted:
            found += self._take(wanted - len(found))
        return bytes(found)

    def _take(self, size: int) -> memoryview:
        """A part of one piece."""
        if not size:
            return memoryview(b"")
        piece = self._pieces[self._number]
        view = memoryview(piece)[self._inside : self._inside + size]
        self._at += len(view)
        self._inside += len(view)
        while self._number < len(self._pieces) and self._inside >= len(self._pieces[self._number]):
            self._inside -= len(self._pieces[self._number])
            self._number += 1
        return view


class Spills(Protocol):
    """What has unsent bytes in memory."""

    def spill(self) -> int:
        """Send them, unless it is at work itself; how many bytes it still has. Blocks, and never fails."""
        ...


class Budget(Unsent[Spills]):
    """The unsent bytes of all partial objects of a process; threads may share it."""

    def relieve(self, but: Spills) -> None:
        """Let others send theirs until enough is free, in the caller's thread."""
        for holder in self.others(but):
            if not self.exceeded:
                return
            self.left(holder, holder.spill())
