"""The lists of images: what is read for a decision."""

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.auth import image_lists
from txregistry.auth.image_lists import ImageLists
from txregistry.concurrency import start
from txregistry.storage.memory import MemoryDriver


class ReachTests(SynchronousTestCase):
    def setUp(self):
        self.driver = MemoryDriver(Clock())
        self.lists = ImageLists(self.driver)
        self.chain = [f"i{number}" for number in range(20)]
        for at, image in enumerate(self.chain):
            self.store(image, [*reversed(self.chain[: at + 1]), "base"])
        self.reads: list[str] = []
        read = self.driver.read

        def counted(path, limit):
            self.reads.append(path)
            return read(path, limit)

        self.patch(self.driver, "read", counted)

    def store(self, image: str, ancestry: object) -> None:
        self.successResultOf(self.driver.put(f"images/{image}/ancestry", json.dumps(ancestry).encode()))

    def reaches(self, listed: "list[str]", image: str) -> bool:
        self.reads.clear()
        return self.successResultOf(start(self.lists.reaches(tuple(listed), image)))

    def test_a_listed_image_needs_no_reading(self):
        self.assertTrue(self.reaches(self.chain, "i0"))
        self.assertEqual(self.reads, [])

    def test_one_ancestry_covers_all_of_a_push(self):
        for image, expected in (("base", True), ("other", False)):
            self.assertEqual(self.reaches(self.chain, image), expected)
            self.assertEqual(self.reads, ["images/i19/ancestry"])

    def test_all_branches_are_looked_at(self):
        self.store("branch", ["branch", "root"])
        self.reads.clear()
        self.assertTrue(self.reaches(["branch", *self.chain], "root"))
        self.assertEqual(len(self.reads), 2)

    def test_what_cannot_be_read_reaches_nothing(self):
        self.store("broken", {"a": 1})
        self.assertFalse(self.reaches(["broken", "absent", "..", "a/b", ""], "base"))
        self.assertEqual(self.reads, ["images/absent/ancestry", "images/broken/ancestry"])

    def test_reading_is_bounded(self):
        self.patch(image_lists, "_MOST_ANCESTRIES", 3)
        self.assertFalse(self.reaches([f"x{number}" for number in range(10)], "base"))
        self.assertEqual(len(self.reads), 3)
