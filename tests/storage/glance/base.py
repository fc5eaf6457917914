"""The Glance driver over memory and a Glance in memory, where everything happens at once or when the clock says so."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.glance.fake import KEYSTONE, URL, FakeGlance
from txregistry.concurrency import start
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.driver import GlanceDriver
from txregistry.storage.glance.places import Places
from txregistry.storage.glance.records import Record
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.storage.openstack.keystone import Keystone, KeystoneOptions
from txregistry.testing.pools import ImmediatePool

T = TypeVar("T")

ID, OTHER = "a" * 64, "b" * 64
LAYER = f"images/{ID}/layer"


class GlanceCase(SynchronousTestCase):
    """One store; `node` makes a driver on it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.contents = Contents()
        self.fake = FakeGlance()

    def node(self, fake: FakeGlance | None = None, places: Places | None = None) -> GlanceDriver:
        """Another server; it begins nothing by itself before `prepare`."""
        fake = fake or self.fake
        keystone = Keystone(KeystoneOptions(auth_url=KEYSTONE, username="u", password="p"), fake)
        client = Glance(fake, None, URL) if fake.project is None else Glance(fake, keystone)
        alternate = MemoryDriver(self.clock, contents=self.contents)
        return GlanceDriver(alternate, client, ImmediatePool(), self.clock, places)

    def do(self, work: Deferred[T] | Coroutine[Any, Any, T]) -> T:
        """The result of what ends at once."""
        return self.successResultOf(work if isinstance(work, Deferred) else start(work))

    def fails(self, kind: type[BaseException], work: Deferred[Any] | Coroutine[Any, Any, Any]) -> Any:
        """The error of what ends at once."""
        return self.failureResultOf(work if isinstance(work, Deferred) else start(work), kind).value

    def push(self, driver: GlanceDriver, path: str, data: bytes) -> None:
        """An upload."""

        async def work() -> None:
            partial = await driver.partial(f"uploads/{len(self.fake.used)}-{id(data)}", create=True)
            try:
                await partial.write([data], 0)
                await partial.commit(path)
            finally:
                await partial.close()

        self.do(work())

    def bytes_at(self, driver: GlanceDriver, path: str) -> bytes:
        """All bytes of an object."""

        async def work() -> bytes:
            reader = await driver.open(path)
            try:
                return b"".join([piece async for piece in reader.chunks(0, reader.size)])
            finally:
                reader.close()

        return self.do(work())

    def record(self, driver: GlanceDriver, path: str) -> Record:
        """The record of a thing."""
        held = self.do(driver.records.load(path))
        assert held is not None
        return held.record

    def round(self, driver: GlanceDriver) -> str:
        """What the background would do now."""
        return self.do(driver.background.round())
