"""What the V1 protocol asks of a registry: images by their id, and repositories of tags that name them."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from txregistry.concurrency import Shields
from txregistry.core.policy import Policy
from txregistry.core.repositories import Repositories
from txregistry.core.v1.diffs import Diffs, SharedQueue
from txregistry.core.v1.file_lists import FileLists
from txregistry.core.v1.hooks import Hooks
from txregistry.core.v1.images import Images
from txregistry.core.v1.layers import Layers
from txregistry.core.v1.pushes import Pushes
from txregistry.core.v1.repositories import V1Repositories
from txregistry.core.v1.search import Search
from txregistry.core.v1.status import Status
from txregistry.interfaces import IHooks, IPool, IStorageDriver


class V1:
    """The V1 side of a registry: one attribute for each noun of its API."""

    def __init__(
        self,
        driver: IStorageDriver,
        policy: Policy,
        shields: Shields,
        clock: IReactorTime,
        repositories: Repositories,
        pool: IPool | None = None,
        diff_queue: SharedQueue | None = None,
        hooks: IHooks | None = None,
    ) -> None:
        self._clock = clock
        self.hooks = Hooks(hooks, clock)
        pushes = Pushes(driver)
        self.images = Images(driver, shields, pushes, self.hooks)
        self.layers = Layers(driver, policy, shields, pushes)
        self.file_lists = FileLists(driver, self.images, clock, pool)
        self.diffs = Diffs(self.images, self.file_lists, clock, diff_queue)
        self.repositories = V1Repositories(driver, policy, shields, clock, self.hooks)
        self.search = Search(self.repositories, repositories)
        self.status = Status(driver, clock, diff_queue)

    def start(self) -> None:
        """Begin the work in the background."""
        self.diffs.start()

    async def stop(self) -> None:
        """End it."""
        await self.diffs.stop()
        await self.file_lists.stop()

    def now(self) -> float:
        """The time, in seconds of the epoch."""
        return self._clock.seconds()
