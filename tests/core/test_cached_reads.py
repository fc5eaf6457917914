"""Who reads what a cache may answer: whoever serves, and nobody who decides."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.web.v1.base import A, B, image_json, simple
from txregistry.concurrency import Shields, start
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.core.v1.layers import Sent
from txregistry.interfaces import ICaches, IStorageDriver, Version
from txregistry.model.digest import Digest
from txregistry.model.manifest import OCI_MANIFEST
from txregistry.model.names import RepositoryName, Tag
from txregistry.model.v1.names import ImageId, V1Repository, V1Tag
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.pools import result_of

NAME = RepositoryName.parse("a/b")
LATEST = Tag.parse("latest")
CONFIG = b"{}"


class Body:
    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data

    async def batches(self, size: int) -> Any:
        yield [self._data]


@implementer(IStorageDriver, ICaches)
class Watched(MemoryDriver):
    """A driver that notes what is read through its cache."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.served: list[str] = []

    @property
    def cached(self) -> IStorageDriver:
        outer = self

        class Reads(MemoryDriver):
            def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
                outer.served.append(path)
                return super().read(path, limit)

        return Reads(self.clock, contents=self.contents)


class CachedReadsTests(SynchronousTestCase):
    def setUp(self):
        self.driver = Watched(Clock())
        self.registry = Registry(self.driver, Policy(), Shields(), self.driver.clock)

    def run_now(self, coroutine: Any) -> Any:
        return result_of(start(coroutine))

    def served(self) -> list[str]:
        """What was served since the last call."""
        served, self.driver.served[:] = list(self.driver.served), []
        return served

    def push(self) -> Digest:
        config = Digest.of(CONFIG)
        self.run_now(self.registry.uploads.monolithic(NAME, Body(CONFIG), config))
        manifest = (
            b'{"schemaVersion":2,"mediaType":"%s","layers":[],"config":{"mediaType":"application/json","digest":"%s",'
            b'"size":2}}' % (OCI_MANIFEST.encode(), str(config).encode())
        )
        return self.run_now(self.registry.manifests.put(NAME, LATEST, manifest, OCI_MANIFEST)).digest

    def test_pushes_and_deletes_of_v2(self):
        digest = self.push()
        self.run_now(self.registry.blobs.mount(RepositoryName.parse("c"), NAME, Digest.of(CONFIG)))
        self.run_now(self.registry.blobs.missing(NAME, [Digest.of(CONFIG)], 10))
        self.run_now(self.registry.tags.delete(NAME, LATEST))
        self.push()
        self.run_now(self.registry.manifests.delete(NAME, digest))
        self.run_now(self.registry.blobs.delete(NAME, Digest.of(CONFIG)))
        self.run_now(self.registry.janitor.sweep())
        self.assertEqual(self.served(), [])

    def test_pulls_of_v2(self):
        digest = self.push()
        self.run_now(self.registry.manifests.get(NAME, LATEST))
        served = self.served()
        self.assertEqual([path.rpartition("/")[2] for path in served], ["link", "link", "data"])
        self.run_now(self.registry.manifests.get(NAME, digest))
        self.run_now(self.registry.blobs.stat(NAME, Digest.of(CONFIG)))
        self.run_now(self.registry.blobs.open(NAME, Digest.of(CONFIG))).close()
        self.run_now(self.registry.tags.names(NAME))
        self.assertEqual(len(self.served()), 5)

    def push_v1(self, image: str, parent: str | None = None) -> None:
        data = image_json(image, parent)
        name = ImageId(image)
        self.run_now(self.registry.v1.images.push_json(name, data, None))
        session = self.run_now(self.registry.v1.layers.push(name, Body(b"layer"), None))
        sent = Sent(simple(data, b"layer"), None)
        self.run_now(self.registry.v1.layers.push_checksum(name, sent, session))

    def test_v1(self):
        repository, latest = V1Repository("library", "x"), V1Tag("latest")
        self.push_v1(A)
        self.push_v1(B, A)
        repositories = self.registry.v1.repositories
        self.run_now(repositories.set_tag(repository, latest, ImageId(B), "docker/1.0"))
        self.run_now(repositories.push_images(repository, b"[]"))
        self.run_now(repositories.set_private(repository, True))
        self.assertTrue(self.run_now(repositories.is_private(repository)))
        self.assertTrue(self.run_now(repositories.holds(repository, ImageId(A))))
        self.assertEqual(self.served(), [])
        self.run_now(self.registry.v1.images.info(ImageId(B)))
        self.run_now(self.registry.v1.images.ancestry(ImageId(B)))
        self.run_now(repositories.tag(repository, latest))
        self.run_now(repositories.tags(repository))
        self.assertEqual(len(self.served()), 5)
        self.run_now(repositories.delete_tag(repository, latest))
        self.run_now(repositories.delete(repository))
        self.assertEqual(self.served(), [])
