"""The table of storage engines."""

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txregistry.config.engines import ENGINES
from txregistry.interfaces import IStorageDriver
from txregistry.storage.factory import EngineError, open_driver, require
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
