"""Upload sessions: what is saved with a checkpoint, and which chunks a session takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from txregistry.errors import ChunkOutOfOrder, SizeInvalid
from txregistry.model.digest import ALGORITHMS

#: The most that a driver saves with a checkpoint, in bytes.
STATE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class UploadState:
    """What a checkpoint keeps beside the bytes.

    `algorithm` is that of the digest to come; `digests` has, for each algorithm that was running, the hexadecimal
    digest of all bytes up to the checkpoint's offset, and `hasher` the state of a sha256 from which hashing can go on.
    An algorithm without either only means that the bytes have to be read again.
    """

    algorithm: str = "sha256"
    digests: Mapping[str, str] = field(default_factory=dict)
    hasher: bytes | None = None

    def encode(self) -> bytes:
        """The state as at most 4 KiB of JSON."""
        document: dict[str, object] = {"algorithm": self.algorithm, "digests": dict(self.digests)}
        if self.hasher is not None:
            document["hasher"] = self.hasher.hex()
        data = json.dumps(document).encode("ascii")
        assert len(data) <= STATE_LIMIT
        return data

    @classmethod
    def decode(cls, data: bytes) -> UploadState:
        """Read a saved state; whatever cannot be understood in it counts as not known, and nothing is raised."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(document, dict):
            return cls()
        algorithm = document.get("algorithm")
        digests = document.get("digests")
        return cls(
            algorithm=algorithm if isinstance(algorithm, str) and algorithm in ALGORITHMS else "sha256",
            digests=_valid_digests(digests) if isinstance(digests, dict) else {},
            hasher=_bytes(document.get("hasher")),
        )


def _bytes(text: object) -> bytes | None:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _valid_digests(digests: Mapping[str, object]) -> dict[str, str]:
    return {name: text for name, text in digests.items() if isinstance(text, str) and _is_digest(name, text)}


def _is_digest(algorithm: str, text: str) -> bool:
    return len(text) == ALGORITHMS.get(algorithm) and not text.strip("0123456789abcdef")


class Begins(Enum):
    """Where a chunk begins, by its `Content-Range`."""

    UNTOLD = "untold"
    HERE = "where the session ends"
    ELSEWHERE = "elsewhere"


class Length(Enum):
    """How long a body is, by its `Content-Length`, next to the length of the range."""

    UNTOLD = "untold"
    FITS = "that of the range"
    DIFFERS = "not that of the range"


class Verdict(Enum):
    """What becomes of a chunk before its first byte is read."""

    TAKE = "take"
    OUT_OF_ORDER = "out of order"
    WRONG_SIZE = "wrong size"


#: The same for a PATCH and for the chunk in a closing PUT (OCI distribution spec, end-5 and end-6).
VERDICTS: dict[tuple[Begins, Length], Verdict] = {
    (Begins.UNTOLD, Length.UNTOLD): Verdict.TAKE,
    (Begins.UNTOLD, Length.FITS): Verdict.TAKE,
    (Begins.HERE, Length.UNTOLD): Verdict.TAKE,
    (Begins.HERE, Length.FITS): Verdict.TAKE,
    (Begins.HERE, Length.DIFFERS): Verdict.WRONG_SIZE,
    (Begins.ELSEWHERE, Length.UNTOLD): Verdict.OUT_OF_ORDER,
    (Begins.ELSEWHERE, Length.FITS): Verdict.OUT_OF_ORDER,
    (Begins.ELSEWHERE, Length.DIFFERS): Verdict.OUT_OF_ORDER,
}


def check_chunk(offset: int, chunk: tuple[int, int] | None, length: int | None) -> None:
    """Whether a session with `offset` bytes takes this chunk: ChunkOutOfOrder or SizeInvalid if it does not.

    `chunk` is the first and last byte that the client announced, `length` its `Content-Length`; each None if untold.
    """
    begins, size = Begins.UNTOLD, Length.UNTOLD if length is None else Length.FITS
    if chunk is not None:
        first, last = chunk
        begins = Begins.HERE if first == offset else Begins.ELSEWHERE
        if length is not None and length != last - first + 1:
            size = Length.DIFFERS
    verdict = VERDICTS[begins, size]
    if verdict is Verdict.OUT_OF_ORDER:
        raise ChunkOutOfOrder(offset)
    if verdict is Verdict.WRONG_SIZE:
        raise _wrong_size(chunk, length)


def check_received(chunk: tuple[int, int] | None, received: int) -> None:
    """Whether a body that has ended had the length of its announced range; SizeInvalid if it had not."""
    if chunk is not None and received != chunk[1] - chunk[0] + 1:
        raise _wrong_size(chunk, received)


def _wrong_size(chunk: tuple[int, int] | None, length: int | None) -> SizeInvalid:
    told = "" if chunk is None else f"{chunk[0]}-{chunk[1]}"
    return SizeInvalid({"Content-Range": told, "length": length, "reason": "range and body differ in length"})
