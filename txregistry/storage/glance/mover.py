"""Brings things to rest: bytes from the alternate into Glance, and images out of Glance that nothing may be left of.

Each step is a change of the record by compare and swap, and every id under which an image may ever be made is in the
record before it is made. So whoever takes over from a mover that died, or sleeps, knows what may be left of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from twisted.logger import Logger

from txregistry.errors import LostRace, NotFound, StorageError, Unavailable
from txregistry.interfaces import IReader, IStorageDriver
from txregistry.storage import layout
from txregistry.storage.glance.client import Glance, fits
from txregistry.storage.glance.places import DIGEST, Places, Thing
from txregistry.storage.glance.reader import open_image
from txregistry.storage.glance.records import ALTERNATE, DELETED, GLANCE, GONE, Held, Record, Records
from txregistry.storage.openstack.http import Upload
from txregistry.storage.pool import Lanes

#: A claim is renewed so often, and may be taken over when it was not for so long, in seconds.
RENEW, LEASE = 20.0, 120.0
_SWAPS = 20
_PIECE = 1024 * 1024
#: What of a V1 image its properties repeat, where they fit, for those who look at Glance.
_REPEATED = ("json", "ancestry", "_checksum")
_REPEATED_LIMIT = 64 * 1024

_log = Logger()


class Mover:
    """Works on one thing at a time; `moved` and `cleared` count what came to rest, for whoever wants to know."""

    def __init__(
        self,
        alternate: IStorageDriver,
        records: Records,
        client: Glance,
        places: Places,
        pool: Lanes,
        seconds: Callable[[], float],
    ) -> None:
        self._alternate, self._records, self._client = alternate, records, client
        self._places, self._pool, self._seconds = places, pool, seconds
        self.moved = self.cleared = 0

    async def settle(self, path: str) -> bool:
        """Do what is left to do with a thing; False if somebody else is at it. StorageError if it cannot be done."""
        for _ in range(_SWAPS):
            held = await self._records.load(path)
            if held is None or held.record.at_rest:
                return True
            try:
                if held.record.state == ALTERNATE:
                    if self._is_claimed(held.record):
                        return False
                    await self._move(path, held)
                elif held.record.state == DELETED:
                    await self._clear(path, held)
                else:
                    await self._burn_old(path, held)
            except LostRace:
                continue
        raise Unavailable(path, "changed by somebody else, again and again")

    def _is_claimed(self, record: Record) -> bool:
        return bool(record.claim) and abs(self._seconds() - record.claimed) < LEASE

    # -- out of Glance --------------------------------------------------------------------------------------------

    async def _clear(self, path: str, held: Held) -> None:
        """Delete every image of a thing that was deleted, and then say so."""
        thing = self._places.thing(path)
        found = [] if thing is None else [each.id for each in await self._client.find({thing.key: thing.value}, path)]
        for image in dict.fromkeys((*held.record.images, *found)):
            await self._client.burn(image, path)
        await self._records.drop(held.record)
        await self._records.save(path, Record(GONE), held)
        self.cleared += 1

    async def _burn_old(self, path: str, held: Held) -> None:
        record = held.record
        dead = [each for each in (*record.old, record.claim) if each and each != record.image]
        for image in dead:
            await self._client.burn(image, path)
        await self._records.save(path, replace(record, old=(), claim="", claimed=0.0), held)

    # -- into Glance ----------------------------------------------------------------------------------------------

    async def _move(self, path: str, held: Held) -> None:
        """Claim a thing, send its bytes, see that they arrived, and let the record say where they are.

        LostRace when somebody else changed the record; whoever did has noted the image that is given up here.
        """
        work = _Work(self._records, path, held, self._seconds)
        await work.claim()
        try:
            sha512 = await self._send(work)
            await self._describe(work)
            done = Record(
                GLANCE, work.record.size, work.record.modified, image=work.record.claim, sha512=sha512,
                old=tuple(each for each in (*work.record.old, *work.record.twins) if each != work.record.claim),
            )  # fmt: skip
            await self._records.save(path, done, work.held)
        except LostRace:
            raise
        except Exception:
            await work.give_up()
            raise
        self.moved += 1
        # Its bytes are nobody's now; should they not go, the sweep takes them.
        with suppress(StorageError):
            await self._records.drop(work.record)

    async def _open(self, path: str, record: Record) -> IReader:
        for place in record.places():
            with suppress(NotFound):
                return await self._alternate.open(place)
        raise Unavailable(path, "its bytes are not in the alternate")

    async def _send(self, work: _Work) -> str:
        """Make the image and upload it; the sha512 of what was sent, which is what Glance has."""
        path, image, size = work.path, work.record.claim, work.record.size
        await self._client.create(image, {}, path)
        sums: list[Any] = []

        def body() -> Upload:
            sums[:] = [hashlib.sha512()]
            return Upload(size, self._pieces(work, sums[0]))

        await self._client.upload(image, body, path)
        sent: str = sums[0].hexdigest()
        found = await self._client.image(image, path)
        if not found.active or found.size != size or (found.sha512 or sent) != sent:
            raise Unavailable(path, f"Glance has other bytes than it was sent: {found.status}, {found.size} bytes")
        if not found.sha512 and await self._sum(image, work.record, path) != sent:
            raise Unavailable(path, "Glance has other bytes than it was sent")
        return sent

    async def _pieces(self, work: _Work, total: Any) -> AsyncIterator[bytes]:
        """The bytes of a thing. Where Glance answers early they are asked for until its connection has closed."""
        reader = await self._open(work.path, work.record)
        try:
            if reader.size != work.record.size:
                raise Unavailable(work.path, f"the alternate has {reader.size} bytes, not {work.record.size}")
            chunks = reader.chunks(0, reader.size)
            try:
                async for piece in chunks:
                    await self._pool.run(total.update, piece)
                    await work.renew()
                    yield piece
            finally:
                chunks.close()
        finally:
            reader.close()

    async def _sum(self, image: str, record: Record, path: str) -> str:
        """The sha512 of what Glance has, where it keeps sums of another kind."""
        total = hashlib.sha512()
        await self.feed(replace(record, image=image), path, total)
        return total.hexdigest()

    async def feed(self, record: Record, path: str, total: Any) -> None:
        """Hash the bytes of an image."""
        reader = await open_image(self._client, record, path)
        try:
            async for piece in reader.chunks(0, record.size):
                await self._pool.run(total.update, piece)
        finally:
            reader.close()

    async def _describe(self, work: _Work) -> None:
        """Tell Glance what the image is: from here on it can be found there."""
        thing = self._places.thing(work.path)
        properties = {} if thing is None else {thing.key: thing.value, **await self._repeated(thing)}
        properties = {name: value for name, value in properties.items() if fits(value)}
        if properties:
            await self._client.set(work.record.claim, properties, work.path)

    async def _repeated(self, thing: Thing) -> dict[str, str]:
        found: dict[str, str] = {}
        if thing.key == DIGEST:
            return found
        for part in _REPEATED:
            with suppress(StorageError, UnicodeDecodeError):  # a copy for others, no more
                data, _ = await self._alternate.read(layout.v1_image(thing.value, part), _REPEATED_LIMIT)
                found[f"meta_{part}"] = data.decode("utf-8")
        return found


class _Work:
    """A move under way: the record as it was last written, which is claimed for it."""

    def __init__(self, records: Records, path: str, held: Held, seconds: Callable[[], float]) -> None:
        self._records, self.path, self.held, self._seconds = records, path, held, seconds

    @property
    def record(self) -> Record:
        return self.held.record

    async def _save(self, record: Record) -> None:
        self.held = await self._records.save(self.path, record, self.held)

    async def claim(self) -> None:
        """Say under which id an image is going to be made; that of whoever did not get so far is noted."""
        record = self.record
        old = tuple(dict.fromkeys(each for each in (*record.old, record.claim) if each))
        await self._save(replace(record, claim=str(uuid4()), claimed=self._seconds(), old=old))

    async def renew(self) -> None:
        """Say again that somebody is at it."""
        now = self._seconds()
        if now - self.record.claimed >= RENEW:
            await self._save(replace(self.record, claimed=now))

    async def give_up(self) -> None:
        """Let others try at once, and note the image, of which nothing may be left."""
        record = self.record
        try:
            await self._save(replace(record, claim="", claimed=0.0, old=(*record.old, record.claim)))
        except StorageError as error:
            # Then the claim lapses by itself.
            _log.debug("{path}: a claim was not given up: {error}", path=self.path, error=error)
