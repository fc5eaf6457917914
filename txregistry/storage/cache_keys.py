"""What is cached under which key, and for how long: a table over the tree of paths.

Keys of ours begin with a hash of the store, so that stores whose roots have the same name can share a Redis. Finished
JSON, ancestry and checksums of V1 have the keys that docker-registry gave them, for it to share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from txregistry.storage import layout
from txregistry.storage.redis_cache import ORIGINAL

#: How keys of ours begin. The number is that of the form of their values.
_OURS = "txregistry:1:"
#: Never read from a cache: what decides over access or over the state of a push, what is large, what is only for us.
_NEVER = {"_inprogress", "_private", "_images_list", "layer", "_uploads"}
#: Parts of a V1 image that never change once it is finished.
_FINAL = {"json", "ancestry"}


@dataclass(frozen=True, slots=True)
class Lives:
    """How long entries live, in seconds.

    `short` is for what may change or be deleted, `long` for the rest. For `guard` seconds after a change nothing is
    cached at a key; it outlasts the reads that were under way.
    """

    short: float = 30.0
    long: float = 3600.0
    guard: float = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where one path is cached: the keys that may hold it, best first, and those that its change must clear.

    It is filled at `key` for `life` seconds, or, as long as the path `mark` does not exist, at `final` for the long
    life. `single` paths are known to be objects: nothing lies below.
    """

    looked_at: tuple[bytes, ...]
    cleared: tuple[bytes, ...]
    key: bytes
    life: float
    mark: str | None = None
    final: bytes = b""
    single: bool = False


class CacheKeys:
    """The keys of one store.

    `store` is what tells it from others: engine, bucket or host, and root. `root` is `storage_path` as it is written
    in the configuration, empty without one.
    """

    def __init__(self, store: Sequence[str], root: str, lives: Lives) -> None:
        identity = hashlib.sha256(b"\0".join(_bytes(part) for part in store)).hexdigest()
        self._ours = _bytes(f"{_OURS}{identity[:32]}:")
        self._original = ORIGINAL + _bytes(root or "/")
        self.lives = lives
        #: Matches all keys of the original for this root, as Redis matches.
        self.originals = _escaped(self._original) + b"*"

    def place(self, path: str) -> Place | None:
        """Where a path is cached; None for one that never is, nor anything below."""
        parts = path.split("/")
        if parts[0] == "_txregistry" or not _NEVER.isdisjoint(parts):
            return None
        lives = self.lives
        ours = self._ours + _bytes(path)
        if path.startswith(layout.BLOBS + "/") and len(parts) == 8:
            return Place((ours,), (ours,), ours, lives.long, single=True)
        if parts[0] not in (layout.V1_IMAGES, layout.V1_REPOSITORIES):
            return Place((ours,), (ours,), ours, lives.short)
        # The original cached all of these, and would go on answering what it has.
        theirs = self._original + _bytes(path)
        both = (theirs, ours)
        if parts[0] == layout.V1_REPOSITORIES or len(parts) != 3:
            return Place((ours,), both, ours, lives.short, single=len(parts) == 4)
        if parts[2] in _FINAL:
            mark = layout.v1_image(parts[1], "_inprogress")
            return Place(both, both, ours, lives.short, mark, theirs, single=True)
        if parts[2] == "_checksum":
            return Place((theirs,), (theirs,), theirs, lives.short, single=True)
        return Place((ours,), both, ours, lives.short, single=True)


def _bytes(text: str) -> bytes:
    """Names that came from a file system may hold bytes that are no text."""
    return text.encode("utf-8", "surrogateescape")


def _escaped(text: bytes) -> bytes:
    """Without meaning for Redis' patterns."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\-" else bytes([byte]) for byte in text)
