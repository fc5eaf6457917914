"""V1 checksums: the simple one, the headers that carry them, and the file that keeps the one that matched."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from txregistry.errors import V1Error

if TYPE_CHECKING:
    from hashlib import _Hash

#: Longest checksum that is read, in characters; `tarsum+sha256:` and its digits have 78.
CHECKSUM_LIMIT = 256


def simple_hasher(image_json: bytes) -> _Hash:
    """A hasher for the simple checksum of an image, to be fed with its layer as it was sent."""
    return sha256(image_json + b"\n")


def simple_checksum(hasher: _Hash) -> str:
    """The simple checksum: that of the JSON, a newline and the layer's bytes; what 1.x clients call the payload's."""
    return f"sha256:{hasher.hexdigest()}"


def parse_checksum(text: str) -> str:
    """Read a checksum of the form `algorithm:digits`; V1Error for any other form."""
    text = text.strip()
    if text.count(":") != 1 or len(text) > CHECKSUM_LIMIT or not (text.isascii() and text.isprintable()):
        raise V1Error({"checksum": text[:100]}, message="Invalid checksum format")
    return text


@dataclass(frozen=True, slots=True)
class Announced:
    """What `PUT images/<id>/checksum` says of the layer.

    `checksum` is `X-Docker-Checksum`, in any client, and `payload` is `X-Docker-Checksum-Payload`, since docker 0.10.
    """

    checksum: str | None
    payload: str | None

    @classmethod
    def parse(cls, checksum: str | None, payload: str | None) -> Announced:
        """Read the two headers; V1Error when neither says anything, or one is malformed."""
        if not checksum and not payload:
            raise V1Error(message="Missing Image's checksum")
        return cls(parse_checksum(checksum) if checksum else None, parse_checksum(payload) if payload else None)

    def match(self, candidates: Collection[str]) -> str | None:
        """The header's value that is one of the layer's checksums; None if neither is."""
        for value in (self.checksum, self.payload):
            if value is not None and value in candidates:
                return value
        return None


def encode_checksum(checksum: str) -> bytes:
    """What `_checksum` holds: the value that matched, readable by every server since 0.6.5."""
    return checksum.encode("ascii")


def decode_checksums(data: bytes) -> tuple[str, ...]:
    """Read `_checksum` in both its forms: one checksum as text, or (since 0.7) a JSON list; empty if it is neither."""
    text = data.decode("utf-8", "replace").strip()
    if not text.startswith("["):
        return (text,) if text.count(":") == 1 else ()
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(entry for entry in entries if isinstance(entry, str) and entry.count(":") == 1)
