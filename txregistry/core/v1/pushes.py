"""Pushes of V1 images, by clients that may push one id at the same time through several workers.

The record of a push changes by compare and swap only, and a checksum finishes a push by a swap: so one attempt wins,
whoever else is at work. The image's files follow the record. Whoever finds a finished record beside an unfinished
image does what is left to do, each step of which can be done twice and by several at once. Before that files are
only made, never replaced: a request that was long asleep cannot harm an image that another has finished; at worst it
leaves a mark on it, which the next one who sees it takes away.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import NamedTuple

from txregistry.core.links import entries
from txregistry.core.v1.files import DOCUMENT_LIMIT, TEXT_LIMIT, exists, load, read, remove, size, write
from txregistry.core.v1.records import Attempt, Push
from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.interfaces import IStorageDriver, Version
from txregistry.model.v1.checksums import decode_checksums, encode_checksum
from txregistry.model.v1.image import MARK, State, parse_ancestry, state_of
from txregistry.model.v1.names import ImageId
from txregistry.storage import layout

#: How often a swap is tried again that somebody else's came before.
SWAPS = 20


class Held(NamedTuple):
    """An image as it is found: the state that its files tell, the record of its push, and the record's version."""

    state: State
    push: Push | None
    version: Version | None


class Pushes:
    """The pushes of all images."""

    def __init__(self, driver: IStorageDriver) -> None:
        self._driver = driver

    async def find(self, image: ImageId) -> Held:
        """An image; if its push was finished but its files were not, they are first."""
        loaded = await load(self._driver, layout.v1_push(image.text), 2 * DOCUMENT_LIMIT)
        push = None if loaded is None else Push.decode(loaded[0])
        version = None if loaded is None else loaded[1]
        state = await self.state(image)
        if state is not State.DONE and push is not None and push.finished is not None:
            if await self.complete(image, push, push.finished):
                return Held(State.DONE, push, version)
            push = None  # its layer is gone from the store: nothing is left of that push
        return Held(state, push, version)

    async def state(self, image: ImageId) -> State:
        """The state that an image's files tell."""
        parts = [layout.v1_image(image.text, part) for part in ("json", "layer", "_inprogress")]
        return state_of(*[await exists(self._driver, path) for path in parts])

    async def adopted(self, image: ImageId) -> Push | None:
        """The record of a push that another server began, made from the image's files."""
        data = await self.part(image, "json")
        if data is None:
            return None
        ancestry = parse_ancestry(await self.part(image, "ancestry") or b"")
        checksums = decode_checksums(await self.part(image, "_checksum") or b"")
        return Push(data, ancestry or (image.text,), checksums, checksums[0] if checksums else None)

    async def part(self, image: ImageId, part: str) -> bytes | None:
        """One of an image's small files."""
        return await read(self._driver, layout.v1_image(image.text, part))

    async def save(self, image: ImageId, push: Push, version: Version | None) -> None:
        """Replace the record of this version, or make the first; LostRace when somebody else was faster."""
        path = layout.v1_push(image.text)
        if version is None:
            await self._driver.put(path, push.encode(), if_absent=True)
        else:
            await self._driver.put(path, push.encode(), if_match=version)

    async def write_begun(self, image: ImageId, push: Push) -> None:
        """Make the files of an image whose push has begun; the mark first, that nobody reads it half done.

        What is there already stays: it may be that of a push which another client has finished meanwhile. Where a
        JSON is replaced in mid-push, the new one is put in place in the end.
        """
        await self._create(image, "_inprogress", MARK)
        if push.expected is not None:
            await self._create(image, "_checksum", encode_checksum(push.expected))
        await self._create(image, "json", push.image_json)
        await self._create(image, "ancestry", _ancestry_of(push))

    async def _create(self, image: ImageId, part: str, data: bytes) -> None:
        path = layout.v1_image(image.text, part)
        try:
            await self._driver.put(path, data, if_absent=True)
        except LostRace:
            with suppress(NotFound):  # the mark, when somebody finishes the image just now
                await self._driver.settle(path)

    async def complete(self, image: ImageId, push: Push, finished: Attempt) -> bool:
        """Let the files of an image say that its push is finished; False if the layer is nowhere to be found.

        Layer, map, checksum, and then the mark goes; before it the other attempts, as nobody comes back for them.
        """
        staged = layout.v1_attempt_layer(image.text, finished.id)
        target = layout.v1_image(image.text, "layer")
        if await exists(self._driver, staged):
            for part in ("_files", "_diff"):
                await remove(self._driver, layout.v1_image(image.text, part))
            with suppress(NotFound):  # somebody else may move it just now
                await self._driver.move(staged, target)
        if await size(self._driver, target) != finished.size:
            return False
        await self._driver.settle(target)
        await write(self._driver, layout.v1_image(image.text, "json"), push.image_json)
        await write(self._driver, layout.v1_image(image.text, "ancestry"), _ancestry_of(push))
        known = {"digest": finished.digest, "size": finished.size, "diff_id": finished.diff_id}
        await write(self._driver, layout.v1_map(image.text), json.dumps(known).encode("ascii"))
        if push.checksum is not None:
            await write(self._driver, layout.v1_image(image.text, "_checksum"), encode_checksum(push.checksum))
        await remove(self._driver, layout.v1_attempts(image.text))
        await remove(self._driver, layout.v1_image(image.text, "_inprogress"))
        return True

    # -- attempts -----------------------------------------------------------------------------------------------

    async def attempts(self, image: ImageId) -> list[Attempt]:
        """The layers of an image that wait for their checksum."""
        found = []
        for name, _ in await entries(self._driver, layout.v1_attempts(image.text)):
            data = await read(self._driver, layout.v1_attempt_record(image.text, name), TEXT_LIMIT)
            attempt = None if data is None else Attempt.decode(data)
            if attempt is not None and await exists(self._driver, layout.v1_attempt_layer(image.text, name)):
                found.append(attempt)
        return found

    async def keep(self, image: ImageId, attempt: Attempt) -> None:
        """Let a layer whose bytes are in place wait for its checksum."""
        await self._driver.put(layout.v1_attempt_record(image.text, attempt.id), attempt.encode())

    async def drop(self, image: ImageId, attempt: Attempt) -> None:
        """Forget a layer of which nothing can come any more."""
        await remove(self._driver, layout.v1_attempt(image.text, attempt.id))

    async def sweep(self, before: float) -> int:
        """Forget layers that have waited since before this time, in seconds of the epoch; how many."""
        removed = 0
        for image, _ in await entries(self._driver, layout.V1_ATTEMPTS):
            for name, _ in await entries(self._driver, layout.v1_attempts(image)):
                try:
                    modified = (await self._driver.stat(layout.v1_attempt_layer(image, name))).modified
                except NotFound:
                    continue  # finished or dropped just now
                if modified < before:
                    await remove(self._driver, layout.v1_attempt(image, name))
                    removed += 1
        return removed


def _ancestry_of(push: Push) -> bytes:
    return json.dumps(push.ancestry).encode("ascii")


def never_settled(image: ImageId) -> Unavailable:
    """The failure of a swap that others came before again and again."""
    return Unavailable(layout.v1_push(image.text), "changed by somebody else, again and again")
