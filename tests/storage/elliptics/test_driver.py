"""The driver suite over servers of two dialects and both back-ends."""

from typing import Any

from twisted.internet import reactor as installed
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.storage.elliptics.base import Cluster
from txregistry.interfaces import IPartial, IReader, IStorageDriver, ISweeps
from txregistry.storage.pool import Pool
from txregistry.testing.drivers import DriverSuite

reactor: Any = installed


class Suite(DriverSuite):
    version, groups, filesystem = "2.24", 2, False

    def make_driver(self):
        self.cluster = Cluster(self, self.version, self.groups, self.filesystem)
        self.pool = Pool(reactor, 4, 4)
        self.addCleanup(self.pool.stop)
        return self.cluster.driver(pool=self.pool)

    def sibling(self, driver):
        return self.cluster.driver(pool=self.pool)

    async def stall(self, driver, path):
        self.cluster.clock.shift += 6


class OldTests(Suite, TestCase):
    """2.24 with eblob, two groups."""

    async def test_interfaces(self):
        driver = self.make_driver()
        verifyObject(IStorageDriver, driver)
        verifyObject(ISweeps, driver)
        partial = await driver.partial("uploads/one", create=True)
        verifyObject(IPartial, partial)
        await partial.commit("a")
        verifyObject(IReader, await driver.open("a"))


class NewTests(Suite, TestCase):
    """3.0, three groups, which has no index tables."""

    version, groups = "3.0", 3


class FilesystemTests(Suite, TestCase):
    """2.24 on a filesystem, one group: no timestamps, and reads behind the end are never answered."""

    groups, filesystem = 1, True
