"""What dies with a process on S3, and is removed later: unfinished multipart uploads, and segments without a record."""

from __future__ import annotations

from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.s3.partial import PARTIALS


def sweep(bucket: Bucket, before: float) -> int:
    """Remove what nobody uses and is older than `before`, in seconds of the epoch; how many. Blocks."""
    return _sweep_uploads(bucket, before) + _sweep_segments(bucket, before)


def _sweep_uploads(bucket: Bucket, before: float) -> int:
    # CNCF distribution goes on with the uploads of its sessions for days; ours never lie there.
    old = [(key, upload) for key, upload, begun in bucket.uploads() if begun < before and "/_uploads/" not in key]
    for key, upload in old:
        bucket.abort(key, upload)
    return len(old)


def _sweep_segments(bucket: Bucket, before: float) -> int:
    """Remove what a holder wrote after another one had ended its partial object."""
    homes: dict[str, list[str]] = {}
    alive: set[str] = set()
    for key, _, modified in bucket.listing(f"{PARTIALS}/"):
        home, _, kind = key.rpartition("/")[0].rpartition("/")
        if kind == "segments" and modified < before:
            homes.setdefault(home, []).append(key)
        else:
            alive.add(home)
    orphans = [key for home, keys in homes.items() if home not in alive for key in keys]
    bucket.delete_many(orphans)
    return len(orphans)
