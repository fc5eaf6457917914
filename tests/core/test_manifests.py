"""Reading manifests: what it takes, what is told at once, and what is left to threads."""

import json
import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.v2.base import OCI_MANIFEST, descriptor, image
from txregistry.concurrency import Shields, start
from txregistry.core.policy import Policy
from txregistry.core.proofs import Proof
from txregistry.core.registry import Registry
from txregistry.errors import ManifestInvalid
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName, Tag
from txregistry.storage import layout
from txregistry.storage.local import LocalDriver
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.faults import FaultyDisk
from txregistry.testing.pools import ImmediatePool, ManualPool, result_of

NAME, TAG = RepositoryName("a/b"), Tag("tag")
POLICY = Policy(accept_missing_blobs=True, accept_unknown_media_types=True)
FOREIGN = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.own+json"}).encode()


class AtOnceTests(SynchronousTestCase):
    def setUp(self):
        self.root = os.path.abspath(self.mktemp())
        self.disk = FaultyDisk()
        self.driver = LocalDriver(self.root, ImmediatePool(), Clock(), self.disk)
        self.driver.prepare()
        self.manifests = Registry(self.driver, POLICY, Shields(), Clock()).manifests
        self.digest = self.put(image())

    def put(self, data, content_type=OCI_MANIFEST):
        return result_of(start(self.manifests.put(NAME, TAG, data, content_type))).digest

    def same(self, reference):
        """What is told at once is what `get` tells."""
        found = self.manifests.get_now(NAME, reference)
        self.assertEqual(found, result_of(start(self.manifests.get(NAME, reference))))
        return found

    def proof(self, reference, found) -> Proof:
        proof = self.manifests.proof(NAME, reference, found)
        assert proof is not None
        return proof

    def test_what_it_takes(self):
        """By tag two files are read and one is looked for, by digest one each; what a proof takes is less."""
        for reference, opened in ((TAG, 2), (self.digest, 1)):
            self.disk.calls.clear()
            found = self.same(reference)
            self.assertEqual(found.data, image())
            self.disk.calls.clear()
            self.manifests.get_now(NAME, reference)
            calls = [name for name, _ in self.disk.calls]
            self.assertEqual((calls.count("open"), calls.count("exists"), calls.count("stat")), (opened, 1, 0))
            self.disk.calls.clear()
            self.assertTrue(self.proof(reference, found).holds())
            calls = [name for name, _ in self.disk.calls]
            self.assertEqual((calls.count("open"), calls.count("exists"), calls.count("stat")), (opened - 1, 1, 0))

    def test_what_is_left_to_get(self):
        """Whatever is not as this server writes it, or is not there."""
        self.assertIsNone(self.manifests.get_now(NAME, Tag("other")))
        self.assertIsNone(self.manifests.get_now(NAME, Digest.of(b"")))
        link = f"{self.root}/{layout.revision_link(NAME, self.digest)}"
        os.rename(link, link + "-away")
        self.assertIsNone(self.manifests.get_now(NAME, TAG))
        self.assertIsNone(self.manifests.get_now(NAME, self.digest))
        os.rename(link + "-away", link)
        self.same(TAG)
        for damaged in (b"", b"sha256:x", b"\xff"):
            with open(f"{self.root}/{layout.tag_current(NAME, TAG)}", "wb") as file:
                file.write(damaged)
            self.assertIsNone(self.manifests.get_now(NAME, TAG))
        with open(f"{self.root}/{layout.blob_data(self.digest)}", "wb") as file:
            file.write(b"no manifest")
        self.assertIsNone(self.manifests.get_now(NAME, self.digest))

    def test_a_type_that_is_written_beside_it(self):
        digest = self.put(FOREIGN, "application/vnd.own+json")
        self.assertIsNone(self.manifests.get_now(NAME, digest))
        found = result_of(start(self.manifests.get(NAME, digest)))
        self.assertEqual(found.media_type, "application/vnd.own+json")
        self.assertIsNone(self.manifests.proof(NAME, digest, found))

    def test_an_answer_out_of_a_cache_is_not_proven_by_the_store(self):
        """A proof is about what was answered, not about what the store held when it was made."""
        found = self.same(TAG)
        proof = self.proof(TAG, found)
        self.put(image(b"[]"))
        self.assertFalse(proof.holds())
        self.assertFalse(self.proof(TAG, found).holds())
        self.put(image())
        self.assertTrue(proof.holds())


class LargeTests(SynchronousTestCase):
    def test_threads_read_what_is_large(self):
        """The reactor is not held up by a manifest of many layers; a small one needs no thread."""
        pool = ManualPool()
        manifests = Registry(MemoryDriver(), POLICY, Shields(), Clock(), pool).manifests
        self.successResultOf(start(manifests.put(NAME, TAG, image(), OCI_MANIFEST)))
        self.successResultOf(start(manifests.get(NAME, TAG)))
        self.assertEqual(pool.waiting, [])
        large = image(layers=[b"%d" % number for number in range(3000)])
        pushing = start(manifests.put(NAME, TAG, large, OCI_MANIFEST))
        self.assertEqual(pool.waiting, ["bulk"])
        pool.flush()
        self.assertEqual(self.successResultOf(pushing).digest, Digest.of(large))
        self.assertIsNone(manifests.get_now(NAME, TAG))
        pulling = start(manifests.get(NAME, TAG))
        self.assertEqual(pool.waiting, ["bulk"])
        pool.flush()
        self.assertEqual(self.successResultOf(pulling).media_type, OCI_MANIFEST)
        wrong = start(manifests.put(NAME, TAG, large[:-1], OCI_MANIFEST))
        pool.flush()
        self.failureResultOf(wrong, ManifestInvalid)


class DescriptorTests(SynchronousTestCase):
    def test_wrong_sizes_are_told(self):
        manifests = Registry(MemoryDriver(), POLICY, Shields(), Clock()).manifests
        for size, reason in ((None, "missing"), (True, "whole number"), (1.0, "whole number"), (-1, "from 0 to")):
            config = {**descriptor(b"{}", OCI_MANIFEST), "size": size}
            data = json.dumps({**json.loads(image()), "config": config}).encode()
            failure = self.failureResultOf(start(manifests.put(NAME, TAG, data, OCI_MANIFEST)), ManifestInvalid)
            self.assertEqual(failure.value.detail["pointer"], "/config/size")
            self.assertIn(reason, failure.value.detail["reason"])
