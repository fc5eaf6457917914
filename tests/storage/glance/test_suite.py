"""The driver suite over Glance: once as it serves, and once with all that is whole in Glance before it is looked at."""

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.storage.glance.fake import KEYSTONE, FakeGlance
from tests.storage.glance.moving import MovingDriver, SuitePlaces
from txregistry.interfaces import IPartial, IReader, IReconciles, IStorageDriver, ISweeps
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.driver import GlanceDriver
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.storage.openstack.keystone import Keystone, KeystoneOptions
from txregistry.testing.drivers import DriverSuite
from txregistry.testing.pools import ImmediatePool


class Suite(DriverSuite):
    kind: type[GlanceDriver] = GlanceDriver

    def make_driver(self):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.fake = FakeGlance()
        return self.driver(Contents())

    def driver(self, contents):
        keystone = Keystone(KeystoneOptions(auth_url=KEYSTONE, username="u", password="p"), self.fake)
        alternate = MemoryDriver(self.clock, contents=contents)
        return self.kind(alternate, Glance(self.fake, keystone), ImmediatePool(), self.clock, SuitePlaces())

    def sibling(self, driver):
        return self.driver(driver.alternate.contents)

    async def stall(self, driver, path):
        self.clock.advance(6)


class AlternateTests(Suite, TestCase):
    """What was written is still in the alternate."""

    async def test_interfaces(self):
        driver = self.make_driver()
        for interface in (IStorageDriver, ISweeps, IReconciles):
            verifyObject(interface, driver)
        verifyObject(IPartial, await driver.partial("uploads/one", create=True))


class MovedTests(Suite, TestCase):
    """What was written is in Glance."""

    kind = MovingDriver

    def tearDown(self):
        # Tests that finish an upload, or put something large, must have used it.
        if self._testMethodName in {"test_partial", "test_reopened", "test_taken_over", "test_ranges"}:
            self.assertTrue(any(image.data for image in self.fake.images.values()))

    async def test_reader(self):
        driver = self.make_driver()
        await (await driver.partial("uploads/one", create=True)).commit("a")
        verifyObject(IReader, await driver.open("a"))
