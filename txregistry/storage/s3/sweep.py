"""What dies with a process on S3, and is removed later: unfinished multipart uploads, and segments of no use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from txregistry.errors import Busy, LostRace, NotFound
from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.s3.partial import records_of
from txregistry.storage.segmented.names import below, path_of


class Held(Protocol):
    """A partial object that has just been taken over."""

    def drop_unnamed(self) -> int:
        """Remove the segments that its last record does not name, and let go of it; how many."""
        ...


def paths_below(bucket: Bucket, prefix: str) -> list[str]:
    """The paths of the partial objects at any depth below a prefix. Blocks."""
    found = {path_of(key) for key, _ in bucket.keys(below(prefix))}
    return sorted(path for path in found if path is not None)


def sweep(bucket: Bucket, before: float, hold: Callable[[str], Held]) -> int:
    """Remove what nobody uses and is older than `before`, in seconds of the epoch; how many. Blocks."""
    return _sweep_uploads(bucket, before) + _sweep_segments(bucket, before, hold)


def _sweep_uploads(bucket: Bucket, before: float) -> int:
    # CNCF distribution goes on with the uploads of its sessions for days; ours never lie there.
    old = {(key, upload) for key, upload, begun in bucket.uploads() if begun < before and "/_uploads/" not in key}
    if old:
        old -= _committing(bucket)
    for key, upload in old:
        bucket.abort(key, upload)
    return len(old)


def _committing(bucket: Bucket) -> set[tuple[str, str]]:
    """The uploads of commits that are under way: a terabyte takes longer than leftovers need to be swept."""
    found: set[tuple[str, str]] = set()
    for path in paths_below(bucket, ""):
        with suppress(NotFound):
            _, _, record, age = records_of(bucket, path).latest()
            if record.upload is not None and record.is_held(age):
                found.add(record.upload)
    return found


def _sweep_segments(bucket: Bucket, before: float, hold: Callable[[str], Held]) -> int:
    """Remove segments that no record names: their holder was killed, or wrote them after the end; and ended records.

    A holder writes segments before the record that names them, and a record a second while bytes flow. So a partial
    object is left alone unless its last record is old as well, and taken over before anything of it is removed: a
    holder that has slept so long must not go on with segments that are gone.
    """
    segments: dict[str, list[str]] = {}
    records: dict[str, list[str]] = {}
    recent: set[str] = set()
    for key, _, modified in bucket.listing(below("")):
        path = path_of(key)
        if path is None:
            continue
        if modified >= before:
            recent.add(path)
        (segments if "/segments/" in key else records).setdefault(path, []).append(key)
    removed = 0
    for path in (segments.keys() | records.keys()) - recent:
        pieces = segments.get(path, [])
        try:
            record = records_of(bucket, path).latest()[2]
            if not record.names >= set(pieces):
                removed += hold(path).drop_unnamed()
        except (Busy, LostRace):  # it lives
            continue
        except NotFound:  # it has ended, and whoever ended it was killed in the middle of that
            bucket.delete_many(pieces)
            for key in records.get(path, ()):  # one by one: the record that says so goes last
                bucket.delete(key)
            removed += len(pieces)
    return removed
