"""What is known of the push of a V1 image while it goes on, and of how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4


@dataclass(frozen=True, slots=True)
class Attempt:
    """A layer that came in whole; its bytes wait aside until a checksum tells that they are right.

    `image_json` is the sha256 of the JSON that its checksums were made with, `digest` that of the layer's bytes,
    `diff_id` that of the archive within, if it is one. Digests of the latter two are written `sha256:<hex>`.
    """

    id: str
    image_json: str
    checksums: tuple[str, ...]
    digest: str
    size: int
    diff_id: str | None

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Attempt | None:
        """Read what is stored; None if it is damaged."""
        try:
            return _attempt(json.loads(data))
        except _DAMAGED:
            return None


@dataclass(frozen=True, slots=True)
class Push:
    """The push of an image: what was announced, and the attempt that finished it with its checksum, if one has.

    `announced` has the checksums that came with this JSON, each perhaps from another client, and `expected` that of
    the last client, if it told one. This record alone decides what the files of the image are to hold: it changes by
    compare and swap, they follow.
    """

    image_json: bytes
    ancestry: tuple[str, ...]
    announced: tuple[str, ...]
    expected: str | None
    finished: Attempt | None = None
    checksum: str | None = None

    @property
    def json_digest(self) -> str:
        """The sha256 of the JSON, by which attempts name it."""
        return sha256(self.image_json).hexdigest()

    def encode(self) -> bytes:
        """As it is stored."""
        document = {
            # JSON of an old store may be any bytes; what is not UTF-8 becomes lone surrogates, and those escapes.
            "json": self.image_json.decode("utf-8", "surrogateescape"),
            "ancestry": self.ancestry,
            "announced": self.announced,
            "expected": self.expected,
            "finished": None if self.finished is None else asdict(self.finished),
            "checksum": self.checksum,
        }
        return json.dumps(document).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Push | None:
        """Read what is stored; None if it is damaged."""
        try:
            document = json.loads(data)
            finished = document["finished"]
            return cls(
                document["json"].encode("utf-8", "surrogateescape"),
                tuple(document["ancestry"]),
                tuple(document["announced"]),
                document["expected"],
                None if finished is None else _attempt(finished),
                document["checksum"],
            )
        except _DAMAGED:
            return None


def new_session(announced: bool) -> str:
    """A name for the client of a push, which says whether it announced a checksum."""
    return f"{uuid4()}{_TOLD if announced else ''}"


def has_announced(session: str) -> bool:
    """Whether the client of this name announced a checksum."""
    return session.endswith(_TOLD)


_TOLD = "-announced"
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def _attempt(document: Mapping[str, Any]) -> Attempt:
    return Attempt(
        document["id"],
        document["image_json"],
        tuple(document["checksums"]),
        document["digest"],
        int(document["size"]),
        document["diff_id"],
    )
