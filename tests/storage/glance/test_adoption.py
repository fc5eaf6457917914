"""What Glance held before: of old servers, of nobody that we know, and of other projects."""

from __future__ import annotations

import hashlib
import json

from tests.storage.glance.base import ID, LAYER, OTHER, GlanceCase
from tests.storage.glance.fake import FOREIGN, FakeGlance, FakeImage
from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.model.digest import Digest
from txregistry.storage import layout
from txregistry.storage.glance.adoption import FORGET
from txregistry.storage.glance.places import DIGEST, IMAGE_ID

DATA = b"a layer of 2014"
DIGEST_OF_DATA = Digest("sha256", hashlib.sha256(DATA).hexdigest())
BLOB = layout.blob_data(DIGEST_OF_DATA)
JSON = json.dumps({"id": ID, "comment": "é"})


class AdoptionCase(GlanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.driver = self.node()

    def old(self, name: str = "one", data: bytes | None = DATA, known: str = ID, **more: str) -> FakeImage:
        """What docker-registry 0.6.5 wrote through version 1: its own `id` is seen no more."""
        properties = {"meta_json": JSON.replace(ID, known), "meta_ancestry": json.dumps([known]), **more}
        image = self.fake.add(name, properties, data)
        image.hidden["id"] = known
        return image


class OldTests(AdoptionCase):
    def test_an_image(self) -> None:
        self.old(meta__checksum="sha256:1", meta__files="[]")
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)
        for part, data in (("json", JSON), ("ancestry", json.dumps([ID])), ("_checksum", "sha256:1"), ("_files", "[]")):
            self.assertEqual(self.do(self.driver.read(f"images/{ID}/{part}", 1000))[0], data.encode())
        self.fails(NotFound, self.driver.stat(f"images/{ID}/_inprogress"))
        self.assertEqual([entry.name for entry in self.do(self.driver.list("images")).entries], [ID])
        self.assertEqual(self.do(self.driver.stat(LAYER)).size, len(DATA))

    def test_whichever_part_is_asked_for_first(self) -> None:
        for path in (f"images/{ID}/json", f"images/{ID}/ancestry", f"images/{ID}"):
            self.setUp()
            self.old()
            self.do(self.driver.stat(path))
        self.setUp()
        self.old()
        self.fails(LostRace, self.driver.put(f"images/{ID}/json", b"{}", if_absent=True))
        self.setUp()
        self.old()
        self.assertEqual(len(self.do(self.driver.list(f"images/{ID}")).entries), 3)

    def test_many_pages(self) -> None:
        self.fake.page = 2
        for number in range(7):
            self.old(f"image-{number}", known=f"{number:064x}")
        self.assertEqual(len(self.do(self.driver.list("images")).entries), 7)

    def test_pages_that_come_round_again(self) -> None:
        for number in range(3):
            self.old(f"image-{number}", known=f"{number:064x}")
        self.fake.page = 1
        search = self.fake._search
        self.fake._search = lambda query: search({**query, "marker": "image-0"})  # type: ignore[method-assign]  # broken
        self.fails(Unavailable, self.driver.list("images"))

    def test_one_in_mid_push(self) -> None:
        self.old(data=None, meta__inprogress="true")
        self.assertEqual(self.do(self.driver.read(f"images/{ID}/_inprogress", 10))[0], b"true")
        self.fails(NotFound, self.driver.open(LAYER))
        self.push(self.driver, LAYER, b"pushed again")
        self.round(self.driver)
        self.assertEqual(self.bytes_at(self.driver, LAYER), b"pushed again")
        self.assertNotIn("one", self.fake.images)

    def test_two_of_one_image(self) -> None:
        self.old("first", data=None)
        self.old("second", data=b"the older one")
        self.old("third", data=b"the younger one")
        self.assertEqual(self.bytes_at(self.driver, LAYER), b"the older one")
        self.do(self.driver.remove(f"images/{ID}"))
        self.round(self.driver)
        self.assertEqual([name for name in self.fake.images if len(name) < 10], [])

    def test_what_the_alternate_has_stays(self) -> None:
        self.do(self.driver.alternate.put(f"images/{ID}/json", b"mine"))
        self.old()
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)
        self.assertEqual(self.do(self.driver.read(f"images/{ID}/json", 10))[0], b"mine")

    def test_what_was_deleted_does_not_come_back(self) -> None:
        image = self.old()
        self.do(self.driver.remove(f"images/{ID}"))
        image.document["protected"] = True
        self.assertNotEqual(self.round(self.driver), "")
        self.do(self.driver.adoption.scan())
        for path in (LAYER, f"images/{ID}/json", f"images/{ID}"):
            self.fails(NotFound, self.driver.stat(path))
            self.fails(NotFound, self.node().stat(path))

    def test_glance_is_searched_once_by_all(self) -> None:
        self.old()
        self.do(self.driver.stat(LAYER))
        searches = len(self.fake.searches)
        other = self.node()
        self.do(other.stat(LAYER))
        self.assertEqual(len(self.fake.searches), searches)
        self.fake.out = True
        self.assertEqual(self.do(other.read(f"images/{ID}/json", 1000))[0], JSON.encode())
        self.fails(Unavailable, other.open(LAYER))

    def test_other_things_in_glance(self) -> None:
        self.fake.add("plain", {"meta_json": "[]"}, DATA)
        self.fake.add("broken", {"meta_json": "{"}, DATA)
        self.fake.add("deep", {"meta_json": "[" * 100000}, DATA)
        self.fake.add("odd", {"meta_json": '{"id": "../../x"}'}, DATA)
        self.fake.add("number", {"meta_json": '{"id": 7}'}, DATA)
        self.fake.add("nothing", {DIGEST: "sha256:../x"}, DATA)
        self.fake.add("unknown", {DIGEST: "md5:" + "a" * 32}, DATA)
        self.assertEqual(self.do(self.driver.list("images")).entries, ())
        self.assertEqual(self.do(self.driver.list(layout.BLOBS)).entries, ())

    def test_later(self) -> None:
        self.fails(NotFound, self.driver.stat(LAYER))
        self.fake.add("late", {IMAGE_ID: ID, "meta_json": JSON}, DATA)
        # That it was not there is believed for a while.
        self.fails(NotFound, self.driver.stat(LAYER))
        self.clock.advance(FORGET + 1)
        self.assertEqual(self.do(self.driver.read(f"images/{ID}/json", 1000))[0], JSON.encode())
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)


