"""The memory driver: the suite, and that it needs no reactor."""

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from txregistry.errors import NoSpace
from txregistry.interfaces import IPartial, IProvesFresh, IReader, IStorageDriver
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.drivers import DriverSuite
from txregistry.testing.pools import result_of


class MemoryTests(DriverSuite, TestCase):
    def make_driver(self):
        self.clock = Clock()
        return MemoryDriver(self.clock)

    def sibling(self, driver):
        return MemoryDriver(self.clock, contents=driver.contents)

    async def stall(self, driver, path):
        self.clock.advance(6)

    def test_interfaces(self):
        driver = self.make_driver()
        verifyObject(IStorageDriver, driver)
        verifyObject(IProvesFresh, driver)
        partial = result_of(driver.partial("uploads/one", create=True))
        verifyObject(IPartial, partial)
        result_of(partial.commit("a"))
        verifyObject(IReader, result_of(driver.open("a")))

    def test_capacity(self):
        driver = MemoryDriver(capacity=10)
        result_of(driver.put("a", b"12345"))
        partial = result_of(driver.partial("uploads/one", create=True))
        result_of(partial.write([b"123"], 0))
        self.assertEqual(result_of(driver.free_space()), 2)
        self.failureResultOf(partial.write([b"456"], 3), NoSpace)
        self.failureResultOf(driver.put("b", b"123"), NoSpace)
        result_of(partial.close())

    def test_what_is_there_now(self):
        driver = self.make_driver()
        self.assertIsNone(driver.read_now("a/b", 1))
        result_of(driver.put("a/b", b"1"))
        self.assertEqual(driver.read_now("a/b", 1), b"1")
        self.assertIsNone(driver.read_now("a/b", 0))
        self.assertEqual([driver.exists_now(path) for path in ("a", "a/b", "b")], [True, True, False])
