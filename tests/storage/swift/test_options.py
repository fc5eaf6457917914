"""From the keys of a configuration to what the driver is told."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from tests.config.helpers import ConfigCase
from txregistry.interfaces import IStorageDriver, ISweeps
from txregistry.storage.factory import open_driver
from txregistry.storage.openstack.blocking import BlockingHttp
from txregistry.storage.openstack.keystone import KeystoneOptions
from txregistry.storage.openstack.treq_http import TreqHttp
from txregistry.storage.swift.options import SwiftOptions, TempAuthOptions, root_of
from txregistry.testing.pools import ImmediatePool

KEYS = {
    "storage": "swift",
    "swift_authurl": "https://k.example/v2.0",
    "swift_container": "registry",
    "swift_user": "me",
    "swift_password": "sesam",
}


class OptionsTests(ConfigCase):
    def opened(self, reactor: Any = None, **keys: Any) -> Any:
        """The driver for a file with these keys."""
        storage = self.load(f"dev: {json.dumps({**KEYS, **keys})}").storage
        pool: Any = ImmediatePool()
        return open_driver(storage.engine, storage.path, pool, reactor or MemoryReactorClock(), storage.keys)

    def options(self, **keys: Any) -> SwiftOptions:
        options = self.opened(**keys).container.connection.options
        assert isinstance(options, SwiftOptions)
        return options

    def test_keystone(self) -> None:
        for version in ({}, {"swift_auth_version": 2}, {"swift_auth_version": 3}):
            options = self.options(**version, swift_tenant_name="p", swift_region_name="r")
            self.assertEqual((options.container, options.region, options.cacert), ("registry", "r", None))
            assert isinstance(options.auth, KeystoneOptions)
            self.assertEqual(options.auth.tokens_url, "https://k.example/v3/auth/tokens")
            self.assertEqual(options.auth.who, "user me in project p")
            domains = (options.auth.user_domain_name, options.auth.project_domain_name)
            self.assertEqual((options.auth.password, *domains), ("sesam", "Default", "Default"))

    def test_version_1(self) -> None:
        options = self.options(swift_auth_version=1, os_cacert="/etc/ca.pem")
        self.assertEqual(options.auth, TempAuthOptions(auth_url="https://k.example/v2.0", user="me", key="sesam"))
        self.assertEqual(options.cacert, "/etc/ca.pem")
        self.assertNotIn("sesam", repr(options))

    def test_names_are_those_of_docker_registry(self) -> None:
        for given, root in ((None, "/"), ("/", "/"), ("/registry", "registry/"), ("a/b", "a/b/"), ("/x/", "x//")):
            self.assertEqual(root_of(given), root)
        self.assertEqual(self.options(storage_path="/registry").root, "registry/")

    def test_what_speaks(self) -> None:
        """With a reactor nothing blocks; commands have none."""
        driver = self.opened()
        for interface in (IStorageDriver, ISweeps):
            verifyObject(interface, driver)
        self.assertIsInstance(driver.container.connection.http, TreqHttp)

        class Clock:
            def seconds(self) -> float:
                return 0.0

        self.assertIsInstance(self.opened(Clock()).container.connection.http, BlockingHttp)

    def test_what_is_missing_is_told(self) -> None:
        for name in ("swift_authurl", "swift_container", "swift_user", "swift_password"):
            keys = {key: value for key, value in KEYS.items() if key != name}
            self.assertIn(name, self.line(f"dev: {json.dumps(keys)}"))
