"""V1 images: their JSON and ancestry, reading what is finished, and the beginning of a push."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from txregistry.concurrency import Shields
from txregistry.core.links import cached
from txregistry.core.proofs import Proof, proving
from txregistry.core.v1.files import TEXT_LIMIT, exists, read, size
from txregistry.core.v1.hooks import Hooks
from txregistry.core.v1.pushes import SWAPS, Pushes, never_settled
from txregistry.core.v1.records import Push, new_session
from txregistry.errors import LostRace, NotFound, ReadOnly, V1Error, V1NotFound
from txregistry.interfaces import IReader, IStorageDriver
from txregistry.model.v1.checksums import decode_checksums
from txregistry.model.v1.image import (
    Event,
    ImageJson,
    State,
    build_ancestry,
    check_parent,
    parse_ancestry,
    parse_image,
    parse_parent,
    step,
)
from txregistry.model.v1.names import ImageId
from txregistry.storage import layout

#: Longest ancestry that is put together from the JSON of images whose own is missing.
_GENERATIONS = 10_000
#: Clients that push one image at the same time, each with a checksum of its own.
_ANNOUNCED = 50


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """A finished image: its JSON as it was pushed, the size of its layer in bytes, its checksum if one is known.

    `checksums` are all that are known, as they are stored; None where nothing is.
    """

    data: bytes
    size: int
    checksum: str | None
    checksums: bytes | None


@dataclass(frozen=True, slots=True)
class Ancestry:
    """The ids of a finished image and its ancestors, youngest first, and the JSON that holds them in the store."""

    ids: tuple[str, ...]
    data: bytes


class Images:
    """The images of a store."""

    def __init__(self, driver: IStorageDriver, shields: Shields, pushes: Pushes, hooks: Hooks) -> None:
        self._driver = driver
        self._cached = cached(driver)
        self._shields = shields
        self._pushes = pushes
        self._hooks = hooks

    # -- reading ------------------------------------------------------------------------------------------------

    async def info(self, image: ImageId) -> ImageInfo:
        """What `json` answers; V1NotFound, V1Error while it is pushed."""
        await self._require_finished(image)
        data = await read(self._cached, layout.v1_image(image.text, "json"))
        if data is None:
            raise _unknown()
        layer = await size(self._driver, layout.v1_image(image.text, "layer"))
        if layer is None:
            # What crashed servers left. Its reader is told to push it, which heals it.
            step(State.JSON, Event.READ)
        stored = await read(self._cached, layout.v1_image(image.text, "_checksum"))
        checksums = decode_checksums(stored or b"")
        return ImageInfo(data, layer or 0, checksums[0] if checksums else None, stored)

    def proof(self, image: ImageId, info: ImageInfo) -> Proof | None:
        """That an image is what it was; None if the driver cannot tell, and for a very long JSON."""
        same = [(layout.v1_image(image.text, "json"), info.data)]
        mark, checksums = layout.v1_image(image.text, "_inprogress"), layout.v1_image(image.text, "_checksum")
        if info.checksums is not None:
            same.append((checksums, info.checksums))
        gone = (mark,) if info.checksums is not None else (mark, checksums)
        return self._proof(same, (layout.v1_image(image.text, "layer"),), gone)

    def proof_of_ancestry(self, image: ImageId, found: Ancestry) -> Proof | None:
        """The same of its ancestry."""
        same = [(layout.v1_image(image.text, "ancestry"), found.data)]
        return self._proof(same, (), (layout.v1_image(image.text, "_inprogress"),))

    def _proof(self, same: Sequence[tuple[str, bytes]], there: Sequence[str], gone: Sequence[str]) -> Proof | None:
        driver = proving(self._driver)
        if driver is None or sum(len(data) for _, data in same) > TEXT_LIMIT:
            return None
        return Proof(driver, same, there, gone)

    async def open_layer(self, image: ImageId) -> IReader:
        """The layer as it was pushed, for the caller to close; V1NotFound, V1Error while it is pushed."""
        await self._require_finished(image)
        try:
            return await self._driver.open(layout.v1_image(image.text, "layer"))
        except NotFound:
            raise _unknown() from None

    def layer_path(self, image: ImageId) -> str:
        """Where a layer that `open_layer` opens lies in the store."""
        return layout.v1_image(image.text, "layer")

    async def ancestry(self, image: ImageId) -> Ancestry:
        """The ids of the image and all its ancestors; V1NotFound, V1Error while it is pushed."""
        await self._require_finished(image)
        data = await read(self._cached, layout.v1_image(image.text, "ancestry"))
        ids = None if data is None else parse_ancestry(data)
        if data is None or ids is None:
            raise _unknown()
        return Ancestry(ids, data)

    async def has_json(self, image: ImageId) -> bool:
        """Whether the image is there, be it in progress: a tag may name it, and a child build on it."""
        return await exists(self._driver, layout.v1_image(image.text, "json"))

    async def _require_finished(self, image: ImageId) -> None:
        """Refuse to read what is marked, unless the mark is only what a crash at the very end left."""
        if not await exists(self._driver, layout.v1_image(image.text, "_inprogress")):
            return
        try:
            held = await self._shields.shield(self._pushes.find(image))
        except ReadOnly:
            held = None
        if held is None or held.state is not State.DONE:
            step(State.JSON, Event.READ)

    async def _stored_ancestry(self, image: ImageId) -> tuple[str, ...] | None:
        data = await read(self._driver, layout.v1_image(image.text, "ancestry"))
        return None if data is None else parse_ancestry(data)

    # -- the beginning of a push --------------------------------------------------------------------------------

    async def push_json(self, image: ImageId, data: bytes, checksum: str | None) -> str:
        """Begin the push of an image, or begin it again; a name by which its client is known when its layer comes.

        `checksum` is what that will have, if it is known already.

        V1Error about the first thing wrong, last what the operator's hook has against it, and UpstreamUnavailable if
        that cannot be asked; V1Conflict for an image that is finished.
        """
        parsed = parse_image(data, image, checksum)
        parent = parsed.parent
        check_parent(parsed, parent is None or await self.has_json(parent))
        ancestry = build_ancestry(parsed, () if parent is None else await self._ancestry_of(parent))
        if self._hooks.listening:
            await self._shields.shield(self._require_unfinished(image))
            await self._hooks.before_put_image_json(data)
        await self._shields.shield(self._begin(parsed, parse_ancestry(ancestry) or ()))
        return new_session(parsed.announced is not None)

    async def _require_unfinished(self, image: ImageId) -> None:
        step((await self._pushes.find(image)).state, Event.PUT_JSON)

    async def _begin(self, parsed: ImageJson, ancestry: tuple[str, ...]) -> None:
        image = parsed.image_id
        for _ in range(SWAPS):
            held = await self._pushes.find(image)
            step(held.state, Event.PUT_JSON)
            push = _next(held.push, parsed, ancestry)
            try:
                await self._pushes.save(image, push, held.version)
            except LostRace:
                continue
            break
        else:
            raise never_settled(image)
        # From here on nobody can finish any other JSON.
        await self._pushes.write_begun(image, push)
        # It may have been finished while the mark was made, which is removed then.
        step((await self._pushes.find(image)).state, Event.PUT_JSON)

    async def _ancestry_of(self, image: ImageId) -> tuple[str, ...]:
        """The ancestry of a parent; put together from its ancestors' JSON where old servers left none."""
        found: list[str] = []
        following: ImageId | None = image
        while following is not None and following.text not in found and len(found) < _GENERATIONS:
            stored = await self._stored_ancestry(following)
            if stored is not None:
                return (*found, *stored)
            found.append(following.text)
            data = await self._pushes.part(following, "json")
            following = None if data is None else parse_parent(data)
        return tuple(found)


def _next(push: Push | None, parsed: ImageJson, ancestry: tuple[str, ...]) -> Push:
    """The record of a push that begins, perhaps again, and perhaps beside that of another client."""
    told = () if parsed.announced is None else (parsed.announced,)
    before = () if push is None or push.image_json != parsed.data else push.announced
    announced = dict.fromkeys([*before, *told])
    return Push(parsed.data, ancestry, tuple(announced)[-_ANNOUNCED:], parsed.announced)


def _unknown() -> V1Error:
    return V1NotFound(message="Image not found")
