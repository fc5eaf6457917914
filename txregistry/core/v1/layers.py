"""The layers of V1 images on their way in, and the checksums that finish a push.

Each layer is an attempt. Its bytes are set aside when they are in, and get their place once a checksum, announced
before or sent after, says that they are what the client meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

from txregistry.concurrency import Shields
from txregistry.core.policy import Policy
from txregistry.core.transfer import BATCH, Body, receive
from txregistry.core.v1.pushes import SWAPS, Held, Pushes, never_settled
from txregistry.core.v1.records import Attempt, Push, has_announced
from txregistry.core.v1.sums import LayerSums
from txregistry.errors import LostRace, NoSpace, StorageError
from txregistry.interfaces import IPartial, IStorageDriver, Version
from txregistry.model.v1.checksums import Announced
from txregistry.model.v1.image import Event, State, step
from txregistry.model.v1.names import ImageId
from txregistry.storage import layout

#: No push is under way.
_SETTLED = {State.NOTHING, State.DONE}


@dataclass(frozen=True, slots=True)
class Sent:
    """The checksum headers of a request, as they came."""

    checksum: str | None
    payload: str | None


class Layers:
    """The layers of all images."""

    def __init__(self, driver: IStorageDriver, policy: Policy, shields: Shields, pushes: Pushes) -> None:
        self._driver = driver
        self._policy = policy
        self._shields = shields
        self._pushes = pushes

    # -- PUT layer ----------------------------------------------------------------------------------------------

    async def push(self, image: ImageId, body: Body, session: str | None) -> str:
        """Take a layer; the name of the attempt, by which its client is known again.

        `session` is such a name, or any other that its client got when it began to push this image, if it did.
        V1NotFound, V1Conflict for an image that is finished, V1Error for a layer without the announced checksum. A
        client that began before another finished the image is not told off: its bytes are dropped.
        """
        name = str(uuid4())
        held = await self._shields.shield(self._begun(image))
        if held.push is None or held.state in _SETTLED:
            if not _is_late(held, session):
                step(held.state, Event.PUT_LAYER)
            async for _ in body.batches(BATCH):
                pass
            return name
        await self._require_space(body.length or 0)
        partial = await self._driver.partial(layout.v1_partial(name), create=True)
        try:
            sums = LayerSums(held.push.image_json)
            await receive(body, partial, sums.tap)
            attempt = await sums.finish(partial, name)
        except BaseException:
            await self._shields.shield(_drop(partial))
            raise
        try:
            await self._shields.shield(self._take(image, attempt, partial, session))
        finally:
            await partial.close()
        return name

    async def _begun(self, image: ImageId) -> Held:
        """The image with the record of its push, which is made if another server began it."""
        for _ in range(SWAPS):
            held = await self._pushes.find(image)
            if held.push is not None or held.state in {State.NOTHING, State.DONE}:
                return held
            push = await self._pushes.adopted(image)
            if push is None:
                continue
            try:
                await self._pushes.save(image, push, held.version)
            except LostRace:
                continue
        raise never_settled(image)

    async def _take(self, image: ImageId, attempt: Attempt, partial: IPartial, session: str | None) -> None:
        """Set a layer aside, and finish the image with it if its checksum was announced."""
        await partial.commit(layout.v1_attempt_layer(image.text, attempt.id))
        for _ in range(SWAPS):
            held = await self._pushes.find(image)
            event, checksum = _arrived(held, attempt, session)
            if event is Event.LAYER_UNCHECKED and held.state is not State.DONE:
                await self._pushes.keep(image, attempt)
                held = await self._pushes.find(image)  # whoever finished it meanwhile did not see this attempt
            if held.state in _SETTLED or event is Event.LAYER_MISMATCHED:
                await self._pushes.drop(image, attempt)
            step(held.state, event)
            if event is not Event.LAYER_MATCHED or held.push is None or held.state is State.DONE:
                return
            if await self._finish(image, held.push, held.version, attempt, checksum):
                return
        raise never_settled(image)

    # -- PUT checksum -------------------------------------------------------------------------------------------

    async def push_checksum(self, image: ImageId, sent: Sent, session: str | None) -> None:
        """Finish an image with the attempt that has the checksum that was sent.

        V1Error for none, for one that no layer has, and when no layer came in; V1Conflict for a finished image.
        """
        if not sent.checksum and not sent.payload:
            Announced.parse(None, None)
        await self._shields.shield(self._check(image, sent, session))

    async def _check(self, image: ImageId, sent: Sent, session: str | None) -> None:
        for _ in range(SWAPS):
            attempts = await self._pushes.attempts(image)
            if session is None and not attempts:
                # Old servers looked for the layer's sums in the client's cookie before they looked for the image.
                step(State.JSON, Event.PUT_CHECKSUM)
            held = await self._pushes.find(image)
            if held.push is None or held.state in _SETTLED:
                step(held.state, Event.CHECKSUM_LATE if _is_late(held, session) else Event.PUT_CHECKSUM)
                raise AssertionError("no checksum is due in any of these states")
            announced = Announced.parse(sent.checksum, sent.payload)
            valid = [one for one in attempts if one.image_json == held.push.json_digest]
            matches = [(one, announced.match(one.checksums)) for one in valid]
            # The client's own comes first: of two attempts with the same sums the bytes may yet differ.
            matches.sort(key=lambda match: match[0].id != session)
            chosen = next(((one, value) for one, value in matches if value is not None), None)
            if chosen is None:
                step(held.state, Event.CHECKSUM_MISMATCHED)
                return
            if await self._finish(image, held.push, held.version, *chosen):
                return
        raise never_settled(image)

    # -- leftovers ----------------------------------------------------------------------------------------------

    async def sweep(self, before: float) -> int:
        """Forget layers whose clients never came back; how many."""
        return await self._pushes.sweep(before)

    # -- the end ------------------------------------------------------------------------------------------------

    async def _finish(
        self, image: ImageId, push: Push, version: Version | None, attempt: Attempt, checksum: str
    ) -> bool:
        """Let an attempt win; False if somebody else changed the push meanwhile."""
        finished = replace(push, finished=attempt, checksum=checksum)
        try:
            await self._pushes.save(image, finished, version)
        except LostRace:
            return False
        return await self._pushes.complete(image, finished, attempt)

    async def _require_space(self, wanted: int) -> None:
        free = await self._driver.free_space()
        if free is not None and free < wanted + self._policy.space_reserve:
            raise NoSpace("", f"{wanted} bytes are offered, {free} are free")


def _is_late(held: Held, session: str | None) -> bool:
    """Whether an image is finished, and by another client than this one, which had begun to push it."""
    if held.state is not State.DONE or session is None:
        return False
    finished = None if held.push is None else held.push.finished
    return finished is None or finished.id != session


def _arrived(held: Held, attempt: Attempt, session: str | None) -> tuple[Event, str]:
    """What the coming of a layer means for the push as it is now, and the announced checksum that it has."""
    if held.push is None or held.push.json_digest != attempt.image_json:
        return Event.LAYER_MISMATCHED, ""  # the JSON was replaced, and with it all checksums
    if session is not None and not has_announced(session):
        return Event.LAYER_UNCHECKED, ""  # its own checksum will come, whatever another client announced
    for checksum in held.push.announced:
        if checksum in attempt.checksums:
            return Event.LAYER_MATCHED, checksum
    told = session is not None or held.push.expected is not None
    return (Event.LAYER_MISMATCHED if told else Event.LAYER_UNCHECKED), ""


async def _drop(partial: IPartial) -> None:
    try:
        await partial.cancel()
    except StorageError:
        # What cannot be removed is left to the sweep of dead uploads.
        return
    finally:
        await partial.close()
