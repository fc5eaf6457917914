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
from txregistry.interfaces import IStorageDriver


class Registry:
    """What the web layer talks to: one attribute for each noun of the API."""

    def __init__(self, driver: IStorageDriver, policy: Policy, shields: Shields, clock: IReactorTime) -> None:
        self.policy = policy
        self.shields = shields
        self.repositories = Repositories(driver)
        self.blobs = Blobs(driver, self.repositories)
        self.uploads = Uploads(driver, policy, shields, self.blobs)
        self.tags = Tags(driver, self.repositories)
        self.referrers = Referrers(driver, policy.manifest_limit)
        self.manifests = Manifests(
            driver, policy, shields, self.repositories, self.blobs, self.tags, self.referrers
        )
        self.v1 = V1(driver, policy, shields, clock, self.repositories)
        self.janitor = Janitor(driver, self.repositories, policy, clock, self.v1.layers)
