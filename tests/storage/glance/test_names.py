"""The names of images follow V1 tags."""

from __future__ import annotations

from tests.storage.glance.base import ID, OTHER, GlanceCase
from txregistry.storage.glance.places import IMAGE_ID, tag_name

TAG = "repositories/{}/tag_{}"


class NameTests(GlanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.driver = self.node()
        for known in (ID, OTHER):
            self.push(self.driver, f"images/{known}/layer", known.encode())
        self.round(self.driver)

    def tag(self, repository: str, tag: str, known: str) -> None:
        self.do(self.driver.put(TAG.format(repository, tag), known.encode()))

    def named(self) -> dict[str, object]:
        self.round(self.driver)
        documents = [image.document for image in self.fake.images.values()]
        found = {str(each[IMAGE_ID]): each["name"] for each in documents if each.get(IMAGE_ID)}
        return {known[0]: name for known, name in found.items() if name is not None}

    def test_set_and_moved(self) -> None:
        self.tag("library/busy", "latest", ID)
        self.assertEqual(self.named(), {"a": "busy:latest"})
        self.tag("library/busy", "latest", OTHER)
        self.assertEqual(self.named(), {"b": "busy:latest"})
        self.tag("me/busy%2Fbox", "1.0", ID)
        self.assertEqual(self.named(), {"a": "me/busy/box:1.0", "b": "busy:latest"})

    def test_the_last_of_several(self) -> None:
        self.tag("me/x", "1", ID)
        self.tag("me/x", "2", ID)
        self.assertEqual(self.named(), {"a": "me/x:2"})

    def test_deleted(self) -> None:
        self.tag("me/x", "1", ID)
        self.assertEqual(len(self.named()), 1)
        self.do(self.driver.remove(TAG.format("me/x", "1")))
        self.assertEqual(self.named(), {})

    def test_a_repository_deleted(self) -> None:
        self.tag("me/x", "1", ID)
        self.tag("me/x", "2", OTHER)
        self.assertEqual(len(self.named()), 2)
        self.do(self.driver.put("repositories/me/x/tag1_json", b"{}"))
        self.do(self.driver.remove("repositories/me/x"))
        self.assertEqual(self.named(), {})

    def test_before_its_layer_is_in_glance(self) -> None:
        known = "c" * 64
        self.tag("me/x", "1", known)
        self.push(self.driver, f"images/{known}/layer", b"x")
        self.assertEqual(self.named(), {"c": "me/x:1"})

    def test_made_right_from_the_tags(self) -> None:
        self.fake.out = True
        self.tag("me/x", "1", ID)
        self.tag("me/x", "2", ID)
        self.tag("me/x", "3", "what is no id of anything")
        self.do(self.driver.alternate.put(TAG.format("me/x", "long"), b"x" * 5000))
        self.fake.out = False
        mine = next(each for each in self.fake.images.values() if each.document.get(IMAGE_ID) == OTHER)
        mine.document["name"] = "old:name"
        self.fake.add("somebody's", {}, b"").document["name"] = "keep"
        other = self.node()
        self.assertEqual(self.do(other.reconcile(lambda line: None)).renamed, 2)
        self.driver = other
        self.assertEqual(self.named(), {"a": "me/x:1"})
        self.assertEqual(self.fake.images["somebody's"].document["name"], "keep")
        self.assertEqual(self.do(other.reconcile(lambda line: None)).renamed, 0)
        mine.document["name"] = "again"
        self.do(other.sweep(0.0))
        self.assertIsNone(mine.document["name"])

    def test_v2_tags_set_none(self) -> None:
        path = "docker/registry/v2/repositories/me/x/_manifests/tags/1/current/link"
        self.do(self.driver.put(path, b"sha256:" + b"a" * 64))
        self.assertEqual(self.named(), {})

    def test_which_paths_are_tags(self) -> None:
        self.assertEqual(tag_name("repositories/library/x/tag_y"), "x:y")
        for path in ("repositories/a/b/tagx_json", "repositories/a/b/json", "repositories/a/tag_b", "images/a/tag_b"):
            self.assertIsNone(tag_name(path))
        self.assertIsNone(tag_name(f"repositories/a/{'b' * 300}/tag_c"))
        self.assertIsNone(tag_name("repositories/a/\U0001f600/tag_c"))
