"""The list of a V1 repository's images, as the index routes take and give it."""

from __future__ import annotations

import json
from typing import Any

from txregistry.errors import V1Error


def merge_images(stored: bytes | None, pushed: bytes) -> bytes:
    """What `_index_images` holds after a list was pushed: `pushed` as it is, or merged with what is `stored`.

    Of the entries with one id, those pushed come first; the first is kept if it has a checksum, else one after it
    takes its place. A stored list that cannot be read is given up. V1Error for a body that is no list of entries.
    """
    new = _parse_entries(pushed)
    if stored is None:
        return pushed
    try:
        old = _parse_entries(stored)
    except V1Error:
        old = []
    merged: dict[str, dict[str, Any]] = {}
    for entry in new + old:
        kept = merged.get(entry["id"])
        if kept is None or "checksum" not in kept:
            merged[entry["id"]] = entry
    return json.dumps(list(merged.values())).encode("ascii")


def listed_ids(data: bytes) -> tuple[str, ...]:
    """The ids in a stored list, in its order; none for one that cannot be read."""
    try:
        return tuple(dict.fromkeys(entry["id"] for entry in _parse_entries(data)))
    except V1Error:
        return ()


def _parse_entries(data: bytes) -> list[dict[str, Any]]:
    try:
        entries = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise V1Error(message="Error Decoding JSON") from None
    if not isinstance(entries, list):
        raise V1Error(message="Invalid data")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise V1Error({"reason": "each entry needs an id"}, message="Invalid data")
    return entries
