"""The table of storage engines."""

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txregistry.config.engines import ENGINES
from txregistry.interfaces import ICaches, IProvesFresh, IStorageDriver
from txregistry.storage import factory
from txregistry.storage.factory import EngineError, open_driver, require, require_cache, with_cache
from txregistry.storage.pool import Pool


class FactoryTests(SynchronousTestCase):
    def test_local(self):
        reactor: Any = MemoryReactorClock()
        pool = Pool(reactor)
        self.addCleanup(pool.stop)
        verifyObject(IStorageDriver, open_driver("local", self.mktemp(), pool, reactor))

    def test_every_engine_of_the_configuration_is_opened_or_refused_in_one_line(self):
        refused = []
        for engine in ENGINES:
            try:
                require(engine)
            except EngineError as error:
                self.assertTrue(str(error).startswith(f"storage: {engine} is not in this version"), str(error))
                self.assertNotIn("\n", str(error))
                refused.append(engine)
        self.assertNotIn("local", refused)

    def test_the_extra_is_named(self):
        self.assertIn("extra 's3'", str(self.assertRaises(EngineError, require, "s3")))


class CacheTests(SynchronousTestCase):
    def test_beside_local_storage(self):
        reactor: Any = MemoryReactorClock()
        pool = Pool(reactor)
        self.addCleanup(pool.stop)
        local = open_driver("local", self.mktemp(), pool, reactor)
        driver = with_cache(local, ("127.0.0.1", 6380, 0, None), ["local", "machine"], "/srv", reactor)
        verifyObject(IStorageDriver, driver)
        verifyObject(ICaches, driver)
        self.assertFalse(IProvesFresh.providedBy(driver))
        local.prepare()
        prepared = with_cache(local, ("h", 1, 0, None), [], "", reactor)
        self.assertEqual(IProvesFresh.providedBy(prepared), IProvesFresh.providedBy(local))

    def test_without_its_library(self):
        self.patch(factory, "find_spec", lambda name: None)
        self.assertIn("extra 'redis'", str(self.assertRaises(EngineError, require_cache)))
