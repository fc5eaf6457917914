"""What Glance holds of which the alternate has no record: what old servers wrote, and what others put there.

Glance is searched once as a whole. What docker-registry wrote through version 1 of the API has its id in a property
that version 2 shows to nobody, so it is known by the JSON of the image. Its parts are copied into the alternate; its
layer stays where it is. From then on a thing without a record is looked for by its property, while Glance answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from twisted.logger import Logger

from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.interfaces import IStorageDriver
from txregistry.storage import layout
from txregistry.storage.glance.client import Glance, Image
from txregistry.storage.glance.mover import Mover
from txregistry.storage.glance.places import DIGEST, IMAGE_ID, Places, Thing
from txregistry.storage.glance.records import GLANCE, GONE, HOME, UNPROVEN, Held, Record, Records
from txregistry.storage.jobs import Shared

SCANNED = f"{HOME}/scanned"
#: For so many seconds a thing that Glance did not have is not looked for again, and of so many things that is known.
FORGET, REMEMBERED = 30.0, 10000
#: What old servers called the parts of an image that are properties; the mark first, that none is seen half done.
PARTS = ("_inprogress", "ancestry", "_checksum", "_files", "_diff", "json")
_META = "meta_"
_DOCKER_ID = re.compile(r"[0-9a-f]{64}\Z")
_HASHES = {"sha256": 64, "sha512": 128}

_log = Logger()


class Adoption:
    """Finds them, and writes their records."""

    def __init__(
        self,
        alternate: IStorageDriver,
        records: Records,
        client: Glance,
        places: Places,
        mover: Mover,
        seconds: Callable[[], float],
    ) -> None:
        self._alternate, self._records, self._client = alternate, records, client
        self._places, self._mover, self._seconds = places, mover, seconds
        self._scanned = False
        self._search = Shared(self.scan)
        self._missed: dict[str, float] = {}

    async def ready(self) -> None:
        """Wait until Glance was searched once, by whichever process. Unavailable while it does not answer."""
        if self._scanned:
            return
        try:
            await self._alternate.stat(SCANNED)
        except NotFound:
            await self._search.ask()
        self._scanned = True

    async def look(self, thing: Thing) -> bool:
        """Look for a thing of which there is no record; whether there is one now.

        Not found where Glance does not answer: the search has seen all that there was.
        """
        await self.ready()
        if await self._records.load(thing.path) is not None:
            return True
        now = self._seconds()
        if now - self._missed.get(thing.path, now - 2 * FORGET) < FORGET:
            return False
        try:
            found = await self._client.find({thing.key: thing.value}, thing.path)
        except Unavailable:
            return False
        await self._adopt(thing, [each for each in found if each.properties.get(thing.key) == thing.value])
        if await self._records.load(thing.path) is not None:
            return True
        if len(self._missed) >= REMEMBERED:
            self._missed.clear()
        self._missed[thing.path] = now
        return False

    # -- the search -----------------------------------------------------------------------------------------------

    async def scan(self) -> int:
        """Search all of our project's images; how many things were found of which there was no record."""
        groups: dict[str, tuple[Thing, list[Image]]] = {}
        for image in await self._client.find({}):
            thing = self._thing_of(image)
            if thing is not None:
                groups.setdefault(thing.path, (thing, []))[1].append(image)
        adopted = 0
        for thing, images in groups.values():
            adopted += await self._adopt(thing, images)
        await self._alternate.put(SCANNED, b"")
        if adopted:
            _log.info("found {adopted} layers and blobs in Glance that were there before", adopted=adopted)
        return adopted

    def _thing_of(self, image: Image) -> Thing | None:
        digest = image.properties.get(DIGEST)
        if digest is not None:
            algorithm, _, text = digest.partition(":")
            if len(text) != _HASHES.get(algorithm) or re.search("[^0-9a-f]", text):
                return None
            return self._places.thing(f"{layout.BLOBS}/{algorithm}/{text[:2]}/{text}/data")
        known = image.properties.get(IMAGE_ID) or _id_in(image.properties.get(f"{_META}json"))
        return self._places.thing(layout.v1_image(known, "layer")) if known and _DOCKER_ID.match(known) else None

    async def _adopt(self, thing: Thing, images: list[Image]) -> bool:
        """Write the record of a thing that these images are about; whether there was none and now is."""
        if not images or await self._records.load(thing.path) is not None:
            return False
        # Nobody wrote two on purpose: the oldest was the one that old servers found.
        whole = [each for each in images if each.active]
        if thing.key == DIGEST:
            if not whole:
                return False
            record = Record(UNPROVEN, twins=tuple(each.id for each in whole))
        else:
            await self._copy_parts(thing, [*whole, *images][0])
            if whole:
                record = _record_of(whole[0], tuple(each.id for each in images if each is not whole[0]))
            else:
                record = Record(GONE, twins=tuple(each.id for each in images))
        try:
            await self._records.save(thing.path, record, None)
        except LostRace:
            return False
        return True

    async def _copy_parts(self, thing: Thing, image: Image) -> None:
        """Put what an image says of itself where it is looked for."""
        for part in PARTS:
            value = image.properties.get(f"{_META}{part}")
            if value is not None:
                with suppress(LostRace):
                    path = layout.v1_image(thing.value, part)
                    await self._alternate.put(path, value.encode("utf-8"), if_absent=True)

    # -- proof ----------------------------------------------------------------------------------------------------

    async def prove(self, thing: Thing, held: Held) -> None:
        """Hash the images that claim to be a blob; the record says then which of them is, or that none is."""
        algorithm, _, expected = thing.value.partition(":")
        now = Record(GONE, old=())
        for candidate in held.record.twins:
            try:
                image = await self._client.image(candidate, thing.path)
            except NotFound:
                continue
            if not image.active or image.owner != await self._client.owner():
                continue
            record, total = _record_of(image), hashlib.new(algorithm)
            await self._mover.feed(record, thing.path, total)
            if total.hexdigest() == expected:
                now = record
                break
            _log.warn("the image {image} in Glance is not {digest}", image=candidate, digest=thing.value)
        with suppress(LostRace):
            await self._records.save(thing.path, now, held)


def _id_in(document: str | None) -> str | None:
    """The id in the JSON of a V1 image."""
    try:
        found = json.loads(document or "null")
    except (ValueError, RecursionError):
        return None
    known = found.get("id") if isinstance(found, dict) else None
    return known if isinstance(known, str) else None


def _record_of(image: Image, twins: tuple[str, ...] = ()) -> Record:
    try:
        modified = datetime.fromisoformat(image.created).timestamp()
    except ValueError:
        modified = 0.0
    return Record(GLANCE, image.size or 0, modified, image=image.id, sha512=image.sha512, twins=twins)
