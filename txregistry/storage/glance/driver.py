"""The Glance driver: an engine whose large objects are images, over another one that has all else and the say.

What is written is acknowledged once it is in the alternate, and moved to Glance in the background. So Glance may be
out at any time: what was not moved yet is served by the alternate, and what was is Unavailable.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from zope.interface import alsoProvides, implementer

from txregistry.concurrency import start
from txregistry.errors import NotFound, Unavailable
from txregistry.interfaces import (
    IHidesPartials,
    IPartial,
    IReader,
    IReconciles,
    IStorageDriver,
    ISweeps,
    Page,
    PartialInfo,
    Reconciled,
    Stat,
    Version,
)
from txregistry.storage import layout
from txregistry.storage.glance.adoption import Adoption
from txregistry.storage.glance.background import Background
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.mover import Mover
from txregistry.storage.glance.names import Names
from txregistry.storage.glance.places import Places, Thing, is_repository
from txregistry.storage.glance.reconcile import Reconciler
from txregistry.storage.glance.records import Record, Records
from txregistry.storage.glance.tree import Tree
from txregistry.storage.openstack.http import Upload
from txregistry.storage.pool import Lanes
from txregistry.storage.wrapped import WrappedPartial

#: Age in seconds at which bytes in the alternate that no record names are leftovers, of whatever was ever so slow.
LEFTOVER = 24 * 3600.0


@implementer(IStorageDriver, ISweeps, IReconciles)
class GlanceDriver:
    """The contract of `IStorageDriver` over an alternate and a Glance; the pool belongs to whoever made it.

    `reactor` tells the time and calls later; one that cannot do that leaves what is to be done to other processes.
    `look` is done by `prepare`, and blocks.
    """

    def __init__(
        self,
        alternate: IStorageDriver,
        client: Glance,
        pool: Lanes,
        reactor: Any,
        places: Places | None = None,
        look: Callable[[], None] | None = None,
    ) -> None:
        self.alternate, self.client = alternate, client
        self._look, self._places = look, places or Places()
        self.records = Records(alternate)
        self.mover = Mover(alternate, self.records, client, self._places, pool, reactor.seconds)
        self.adoption = Adoption(alternate, self.records, client, self._places, self.mover, reactor.seconds)
        self.names = Names(alternate, self.records, client)
        self.background = Background(client, alternate, self.records, self.mover, self.adoption, self.names, reactor)
        self._tree = Tree(
            alternate, self.records, client, self._places, self.adoption, reactor.seconds, self.background.kick
        )
        self._reactor = reactor
        if IHidesPartials.providedBy(alternate):
            alsoProvides(self, IHidesPartials)

    def prepare(self) -> None:
        """Prepare the alternate, and see that Glance is there; StorageError with one clear reason. Blocks."""
        prepare: Callable[[], None] | None = getattr(self.alternate, "prepare", None)
        if prepare is not None:
            prepare()
        if self._look is not None:
            self._look()
        self.background.start()

    # -- objects --------------------------------------------------------------------------------------------------

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object."""
        return start(self._tree.read(path, limit))

    def open(self, path: str) -> Deferred[IReader]:
        """A large object; of the alternate its own reader."""
        return start(self._tree.open(path))

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object, into the alternate."""
        return start(self._put(path, data, if_absent, if_match))

    async def _put(self, path: str, data: bytes, if_absent: bool, if_match: Version | None) -> Version:
        version = await self._tree.put(path, data, if_absent, if_match)
        if self.names.noted(path, data):
            self.background.kick()
        return version

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of a path."""
        return start(self._tree.stat(path))

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory."""
        return start(self._tree.list(prefix, cursor, limit))

    def move(self, source: str, target: str) -> Deferred[None]:
        """Give an object another path."""
        return start(self._move(source, target))

    async def _move(self, source: str, target: str) -> None:
        if self._places.thing(source) is None:
            await self._tree.move(source, target)
        else:
            await self._carry(source, target)

    async def _carry(self, source: str, target: str) -> None:
        """Move a layer or blob by copying it."""
        reader = await self.open(source)
        try:
            partial = await self.partial(f"{layout.TMP}/{uuid4()}", create=True)
            try:
                async for piece in reader.chunks(0, reader.size):
                    await partial.write([piece], partial.offset)
                await partial.commit(target)
            finally:
                await partial.close()
        finally:
            reader.close()
        await self.remove(source)

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object, or a directory with all below it."""
        return start(self._remove(path))

    async def _remove(self, path: str) -> None:
        tags = await self.names.below(path) if is_repository(path) else [path]
        await self._tree.remove(path)
        changed = [self.names.noted(tag, None) for tag in tags]
        if any(changed):
            self.background.kick()

    def settle(self, path: str) -> Deferred[None]:
        """Make durable what another wrote."""
        return start(self._tree.settle(path))

    def free_space(self) -> Deferred[int | None]:
        """Bytes that the alternate still takes, through which all goes."""
        return self.alternate.free_space()

    # -- partial objects ------------------------------------------------------------------------------------------

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`, which is one of the alternate."""
        return start(self._partial(path, create))

    async def _partial(self, path: str, create: bool) -> IPartial:
        return _Partial(await self.alternate.partial(path, create), self._places, self.records, self._tree)

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""
        return self.alternate.peek(path)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below `prefix`."""
        return self.alternate.partials(prefix)

    def partials_below(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects at any depth, where the alternate hides them."""
        return IHidesPartials(self.alternate).partials_below(prefix)

    # -- upkeep ---------------------------------------------------------------------------------------------------

    def sweep(self, before: float) -> Deferred[int]:
        """Remove what dead processes left in the alternate, and let names be what the tags say."""
        return start(self._sweep(before))

    async def _sweep(self, before: float) -> int:
        removed = 0
        if ISweeps.providedBy(self.alternate):
            removed += await ISweeps(self.alternate).sweep(before)
        removed += await self.records.sweep(min(before, self._reactor.seconds() - LEFTOVER))
        await self.names.right()
        return removed

    def reconcile(self, tell: Callable[[str], None]) -> Deferred[Reconciled]:
        """Bring everything to rest, and look for every image that a record names."""
        reconciler = Reconciler(
            self.client, self.alternate, self.records, self.mover, self.adoption, self.names, self._reactor
        )
        return start(reconciler.run(tell))

    def probe(self, data: bytes) -> Deferred[None]:
        """Write, read and delete an image."""
        return start(self._probe(data))

    async def _probe(self, data: bytes) -> None:
        image = str(uuid4())

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        try:
            await self.client.create(image, {"name": "txregistry storage check"})
            await self.client.upload(image, lambda: Upload(len(data), pieces()))
            total = hashlib.sha256()
            await self.mover.feed(Record("", len(data), image=image), "", total)
            if total.digest() != hashlib.sha256(data).digest():
                raise Unavailable("", "Glance has other bytes than it was sent")
        finally:
            with suppress(NotFound):
                await self.client.delete(image)

    def close(self) -> Deferred[None]:
        """End what is under way, and let go of both."""
        return start(self._close())

    async def _close(self) -> None:
        await self.background.close()
        await self.client.close()
        await self.alternate.close()


class _Partial(WrappedPartial):
    """A partial object of the alternate, whose end may be a thing."""

    def __init__(self, inner: IPartial, places: Places, records: Records, tree: Tree) -> None:
        super().__init__(inner)
        self._places, self._records, self._tree = places, records, tree

    def commit(self, path: str) -> Deferred[None]:
        thing = self._places.thing(path)
        return self.inner.commit(path) if thing is None else start(self._commit(thing))

    async def _commit(self, thing: Thing) -> None:
        name, size = self._records.new_name(thing.path), self.inner.offset
        await self.inner.commit(name)
        await self._tree.install(thing, size, name)
