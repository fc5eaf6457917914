"""Where the bytes of each thing are: one small object for each in the alternate, changed by compare and swap alone.

    _txregistry/state/glance/records/<path>          the record
    _txregistry/state/glance/bytes/<path>/<random>   bytes that are not in Glance; no name is used twice
    _txregistry/state/glance/pending/<random>        the path of a thing with which something is left to do

A thing without a record may lie at its own path in the alternate: manifests do. A record is never removed, as that
could not be made conditional: a deleted thing leaves one that says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple
from uuid import uuid4

from txregistry.errors import NotFound, Unavailable
from txregistry.interfaces import IStorageDriver, Version
from txregistry.storage import layout

HOME = f"{layout.STATE}/glance"
RECORDS = f"{HOME}/records"
BYTES = f"{HOME}/bytes"
PENDING = f"{HOME}/pending"
_LIMIT = 256 * 1024

#: The states: bytes in the alternate on their way to Glance; or staying there, as small objects do; bytes in Glance;
#: an image that says what it is, of which that was not seen yet; deleted, with images left in Glance; and nothing.
ALTERNATE, KEPT, GLANCE, UNPROVEN, DELETED, GONE = "alternate", "kept", "glance", "unproven", "deleted", "gone"
LIVE = frozenset({ALTERNATE, KEPT, GLANCE})


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a thing; `size` in bytes, times in seconds of the epoch.

    `name` is where its bytes are in the alternate, or still at `source`. `image` is the id of an image with them, and
    `twins` are others that old servers made for the same thing. `claim` is the id of an image that somebody is about
    to make, who last said so at `claimed`. `old` are ids that nothing may be left of.
    """

    state: str
    size: int = 0
    modified: float = 0.0
    name: str = ""
    source: str = ""
    image: str = ""
    sha512: str = ""
    claim: str = ""
    claimed: float = 0.0
    twins: tuple[str, ...] = ()
    old: tuple[str, ...] = ()

    @property
    def live(self) -> bool:
        """Whether there are bytes."""
        return self.state in LIVE

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left to do."""
        return not self.old and not self.claim and self.state in (KEPT, GLANCE, UNPROVEN, GONE)

    @property
    def images(self) -> tuple[str, ...]:
        """The ids of all images that there are, or may be."""
        return tuple(dict.fromkeys(each for each in (*self.old, self.image, self.claim, *self.twins) if each))

    def places(self) -> list[str]:
        """Where its bytes may be in the alternate, in the order to look."""
        return [place for place in (self.name, self.source) if place]

    def encode(self) -> bytes:
        """As JSON; what is empty is left out."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """From JSON."""
        fields = json.loads(data)
        for name in ("twins", "old"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)


class Held(NamedTuple):
    """A record and the version that a change of it has to match."""

    record: Record
    version: Version


class Records:
    """The records of one alternate."""

    def __init__(self, alternate: IStorageDriver) -> None:
        self._alternate = alternate

    async def load(self, path: str) -> Held | None:
        """The record of the thing at a path."""
        where = f"{RECORDS}/{path}"
        try:
            data, version = await self._alternate.read(where, _LIMIT)
        except NotFound:
            return None
        try:
            return Held(Record.decode(data), version)
        except (ValueError, TypeError, AttributeError):
            raise Unavailable(where, "it cannot be understood; it may be of a later version") from None

    async def save(self, path: str, record: Record, before: Held | None) -> Held:
        """Replace a record, or make the first; LostRace when somebody else was faster."""
        if before is None:
            version = await self._alternate.put(f"{RECORDS}/{path}", record.encode(), if_absent=True)
        else:
            version = await self._alternate.put(f"{RECORDS}/{path}", record.encode(), if_match=before.version)
        return Held(record, version)

    async def settle(self, path: str) -> None:
        """Make a record durable."""
        with suppress(NotFound):
            await self._alternate.settle(f"{RECORDS}/{path}")

    @staticmethod
    def new_name(path: str) -> str:
        """A place for bytes that was never used."""
        return f"{BYTES}/{path}/{uuid4().hex}"

    @staticmethod
    def name_for(path: str, what: str) -> str:
        """A place for the bytes that `what` describes, the same for all who ask."""
        return f"{BYTES}/{path}/{hashlib.sha256(what.encode()).hexdigest()[:32]}"

    async def drop(self, record: Record, kept: Sequence[str] = ()) -> None:
        """Remove the bytes of a record from the alternate, now that it holds no more."""
        for place in record.places():
            if place in kept:
                continue
            with suppress(NotFound):
                await self._alternate.remove(place)

    # -- what is left to do ---------------------------------------------------------------------------------------

    async def announce(self, path: str) -> None:
        """Note that something will be left to do; before it is, so that no crash can hide it."""
        await self._alternate.put(f"{PENDING}/{uuid4().hex}", path.encode())

    async def pending(self) -> list[tuple[str, str]]:
        """The notes, each with the path that it is about."""
        found = []
        async for name, _ in self.entries(PENDING):
            with suppress(NotFound):
                data, _ = await self._alternate.read(f"{PENDING}/{name}", _LIMIT)
                found.append((name, data.decode()))
        return found

    async def done(self, note: str) -> None:
        """Forget a note: nothing was left to do after it was seen."""
        with suppress(NotFound):
            await self._alternate.remove(f"{PENDING}/{note}")

    # -- all of them ----------------------------------------------------------------------------------------------

    async def entries(self, directory: str) -> AsyncIterator[tuple[str, bool]]:
        """The children of a directory of the alternate, and whether each is a directory."""
        cursor: str | None = None
        while True:
            page = await self._alternate.list(directory, cursor)
            for entry in page.entries:
                yield entry.name, entry.is_directory
            cursor = page.cursor
            if cursor is None:
                return

    async def walk(self, prefix: str, root: str = RECORDS) -> AsyncIterator[str]:
        """The paths of all things below a directory that have records, or whatever else lies below `root`."""
        waiting = [prefix]
        while waiting:
            directory = waiting.pop()
            async for name, is_directory in self.entries(f"{root}/{directory}".rstrip("/")):
                path = f"{directory}/{name}".lstrip("/")
                if is_directory:
                    waiting.append(path)
                else:
                    yield path

    async def sweep(self, before: float) -> int:
        """Remove bytes that no record names and that are older than `before`, in seconds of the epoch; how many."""
        removed = 0
        async for name in self.walk("", BYTES):
            place = f"{BYTES}/{name}"
            with suppress(NotFound):
                if (await self._alternate.stat(place)).modified >= before:
                    continue
                held = await self.load(name.rpartition("/")[0])
                if held is None or place not in held.record.places():
                    await self._alternate.remove(place)
                    removed += 1
        return removed

    async def any_live(self, prefix: str) -> bool:
        """Whether there is a thing with a record below a directory."""
        async for path in self.walk(prefix):
            held = await self.load(path)
            if held is not None and (held.record.live or held.record.state == UNPROVEN):
                return True
        return False


def replaced(record: Record | None, now: Record) -> Record:
    """A record that takes the place of another, whose images nothing may be left of."""
    return now if record is None else replace(now, old=record.images)
