"""A whole registry in memory: for tests of its parts, and of programs that talk to one."""

from __future__ import annotations

from twisted.internet.task import Clock

from txregistry.concurrency import Shields
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.core.v1.diffs import SharedQueue
from txregistry.interfaces import IHooks, IStorageDriver
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.testing.agent import Agent
from txregistry.web.app import WebOptions, make_resource


class MemoryRegistry:
    """A registry over a memory driver, or over `driver`, with an agent to talk to it and a clock that stands still.

    `contents` is what the memory driver holds.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        options: WebOptions | None = None,
        driver: IStorageDriver | None = None,
        *,
        diff_queue: SharedQueue | None = None,
        hooks: IHooks | None = None,
    ) -> None:
        self.clock = Clock()
        self.contents = Contents()
        self.driver = driver if driver is not None else MemoryDriver(self.clock, contents=self.contents)
        self.shields = Shields()
        self.registry = Registry(
            self.driver, policy or Policy(), self.shields, self.clock, diff_queue=diff_queue, hooks=hooks
        )
        self.agent = Agent(make_resource(self.registry, options), self.clock)
