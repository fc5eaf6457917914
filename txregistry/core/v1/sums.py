"""All sums of a V1 layer, made of the same batches as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from txregistry.core.v1.records import Attempt
from txregistry.interfaces import IPartial
from txregistry.model.v1.checksums import simple_checksum, simple_hasher
from txregistry.model.v1.tarsum import TarSum


class LayerSums:
    """Fed by the jobs that write a layer: its simple checksum, its digest, its tarsum and diff id if it is a tar."""

    def __init__(self, image_json: bytes) -> None:
        self._image_json = sha256(image_json).hexdigest()
        self._simple = simple_hasher(image_json)
        self._digest = sha256()
        self._tarsum = TarSum(image_json)
        self._found: str | None = None

    def tap(self, pieces: Sequence[bytes]) -> None:
        """Take a batch."""
        for piece in pieces:
            self._simple.update(piece)
            self._digest.update(piece)
            self._tarsum.feed(piece)

    async def finish(self, partial: IPartial, name: str) -> Attempt:
        """What came in, as an attempt of this name."""
        # In a job of its own: sorting the sums of many members takes its time.
        await partial.write([b""], partial.offset, self._finish)
        diff_id = self._tarsum.diff_id
        simple = simple_checksum(self._simple)
        return Attempt(
            name,
            self._image_json,
            (simple,) if self._found is None else (simple, self._found),
            f"sha256:{self._digest.hexdigest()}",
            partial.offset,
            None if diff_id is None else str(diff_id),
        )

    def _finish(self, _: Sequence[bytes]) -> None:
        self._found = self._tarsum.finish()
