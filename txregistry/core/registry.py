"""The registry: all that it is made of, put together over one storage driver."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from txregistry.concurrency import Shields
from txregistry.core.blobs import Blobs
from txregistry.core.janitor import Janitor
from txregistry.core.manifests import Manifests
from txregistry.core.policy import Policy
from txregistry.core.referrers import Referrers
from txregistry.core.repositories import Repositories
from txregistry.core.tags import Tags
from txregistry.core.uploads import Uploads
from txregistry.core.v1 import V1
from txregistry.core.v1.diffs import SharedQueue
from txregistry.interfaces import IHooks, IPool, IStorageDriver


class Registry:
    """What the web layer talks to: one attribute for each noun of the API.

    What is worked out in threads is worked out in place without a `pool`. A `diff_queue` is shared with others.
    `hooks` are the operator's.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        policy: Policy,
        shields: Shields,
        clock: IReactorTime,
        pool: IPool | None = None,
        diff_queue: SharedQueue | None = None,
        hooks: IHooks | None = None,
    ) -> None:
        self.policy = policy
        self.shields = shields
        self.repositories = Repositories(driver)
        self.blobs = Blobs(driver, self.repositories)
        self.uploads = Uploads(driver, policy, shields)
        self.tags = Tags(driver, self.repositories)
        self.referrers = Referrers(driver, policy.manifest_limit)
        self.manifests = Manifests(
            driver, policy, shields, self.repositories, self.blobs, self.tags, self.referrers, pool
        )
        self.v1 = V1(driver, policy, shields, clock, self.repositories, pool, diff_queue, hooks)
        self.janitor = Janitor(driver, self.repositories, policy, clock, self.v1.layers)
