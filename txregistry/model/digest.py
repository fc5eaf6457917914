"""Digests: `algorithm:hex`, the name of every blob and manifest."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from txregistry.errors import DigestInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

#: Algorithm -> length of its lower-case hexadecimal form.
ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}

_HEX = re.compile(r"[0-9a-f]+\Z")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest of a known algorithm, in its one legal spelling (OCI image spec, descriptor, "Digests")."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`; DigestInvalid tells what is wrong with it."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise DigestInvalid({"digest": text[:200], "reason": "expected algorithm:hex"})
        length = known_algorithm(algorithm)
        if len(encoded) != length or not _HEX.match(encoded):
            raise DigestInvalid(
                {"digest": text[:200], "reason": f"{algorithm} needs exactly {length} lower-case hexadecimal digits"}
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(algorithm, new_hasher(algorithm, data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Whether these bytes have this digest."""
        return hmac.compare_digest(Digest.of(data, self.algorithm).hex, self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def known_algorithm(name: str) -> int:
    """The length of an algorithm's hexadecimal form; DigestInvalid for one that is not known."""
    try:
        return ALGORITHMS[name]
    except KeyError:
        raise DigestInvalid(
            {"algorithm": name[:40], "reason": f"unknown algorithm; known are {', '.join(ALGORITHMS)}"}
        ) from None


def new_hasher(algorithm: str, data: bytes = b"") -> _Hash:
    """A hasher of `hashlib` for a known algorithm."""
    known_algorithm(algorithm)
    return hashlib.new(algorithm, data, usedforsecurity=True)
