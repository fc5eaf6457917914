"""Servers, clocks and drivers for the tests of this package."""

from __future__ import annotations

import time

from tests.storage.elliptics.server import VERSIONS, Server, Store
from txregistry.storage.elliptics import watching
from txregistry.storage.elliptics.driver import EllipticsDriver
from txregistry.storage.elliptics.session import Options
from txregistry.storage.elliptics.wire import DIALECTS
from txregistry.testing.pools import ImmediatePool


class ShiftedClock:
    """The time of day, and what a test adds to it."""

    def __init__(self) -> None:
        self.shift = 0.0

    def seconds(self) -> float:
        return time.time() + self.shift


def dialects(name: str):
    """The one dialect of that name."""
    return tuple(dialect for dialect in DIALECTS if dialect.name == name)


class Cluster:
    """A server for each group, each with a store that outlives it."""

    def __init__(self, test, version: str = "2.24", groups: int = 2, filesystem: bool = False) -> None:
        assert version in VERSIONS
        self.version = version
        self.stores = {number: Store() for number in range(1, groups + 1)}
        self.servers = {
            number: Server(version, {number: store}, filesystem).start() for number, store in self.stores.items()
        }
        self.clock = ShiftedClock()
        self.drivers: list[EllipticsDriver] = []
        test.addCleanup(self.stop)

    def stop(self) -> None:
        for driver in self.drivers:
            driver.tree.sessions.close()
        for server in self.servers.values():
            server.stop()

    def options(self, **changes) -> Options:
        nodes = tuple(server.node for server in self.servers.values())
        return Options(nodes, **{"dialects": dialects(self.version), "timeout": 10.0, **changes})

    def driver(self, quorum: int | None = None, pool=None, **changes) -> EllipticsDriver:
        driver = EllipticsDriver(
            self.options(**changes), tuple(self.stores), pool or ImmediatePool(), self.clock, quorum
        )
        self.drivers.append(driver)
        return driver

    def watched(self, *args, **changes) -> EllipticsDriver:
        """A driver that has looked at the groups, as one does every other second."""
        driver = self.driver(*args, **changes)
        watching.beat(driver.tree)
        return driver