class BlobTests(AdoptionCase):
    def test_one_that_is_what_it_says(self) -> None:
        self.fake.add("one", {DIGEST: str(DIGEST_OF_DATA)}, DATA)
        self.assertEqual(self.do(self.driver.list(BLOB.rpartition("/")[0])).entries[0].name, "data")
        self.assertEqual(self.do(self.driver.stat(BLOB)).size, len(DATA))
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
        reads = [each for each in self.fake.requests if each == "GET /v2/images/one/file"]
        self.assertEqual(len(reads), 2)

    def test_one_that_is_not(self) -> None:
        self.fake.add("one", {DIGEST: str(DIGEST_OF_DATA)}, b"something else!")
        for verb in (self.driver.stat, self.driver.open, self.driver.settle):
            self.fails(NotFound, verb(BLOB))
        self.push(self.driver, BLOB, DATA)
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)

    def test_the_one_of_several_that_is(self) -> None:
        for number in range(3):
            self.fake.add(f"image-{number}", {DIGEST: str(DIGEST_OF_DATA)}, DATA if number == 1 else b"x")
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
        self.assertEqual(self.record(self.driver, BLOB).image, "image-1")

    def test_not_without_proof(self) -> None:
        self.fake.add("one", {DIGEST: str(DIGEST_OF_DATA)}, DATA)
        self.do(self.driver.list(layout.BLOBS))
        self.fake.out = True
        for verb in (self.driver.stat, self.driver.open, self.driver.settle):
            self.fails(Unavailable, verb(BLOB))
        self.do(self.driver.remove(BLOB.rpartition("/")[0]))
        self.fails(NotFound, self.driver.stat(BLOB))
        self.fake.out = False
        self.round(self.driver)
        self.assertNotIn("one", self.fake.images)

    def test_another_digest(self) -> None:
        digest = Digest("sha512", hashlib.sha512(DATA).hexdigest())
        self.fake.add("one", {DIGEST: str(digest)}, DATA)
        self.assertEqual(self.bytes_at(self.driver, layout.blob_data(digest)), DATA)


class ForeignTests(AdoptionCase):
    """An image of another project that everybody is shown, with all the properties that we look for."""

    def served(self) -> int:
        count = 0
        for path in (LAYER, f"images/{ID}/json", f"images/{OTHER}/json", f"images/{OTHER}/layer", BLOB):
            for verb in (self.driver.stat, self.driver.open, self.driver.settle):
                for node in (self.driver, self.node()):
                    found = getattr(node, verb.__name__)(path)
                    count += self.do(found.addCallbacks(lambda _: 1, lambda failure: failure.trap(NotFound) and 0))
        return count

    def add(self) -> None:
        more = {"visibility": "public", "owner": FOREIGN}
        self.fake.add("evil-1", {IMAGE_ID: ID, "meta_json": JSON, **more}, b"evil")
        self.fake.add("evil-2", {DIGEST: str(DIGEST_OF_DATA), **more}, DATA)
        self.fake.add("evil-3", {"meta_json": JSON.replace(ID, OTHER), **more}, b"evil")

    def test_none_is_served(self) -> None:
        self.add()
        self.fails(NotFound, self.driver.stat(LAYER))
        self.assertEqual(self.served(), 0)
        self.assertTrue(all(search["owner"] == self.fake.project for search in self.fake.searches))

    def test_none_that_comes_later(self) -> None:
        self.fails(NotFound, self.driver.stat(f"images/{'d' * 64}/layer"))
        self.add()
        self.assertEqual(self.served(), 0)

    def test_ours_behind_it(self) -> None:
        self.add()
        self.fake.add("ours", {IMAGE_ID: ID, "meta_json": JSON}, DATA)
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)

    def test_a_glance_that_shows_them_all_the_same(self) -> None:
        self.add()
        search = self.fake._search
        self.fake._search = lambda query: search({**query, "owner": FOREIGN})  # type: ignore[method-assign]  # a broken one
        self.fails(NotFound, self.driver.stat(LAYER))
        self.assertEqual(self.served(), 0)

    def test_without_a_keystone(self) -> None:
        self.fake = FakeGlance(None)
        self.fake.add("ours", {IMAGE_ID: ID, "meta_json": JSON}, DATA, None)
        self.fake.add("evil", {IMAGE_ID: OTHER}, b"evil", FOREIGN)
        driver = self.node()
        self.assertEqual(self.bytes_at(driver, LAYER), DATA)
        self.fails(NotFound, driver.stat(f"images/{OTHER}/layer"))
