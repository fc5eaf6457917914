"""Byte ranges: of a download (RFC 9110, 14), and of a chunk of an upload (OCI distribution spec, end-5).

The two look alike and are not: a download says `bytes=0-4`, a chunk `0-4`, and both include their last byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from txregistry.errors import RangeInvalid

#: Blanks are taken possessively: with an empty number between two runs of them the time would go by their square.
_DOWNLOAD = re.compile(r"\s*+bytes\s*+=\s*+([0-9]*+)\s*+-\s*+([0-9]*+)\s*+\Z", re.IGNORECASE | re.ASCII)
_CHUNK = re.compile(r"([0-9]+)-([0-9]+)\Z", re.ASCII)
#: More than any size or offset; a longer number is as good as this one, and Python refuses to convert very long ones.
_HUGE = 10**19


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to, not including, `stop` of an object; never empty."""

    start: int
    stop: int

    @classmethod
    def parse(cls, header: str | None, size: int) -> ByteRange | None:
        """Read a `Range` header for an object of `size` bytes; None means the whole object.

        Other units, several ranges and what is no range at all are ignored, as RFC 9110 allows. An end at or past the
        size is cut to it: V1 clients resume with `bytes=<got>-<size>`. RangeInvalid when no byte is in the range;
        its answer needs `Content-Range: bytes */<size>`.
        """
        match = _DOWNLOAD.match(header) if header else None
        if match is None or not (match[1] or match[2]):
            return None
        if match[1]:
            start, stop = _number(match[1]), min(_number(match[2]) + 1, size) if match[2] else size
        else:
            start, stop = max(size - _number(match[2]), 0), size
        if start >= stop:
            raise RangeInvalid({"range": (header or "").strip()[:100], "size": size})
        return cls(start, stop)

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The `Content-Range` of a 206 for an object of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def unsatisfied(size: int) -> str:
    """The `Content-Range` of a 416 for an object of `size` bytes."""
    return f"bytes */{size}"


def parse_content_range(text: str) -> tuple[int, int]:
    """First and last byte of an upload's chunk, from the `Content-Range` of its request (end-5); RangeInvalid."""
    match = _CHUNK.match(text)
    if match is None:
        raise RangeInvalid({"Content-Range": text[:100], "reason": "expected <first byte>-<last byte>"})
    first, last = _number(match[1]), _number(match[2])
    if first > last:
        raise RangeInvalid({"Content-Range": text[:100], "reason": "the last byte comes before the first"})
    if last >= _HUGE:
        raise RangeInvalid({"Content-Range": text[:100], "reason": "no upload is that large"})
    return first, last


def upload_range(offset: int) -> str:
    """The `Range` of an answer about an upload that has `offset` bytes.

    `0-0` says one byte and, for want of a better form, none: clients read two numbers, the second not below the first.
    """
    return f"0-{max(offset - 1, 0)}"


def _number(text: str) -> int:
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < 20 else _HUGE
