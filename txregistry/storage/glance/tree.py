"""Objects by their paths, over the records: where each verb finds its bytes, and how a thing gets other ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from txregistry.errors import LostRace, NotFound, StorageError, TooLarge, Unavailable
from txregistry.interfaces import Entry, IReader, IStorageDriver, Page, Stat, Version, request_access
from txregistry.storage.glance.adoption import Adoption
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.places import Places, Thing
from txregistry.storage.glance.reader import open_image
from txregistry.storage.glance.records import (
    ALTERNATE,
    DELETED,
    GLANCE,
    KEPT,
    RECORDS,
    UNPROVEN,
    Held,
    Record,
    Records,
    replaced,
)

T = TypeVar("T")

#: How often a thing is looked at again that somebody changes at the same moment.
SWAPS = 50
#: What the cursors of a listing begin with: those of what the alternate lists, and of what has records.
_LISTED, _RECORDED = "a", "r"


class Tree:
    """What the driver's verbs do; `changed` is called when something is left to do in the background."""

    def __init__(
        self,
        alternate: IStorageDriver,
        records: Records,
        client: Glance,
        places: Places,
        adoption: Adoption,
        seconds: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._alternate, self._records, self._client = alternate, records, client
        self._places, self._adoption = places, adoption
        self._seconds, self._changed = seconds, changed

    # -- finding --------------------------------------------------------------------------------------------------

    async def _held(self, thing: Thing) -> Held | None:
        """A thing's record, after what it says of itself was proven; None if what lies at its path counts."""
        await self._adoption.ready()
        for _ in range(SWAPS):
            held = await self._records.load(thing.path)
            if held is None or held.record.state != UNPROVEN:
                return held
            await self._adoption.prove(thing, held)
        raise Unavailable(thing.path, "changed by somebody else, again and again")

    async def _plain(self, path: str, verb: Callable[[str], Awaitable[T]]) -> T:
        """A verb of the alternate on what is not for Glance; parts of an image of an old server are copied first."""
        beside = self._places.beside(path)
        if beside is None:
            return await verb(path)
        await self._adoption.ready()
        try:
            return await verb(path)
        except NotFound:
            if await self._records.load(beside.path) is not None or not await self._adoption.look(beside):
                raise
        return await verb(path)

    async def _with_bytes(
        self, path: str, plain: Callable[[str], Awaitable[T]], glance: Callable[[Record], Awaitable[T]]
    ) -> T:
        """A verb on an object's bytes, by `plain` where they are in the alternate, else by `glance`."""
        thing = self._places.thing(path)
        if thing is None:
            return await self._plain(path, plain)
        before: Held | None = None
        for _ in range(SWAPS):
            held = await self._held(thing)
            if held is None:
                try:
                    return await plain(path)
                except NotFound:
                    if not await self._adoption.look(thing):
                        raise
                continue
            record = held.record
            if not record.live:
                raise NotFound(path)
            try:
                if record.state == GLANCE:
                    return await glance(record)
                for place in record.places():
                    with suppress(NotFound):
                        return await plain(place)
            except NotFound:
                if held == before:
                    raise
            # They may have been moved since the record was read; if not, they are gone.
            if held == before:
                raise Unavailable(path, "its bytes are not in the alternate")
            before = held
        raise Unavailable(path, "changed by somebody else, again and again")

    async def read(self, path: str, limit: int) -> tuple[bytes, Version]:
        """See IStorageDriver."""

        async def glance(record: Record) -> tuple[bytes, Version]:
            if record.size > limit:
                raise TooLarge(path, f"{record.size} bytes, {limit} at most")
            reader = await open_image(self._client, record, path, request_access.get())
            try:
                data = b"".join([piece async for piece in reader.chunks(0, record.size)])
            finally:
                reader.close()
            return data, _version(record)

        return await self._with_bytes(path, lambda place: self._alternate.read(place, limit), glance)

    async def open(self, path: str) -> IReader:
        """See IStorageDriver."""

        async def glance(record: Record) -> IReader:
            return await open_image(self._client, record, path, request_access.get())

        return await self._with_bytes(path, self._alternate.open, glance)

    async def settle(self, path: str) -> None:
        """See IStorageDriver."""

        async def glance(_record: Record) -> None:
            # It was active before the record said so.
            return None

        if self._places.thing(path) is not None:
            await self._records.settle(path)
        await self._with_bytes(path, self._alternate.settle, glance)

    async def stat(self, path: str) -> Stat:
        """See IStorageDriver. What a record says of a thing is enough."""
        thing = self._places.thing(path)
        if thing is not None:
            held = await self._held(thing)
            if held is None and await self._missing(path) and await self._adoption.look(thing):
                held = await self._held(thing)
            if held is not None:
                if not held.record.live:
                    raise NotFound(path)
                return Stat(held.record.size, held.record.modified, is_directory=False)
            return await self._alternate.stat(path)
        try:
            return await self._plain(path, self._alternate.stat)
        except NotFound:
            if self._places.above(path) and await self._records.any_live(path):
                return Stat(0, 0.0, is_directory=True)
            raise

    async def _missing(self, path: str) -> bool:
        try:
            await self._alternate.stat(path)
        except NotFound:
            return True
        return False

    async def list(self, prefix: str, cursor: str | None, limit: int) -> Page:
        """See IStorageDriver: what the alternate lists, then the things that are not at their path there."""
        if not self._places.above(prefix):
            return await self._alternate.list(prefix, cursor, limit)
        await self._adoption.ready()
        kind, inner = (cursor[0], cursor[1:] or None) if cursor else (_LISTED, None)
        entries: list[Entry] = []
        if kind == _LISTED:
            page = await self._alternate.list(prefix, inner, limit)
            if page.cursor is not None:
                return Page(page.entries, _LISTED + page.cursor)
            entries, inner = list(page.entries), None
            if len(entries) == limit:
                return Page(page.entries, _RECORDED)
        page = await self._alternate.list(f"{RECORDS}/{prefix}".rstrip("/"), inner, limit - len(entries))
        for entry in page.entries:
            if await self._listed(f"{prefix}/{entry.name}".lstrip("/"), entry):
                entries.append(entry)
        return Page(tuple(entries), None if page.cursor is None else _RECORDED + page.cursor)

    async def _listed(self, path: str, entry: Entry) -> bool:
        """Whether something is there that the alternate does not list itself."""
        if not await self._missing(path):
            return False
        if entry.is_directory:
            return await self._records.any_live(path)
        held = await self._records.load(path)
        return held is not None and (held.record.live or held.record.state == UNPROVEN)

    # -- changing -------------------------------------------------------------------------------------------------

    async def install(self, thing: Thing, size: int, name: str) -> None:
        """Let these bytes of the alternate be those of a thing, which are to be moved to Glance."""

        async def now() -> Record:
            return Record(ALTERNATE, size, self._seconds(), name=name)

        await self._install(thing, name, now)

    async def _install(self, thing: Thing, name: str, now: Callable[[], Awaitable[Record]]) -> None:
        """Write a record, which is made after the one before it was seen."""
        await self._records.announce(thing.path)
        for _ in range(SWAPS):
            held = await self._records.load(thing.path)
            if held is not None and held.record.name == name:
                break  # it is done: by another, or by a request that was repeated on its way
            record = await now()
            try:
                await self._records.save(thing.path, replaced(None if held is None else held.record, record), held)
            except LostRace:
                continue
            await self._forget(thing.path, None if held is None else held.record, record)
            break
        else:
            raise Unavailable(thing.path, "changed by somebody else, again and again")
        self._changed()

    async def _forget(self, path: str, record: Record | None, now: Record) -> None:
        """Remove from the alternate what a change has replaced; what cannot be removed is left to the sweep."""
        with suppress(StorageError):
            if record is None:
                await self._alternate.remove(path)
            else:
                await self._records.drop(record, now.places())

    async def put(self, path: str, data: bytes, if_absent: bool, if_match: Version | None) -> Version:
        """See IStorageDriver. A thing that has a record gets other bytes by it; those are small, and stay."""
        thing = self._places.thing(path)
        if thing is None:
            if if_absent and (beside := self._places.beside(path)) is not None:
                await self._adoption.look(beside)
            return await self._alternate.put(path, data, if_absent, if_match)
        if if_absent or if_match is not None:
            await self.stat_quietly(path)
        for _ in range(SWAPS):
            held = await self._records.load(path)
            if held is None:
                return await self._alternate.put(path, data, if_absent, if_match)
            if held.record.live if if_absent else if_match is not None and await self._version(path) != if_match:
                raise LostRace(path)
            name = self._records.new_name(path)
            version = await self._alternate.put(name, data)
            now = replaced(held.record, Record(KEPT, len(data), self._seconds(), name=name))
            if now.old:
                await self._records.announce(path)
            try:
                await self._records.save(path, now, held)
            except LostRace:
                await self._forget(path, now, held.record)
                continue
            await self._forget(path, held.record, now)
            if now.old:
                self._changed()
            return version
        raise Unavailable(path, "changed by somebody else, again and again")

    async def stat_quietly(self, path: str) -> None:
        """Look for something, so that whatever an old server left is known."""
        with suppress(NotFound):
            await self.stat(path)

    async def _version(self, path: str) -> Version | None:
        try:
            return (await self.read(path, 1 << 30))[1]
        except NotFound:
            return None

    async def move(self, source: str, target: str) -> None:
        """See IStorageDriver. The record is written first, and says from where to where its bytes go.

        So there is never a moment without them; and of two who do the same, whose names are the same, one does it.
        """
        aim = self._places.thing(target)
        if aim is None:
            await self._alternate.move(source, target)
            return
        found = await self._alternate.stat(source)
        name = self._records.name_for(target, f"{source} {found.size} {found.modified!r}")

        async def now() -> Record:
            # Seen after the record before it: whoever moved it away meanwhile has changed that.
            size = (await self._alternate.stat(source)).size
            return Record(ALTERNATE, size, self._seconds(), name=name, source=source)

        await self._install(aim, name, now)
        with suppress(NotFound):
            await self._alternate.move(source, name)

    async def remove(self, path: str) -> None:
        """See IStorageDriver. Each thing gets its tombstone first."""
        thing = self._places.thing(path)
        found = False
        if thing is not None:
            await self.stat_quietly(path)
            found = await self._delete(path)
        elif self._places.above(path):
            await self._adoption.ready()
            async for each in self._records.walk(path):
                found |= await self._delete(each)
        try:
            await self._alternate.remove(path)
        except NotFound:
            if not found:
                raise
        if found:
            self._changed()

    async def _delete(self, path: str) -> bool:
        """Let the record of a thing say that it is deleted; whether there was one."""
        for _ in range(SWAPS):
            held = await self._records.load(path)
            if held is None or not (held.record.live or held.record.state == UNPROVEN):
                return False
            await self._records.announce(path)
            now = replace(replaced(held.record, Record(DELETED)), modified=self._seconds())
            try:
                await self._records.save(path, now, held)
            except LostRace:
                continue
            await self._forget(path, held.record, now)
            return True
        raise Unavailable(path, "changed by somebody else, again and again")


def _version(record: Record) -> Version:
    return Version(f"sha512-{record.sha512 or record.image}")
