"""A look at every record: what is not at rest is brought there, and what Glance lost is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from txregistry.errors import NotFound, StorageError
from txregistry.interfaces import IStorageDriver, Reconciled
from txregistry.storage.glance.adoption import Adoption
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.mover import LEASE, Mover
from txregistry.storage.glance.names import Names
from txregistry.storage.glance.records import ALTERNATE, GLANCE, KEPT, RECORDS, Record, Records
from txregistry.storage.glance.store import claim

#: Seconds between two looks at what somebody else is at, or what failed; and how often it may fail.
_WAIT, _ATTEMPTS = 2.0, 4


class Reconciler:
    """One run; servers may be at work meanwhile."""

    def __init__(
        self,
        client: Glance,
        alternate: IStorageDriver,
        records: Records,
        mover: Mover,
        adoption: Adoption,
        names: Names,
        reactor: Any,
    ) -> None:
        self._client, self._alternate, self._records = client, alternate, records
        self._mover, self._adoption, self._names, self._reactor = mover, adoption, names, reactor
        self._left: list[str] = []
        self._failed: Counter[str] = Counter()
        self._lost: list[str] = []

    async def run(self, tell: Callable[[str], None]) -> Reconciled:
        """See IReconciles. Unavailable when Glance does not answer at all."""
        await self._client.check()
        await claim(self._client, self._alternate)
        adopted = await self._adoption.scan()
        notes = await self._records.pending()
        moved, cleared = self._mover.moved, self._mover.cleared
        seen = 0
        busy: list[str] = []
        async for path in self._records.walk("", RECORDS):
            seen += 1
            if not await self._settle(path, tell):
                busy.append(path)
        await self._wait_for(busy, tell)
        for note, path in notes:
            held = await self._records.load(path)
            if held is None or held.record.at_rest:
                await self._records.done(note)
        renamed = await self._names.right()
        return Reconciled(
            seen=seen,
            moved=self._mover.moved - moved,
            removed=self._mover.cleared - cleared,
            adopted=adopted,
            renamed=renamed,
            left=tuple(self._left),
            lost=tuple(self._lost),
        )

    async def _wait_for(self, busy: list[str], tell: Callable[[str], None]) -> None:
        """Come back to what others are at, until they are done or must be dead."""
        until = self._reactor.seconds() + LEASE + 2 * _WAIT
        while busy and self._reactor.seconds() < until:
            await deferLater(self._reactor, _WAIT)
            busy = [path for path in busy if not await self._settle(path, tell)]
        for path in busy:
            self._leave(path, "another server is at it", tell)

    async def _settle(self, path: str, tell: Callable[[str], None]) -> bool:
        """Bring a thing to rest, and see that its bytes are where its record says.

        False if it has to be come back to, as somebody else is at it, or it failed and that may pass.
        """
        try:
            if not await self._mover.settle(path):
                return False
            held = await self._records.load(path)
            reason = None if held is None else await self._missing(held.record, path)
            if reason is not None and held == await self._records.load(path):
                self._lost.append(path)
                tell(f"{path}: lost: {reason}")
        except StorageError as error:
            self._failed[path] += 1
            if self._failed[path] < _ATTEMPTS:
                return False
            self._leave(path, error.reason or type(error).__name__, tell)
        return True

    def _leave(self, path: str, reason: str, tell: Callable[[str], None]) -> None:
        self._left.append(path)
        tell(f"{path}: left as it is: {reason}")

    async def _missing(self, record: Record, path: str) -> str | None:
        """What is wrong with the bytes of a record; None if they are there."""
        if record.state == GLANCE:
            try:
                image = await self._client.image(record.image, path)
            except NotFound:
                return f"Glance has no image {record.image}"
            if not image.active:
                return f"the image {image.id} is {image.status}"
            if image.size != record.size or (record.sha512 and image.sha512 and image.sha512 != record.sha512):
                return f"the image {image.id} has other bytes"
        elif record.state in (ALTERNATE, KEPT):
            for place in record.places():
                try:
                    await self._alternate.stat(place)
                    return None
                except NotFound:
                    continue
            return "its bytes are not in the alternate"
        return None
