"""The table of storage engines."""

import os
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.storage.wall import WallClock
from txregistry.config.elliptics import ELLIPTICS_KEYS
from txregistry.config.engines import ENGINES
from txregistry.config.keys import default_of
from txregistry.interfaces import ICaches, IProvesFresh, IStorageDriver
from txregistry.storage import factory
from txregistry.storage.factory import EngineError, open_driver, require, require_cache, with_cache
from txregistry.storage.pool import Pool
from txregistry.testing.pools import ImmediatePool


class FactoryTests(SynchronousTestCase):
    def test_local(self):
        reactor: Any = MemoryReactorClock()
        pool = Pool(reactor)
        self.addCleanup(pool.stop)
        verifyObject(IStorageDriver, open_driver("local", self.mktemp(), pool, reactor))

    def test_without_fsync(self) -> None:
        """Nothing waits for the disk, and all else is the same."""
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        pool: Any = ImmediatePool()
        for fsync in (True, False):
            synced.clear()
            driver = open_driver("local", self.mktemp(), pool, WallClock(), {"fsync": fsync})
            driver.prepare()
            synced.clear()
            self.successResultOf(driver.put("a/b", b"1"))
            self.assertEqual(self.successResultOf(driver.read("a/b", 10))[0], b"1")
            self.assertEqual(bool(synced), fsync)

    def test_elliptics(self):
        reactor: Any = MemoryReactorClock()
        pool = Pool(reactor)
        self.addCleanup(pool.stop)
        keys = {key.name: default_of(key) for key in ELLIPTICS_KEYS}
        keys |= {"elliptics_nodes": (("host", 1025, 2), ("other", 1026, 10)), "elliptics_groups": (1, 2, 3, 2)}
        driver = open_driver("elliptics", None, pool, reactor, keys)
        verifyObject(IStorageDriver, driver)
        options = driver.tree.sessions.options
        self.assertEqual((options.nodes, options.namespace), (keys["elliptics_nodes"], "DOCKER"))
        self.assertEqual((options.timeout, options.check, len(options.dialects)), (60.0, 60.0, 5))
        log = self.mktemp()
        keys |= {"elliptics_addr_family": 10, "elliptics_version": "2.26", "elliptics_logfile": log}
        options = open_driver("elliptics", None, pool, reactor, keys).tree.sessions.options
        self.assertEqual(options.nodes, (("host", 1025, 10), ("other", 1026, 10)))
        self.assertEqual([dialect.name for dialect in options.dialects], ["2.26"])
        options.log(1, "lost")
        options.log(0, "damaged")
        with open(log, encoding="utf-8") as file:
            self.assertIn(" data: damaged\n", file.read())

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

    def test_a_missing_library_is_one_line_that_names_the_extra(self):
        self.patch(factory, "find_spec", lambda name: None)
        for engine in ("s3", "gcs"):
            line = str(self.assertRaises(EngineError, require, engine))
            self.assertIn("txregistry[s3]", line)
            self.assertNotIn("\n", line)


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
