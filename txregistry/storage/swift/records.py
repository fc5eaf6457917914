"""Who holds something and what was last saved of it: compare and swap on a store that can only create.

The records and the rules of their chain are those of `storage/segmented`; on Swift one may rely on less than on S3.
A listing may be late, so each record that matters is asked for itself, and all its copies are. And that nothing is
there yet is looked at when a PUT begins, so that of two at the same moment both may succeed, of which the later one
stays. Therefore whoever has written a record looks whether it is still his own, after as long as a rival's request can
be expected to take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound
from txregistry.storage.jobs import all_of
from txregistry.storage.segmented.records import NeverStood, Record
from txregistry.storage.swift.container import Container

#: How many times the duration of its own PUT a claim waits for rivals, and the shortest wait in seconds.
RIVALS, SHORTEST = 2.0, 0.02
#: How often records are looked for that change meanwhile, and seconds between.
LOOKS, PAUSE = 5, 0.1


@dataclass(frozen=True, slots=True)
class Held:
    """A record in its place; `age` is in seconds, by the clock of the store."""

    number: int
    etag: str
    record: Record
    age: float


class Records:
    """The records of one thing; `prefix` is what their keys begin with, and `path` what errors are about."""

    def __init__(self, container: Container, path: str, prefix: str) -> None:
        self._container, self._path, self._prefix = container, path, prefix
        self._now: Callable[[], float] = container.connection.http.seconds

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:08d}"

    async def latest(self) -> Held:
        """The record that holds. NotFound."""
        for _ in range(LOOKS):
            numbers = {int(each.key[len(self._prefix) :]) for each in await self._container.keys(self._prefix)}
            found, changing = await self._look(sorted(numbers or {0}))
            if found is not None:
                if found.record.ended:
                    raise NotFound(self._path)
                return found
            if not changing:
                raise NotFound(self._path)
            await self._container.connection.http.sleep(PAUSE)
        # Names that a late listing still has, of what is gone.
        raise NotFound(self._path)

    async def _look(self, numbers: list[int]) -> tuple[Held | None, bool]:
        """The newest record that follows one; and whether others were listed that are not there any more."""
        below: dict[int, str] = {}
        there: list[Held] = []
        changing = False
        # Upward beyond the listing too.
        queue = [*numbers, numbers[-1] + 1]
        while queue:
            number = queue.pop(0)
            if number == 0:
                continue
            try:
                data, seen = await self._container.get(self._key(number), newest=True)
            except NotFound:
                changing = changing or number in numbers
                continue
            below[number] = seen.etag
            there.append(Held(number, seen.etag, Record.decode(data), seen.age))
            if not queue:
                queue.append(number + 1)
        for held in reversed(there):
            if held.record.follows(held.number, below.get(held.number - 1)):
                return held, changing
        return None, changing

    async def append(self, number: int, record: Record, rivals: bool = False) -> str:
        """Write the record with this number; its ETag. LostRace, or NeverStood where that is certain.

        `rivals` says that others may be about to do the same.
        """
        began = self._now()
        data = record.encode()
        try:
            etag = await self._container.put(self._key(number), data, if_absent=True)
        except LostRace:
            raise NeverStood(self._path) from None
        if rivals:
            await self._container.connection.http.sleep(max(SHORTEST, RIVALS * (self._now() - began)))
        own, before, after = await all_of([start(self._etag(number + step)) for step in (0, -1, 1)])
        if own != etag or after is not None or not record.follows(number, before):
            # Removal goes upward. So where ours is there and its successor is not, it never belonged to a chain;
            # where it is gone, or has a successor, others may have gone on from it.
            if own == etag and after is None:
                await self._container.delete(self._key(number))
                raise NeverStood(self._path)
            raise LostRace(self._path)
        if number > 2:
            await self._container.delete(self._key(number - 2))
        return etag

    async def _etag(self, number: int) -> str | None:
        if number < 1:
            return None
        try:
            return (await self._container.head(self._key(number), newest=True)).etag
        except NotFound:
            return None

    async def remove(self) -> None:
        """Remove all, the newest, which says that it has ended, last."""
        for each in await self._container.keys(self._prefix):
            await self._container.delete(each.key)

    async def release(self, held: Held) -> None:
        """Remove a record that is still the newest and whoever wrote it needs no more, and those before it."""
        for number in range(max(1, held.number - 1), held.number + 1):
            if number < held.number or await self._etag(number) == held.etag:
                await self._container.delete(self._key(number))
