"""Referrers: what has this manifest as its subject."""

from __future__ import annotations

import json
from typing import Any

from tests.web.v2.base import CONFIG, OCI_INDEX, OCI_MANIFEST, V2TestCase, descriptor, image, index, sha256
from txregistry.model.digest import Digest
from txregistry.storage.memory import MemoryDriver


class Referrers(V2TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.subject = self.push_image("a", "t")
        self.digest = sha256(self.subject)

    def referrers(self, query: str = "", digest: str = "") -> list[dict[str, Any]]:
        response = self.ask("GET", f"/v2/a/referrers/{digest or self.digest}{query}")
        self.assertEqual((response.code, response.header("Content-Type")), (200, OCI_INDEX))
        document = response.json()
        self.assertEqual((document["schemaVersion"], document["mediaType"]), (2, OCI_INDEX))
        found: list[dict[str, Any]] = document["manifests"]
        return found

    def refer(self, *, number: int = 0, subject: bytes | None = None, **more: Any) -> bytes:
        """Push an artifact that refers to the subject."""
        about = descriptor(subject or self.subject, OCI_MANIFEST)
        manifest = image(subject=about, annotations={"number": str(number)}, **more)
        response = self.push("a", sha256(manifest), manifest)
        self.assertEqual((response.code, response.header("OCI-Subject")), (201, sha256(subject or self.subject)))
        return manifest

    def test_none(self) -> None:
        self.assertEqual(self.referrers(), [])
        response = self.ask("GET", f"/v2/nowhere/referrers/{self.digest}")
        self.assertEqual((response.code, response.json()["manifests"]), (200, []))
        self.refused(self.ask("GET", "/v2/a/referrers/sha256:x"), 400, "DIGEST_INVALID")

    def test_descriptors(self) -> None:
        by_config = self.refer(number=1)
        by_type = self.refer(number=2, artifactType="application/x.sig+json")
        listed = index([], subject=descriptor(self.subject, OCI_MANIFEST))
        self.push("a", sha256(listed), listed, OCI_INDEX)
        expected = [
            descriptor(by_config, OCI_MANIFEST, artifactType=CONFIG, annotations={"number": "1"}),
            descriptor(by_type, OCI_MANIFEST, artifactType="application/x.sig+json", annotations={"number": "2"}),
            descriptor(listed, OCI_INDEX),
        ]
        self.assertEqual(self.referrers(), sorted(expected, key=lambda one: str(one["digest"])))

    def test_filter(self) -> None:
        self.refer(number=1)
        wanted = self.refer(number=2, artifactType="application/x.sig+json")
        for spelling in ("application/x.sig%2Bjson", "application/x.sig+json", "application%2Fx.sig%2Bjson"):
            response = self.ask("GET", f"/v2/a/referrers/{self.digest}?artifactType={spelling}")
            self.assertEqual(response.header("OCI-Filters-Applied"), "artifactType")
            self.assertEqual([one["digest"] for one in response.json()["manifests"]], [sha256(wanted)])

    def test_a_subject_that_is_not_there(self) -> None:
        manifest = self.refer(subject=b"missing")
        self.assertEqual([one["digest"] for one in self.referrers(digest=sha256(b"missing"))], [sha256(manifest)])

    def test_pushed_twice_is_listed_once(self) -> None:
        self.refer()
        self.refer()
        self.assertEqual(len(self.referrers()), 1)

    def test_deleted_ones_are_gone_and_come_back_when_pushed_again(self) -> None:
        manifest = self.refer()
        self.ask("DELETE", f"/v2/a/manifests/{sha256(manifest)}")
        self.assertEqual(self.referrers(), [])
        self.refer()
        self.assertEqual(len(self.referrers()), 1)

    def test_deleting_the_subject_leaves_the_list(self) -> None:
        self.refer()
        self.ask("DELETE", f"/v2/a/manifests/{self.digest}")
        self.assertEqual(len(self.referrers()), 1)

    def test_what_another_server_wrote(self) -> None:
        """Distribution knows nothing of our index, and writes links and bytes alone."""
        self.refer(number=1)
        self.referrers()
        manifest = image(subject=descriptor(self.subject, OCI_MANIFEST), annotations={"number": "2"})
        digest = Digest.of(manifest)
        put = self.memory.driver.put
        self.successResultOf(put(f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data", manifest))
        link = f"docker/registry/v2/repositories/a/_manifests/revisions/sha256/{digest.hex}/link"
        self.successResultOf(put(link, str(digest).encode()))
        self.assertEqual(len(self.referrers()), 2)

    def test_the_index_can_be_deleted(self) -> None:
        self.refer(number=1)
        self.refer(number=2)
        before = self.referrers()
        self.successResultOf(self.memory.driver.remove("_txregistry/index"))
        self.assertEqual(self.referrers(), before)

    def test_a_full_store_is_read(self) -> None:
        """Nothing has to be written for an answer about what was pushed here."""
        self.refer(number=1)
        driver = self.memory.driver
        assert isinstance(driver, MemoryDriver)
        driver.capacity = self.memory.contents.used()
        self.assertEqual(len(self.referrers()), 1)
        self.assertNotIn("_txregistry/index/referrers/a/_indexed", self.paths())
        driver.capacity = None
        self.assertEqual(len(self.referrers()), 1)
        self.assertIn("_txregistry/index/referrers/a/_indexed", self.paths())

    def test_pages(self) -> None:
        for number in range(5):
            manifest = image(
                subject=descriptor(self.subject, OCI_MANIFEST), annotations={"n": str(number), "x": "x" * 1_000_000}
            )
            self.push("a", sha256(manifest), manifest)
        read: list[str] = []
        original = self.memory.driver.read

        def reading(path: str, limit: int) -> object:
            if "_subjects" in path:
                read.append(path)
            return original(path, limit)

        self.patch(self.memory.driver, "read", reading)
        found, target, pages = [], f"/v2/a/referrers/{self.digest}?artifactType={CONFIG.replace('+', '%2B')}", 0
        while target:
            response = self.ask("GET", target)
            self.assertEqual(response.header("OCI-Filters-Applied"), "artifactType")
            self.assertTrue(len(response.body) < 4 << 20)
            # Each is as large as a manifest: those of other pages are not held in memory.
            self.assertTrue(pages or len(read) == 4, read)
            found += [one["digest"] for one in response.json()["manifests"]]
            link = response.header("Link")
            target = link[1 : link.index(">")] if link else ""
            pages += 1
        self.assertEqual((len(set(found)), len(found), pages), (5, 5, 2))
        self.assertEqual(json.loads(json.dumps(sorted(found))), found)
