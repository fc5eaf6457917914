"""The layer of a V1 image on its way: which sums were recorded of it, and whether it has one of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from hashlib import sha256

from txregistry.core.copying.objects import Objects
from txregistry.core.v1.files import DOCUMENT_LIMIT, TEXT_LIMIT
from txregistry.core.v1.records import Push
from txregistry.model.v1.checksums import decode_checksums, simple_checksum, simple_hasher
from txregistry.model.v1.tarsum import TarSum
from txregistry.storage import layout

_TARSUM = "tarsum"


class LayerSums:
    """The sums of a layer, of those kinds that were `recorded`."""

    def __init__(self, image_json: bytes, recorded: Collection[str]) -> None:
        self._recorded = recorded
        self._digest = sha256()
        self._simple = simple_hasher(image_json)
        self._tarsum = TarSum(image_json) if any(text.startswith(_TARSUM) for text in recorded) else None
        self.matches = True

    def tap(self, pieces: Sequence[bytes]) -> None:
        """Take a batch."""
        for piece in pieces:
            self._digest.update(piece)
            self._simple.update(piece)
            if self._tarsum is not None:
                self._tarsum.feed(piece)

    def finish(self) -> None:
        """Find out whether it has one of them. Any bytes will do: an old server serves them without a look."""
        found = {f"sha256:{self._digest.hexdigest()}", simple_checksum(self._simple)}
        if self._tarsum is not None and (text := self._tarsum.finish()) is not None:
            found.add(text)
        self.matches = not self._recorded or not found.isdisjoint(self._recorded)


async def carry_layer(objects: Objects, image: str, *, known: bool) -> bool:
    """Carry the layer of a finished image; whether the target has it.

    `known` says that the target has a whole image with the same checksum: one of the same size is the same layer then.
    """
    path = layout.v1_image(image, "layer")
    image_json = await objects.small(objects.source, layout.v1_image(image, "json"), DOCUMENT_LIMIT) or b""
    recorded = await _recorded(objects, image)
    made: list[LayerSums] = []

    def make() -> LayerSums:
        made.append(LayerSums(image_json, recorded))
        return made[-1]

    async def equal(size: int) -> bool:
        return (known and not objects.verify) or await objects.equal(path, size)

    done = await objects.carry(path, equal, make)
    if done and not made[-1].matches:
        objects.found.doubtful += 1
        objects.watcher.tell(f"{path}: copied, but it has none of its recorded checksums")
    return done


async def _recorded(objects: Objects, image: str) -> set[str]:
    """What is known of a layer: its checksums, and the digest of its bytes where this server stored it."""
    recorded = set(decode_checksums(await objects.small(objects.source, *_checksum(image)) or b""))
    push = Push.decode(await objects.small(objects.source, layout.v1_push(image), 2 * DOCUMENT_LIMIT) or b"")
    if push is not None and push.finished is not None:
        recorded |= {push.finished.digest, *push.finished.checksums}
    with suppress(ValueError, TypeError, KeyError):  # derived, and not there
        recorded.add(str(json.loads(await objects.small(objects.source, layout.v1_map(image)) or b"")["digest"]))
    return recorded


def _checksum(image: str) -> tuple[str, int]:
    return layout.v1_image(image, "_checksum"), TEXT_LIMIT
