"""What S3 and Swift share of a partial object: names, records, sizes, and the memory of what is unsent."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txregistry.storage.segmented.memory import Unsent
from txregistry.storage.segmented.names import PARTIALS, below, beside, home, path_of
from txregistry.storage.segmented.records import Record
from txregistry.storage.segmented.sizes import full_and_tail, size_at

MIB = 1024 * 1024
PARTS = st.lists(st.text("ab_-.", min_size=1, max_size=4), min_size=1, max_size=4)


class NameTests(SynchronousTestCase):
    def test_as_stores_have_it(self):
        self.assertEqual(home("a/b"), "_txregistry/partials/a/@/b/")
        self.assertEqual(home("b"), "_txregistry/partials/@/b/")
        self.assertEqual((beside("a"), beside("")), (f"{PARTIALS}/a/@/", f"{PARTIALS}/@/"))
        self.assertEqual((below("a"), below("")), (f"{PARTIALS}/a/", f"{PARTIALS}/"))

    @settings(deadline=None, derandomize=True, max_examples=50)
    @given(PARTS)
    def test_there_and_back(self, parts):
        path = "/".join(parts)
        for key in ("records/00000001", "segments/0f"):
            self.assertEqual(path_of(home(path) + key), path)
        self.assertTrue(home(path).startswith(below("/".join(parts[:-1]))))

    def test_keys_of_none(self):
        for key in (f"{PARTIALS}/a/b/c", f"{PARTIALS}/a/@/b", "a/b"):
            self.assertIsNone(path_of(key), key)


class RecordTests(SynchronousTestCase):
    RECORD = Record("etag", "nonce", 5.0, 7.5, 3, b"\0state", (("a", 1), ("b", 2)), ("key", "id"), ended=True)

    def test_as_stores_have_it(self):
        self.assertEqual(
            self.RECORD.encode(),
            b'{"previous": "etag", "nonce": "nonce", "hold": 5.0, "moved": 7.5, "offset": 3, "state": "AHN0YXRl",'
            b' "segments": [["a", 1], ["b", 2]], "upload": ["key", "id"], "ended": true}',
        )

    def test_there_and_back(self):
        for record in (Record(), self.RECORD):
            self.assertEqual(Record.decode(record.encode()), record)

    def test_a_hold_lasts_a_second_longer(self):
        self.assertTrue(self.RECORD.is_held(5.9))
        self.assertFalse(self.RECORD.is_held(6.0))
        self.assertFalse(replace(self.RECORD, hold=0.0).is_held(0.0))

    def test_the_one_before(self):
        self.assertTrue(self.RECORD.follows(2, "etag"))
        self.assertFalse(self.RECORD.follows(2, "other"))
        self.assertFalse(self.RECORD.follows(2, None))
        self.assertTrue(self.RECORD.follows(1, None))

    def test_the_one_after(self):
        first, second = (self.RECORD.successor("mine", hold=1.0) for _ in range(2))
        self.assertEqual(replace(first, nonce=""), replace(self.RECORD, previous="mine", hold=1.0, nonce=""))
        self.assertEqual(len({first.nonce, second.nonce, self.RECORD.nonce}), 3)
        self.assertEqual(first.names, {"a", "b"})


class SizeTests(SynchronousTestCase):
    def test_they_grow(self):
        self.assertEqual(size_at(0, 5 * MIB), 5 * MIB)
        self.assertEqual(size_at(5000 * MIB, 5 * MIB), 5 * MIB)
        self.assertEqual(size_at(5000 * MIB + 1000, 5 * MIB), 6 * MIB)

    def test_the_tail(self):
        def split(*sizes):
            return full_and_tail([(str(size), size) for size in sizes], lambda _: 4)

        self.assertEqual(split(), ([], None, 0))
        self.assertEqual(split(4, 4), ([("4", 4), ("4", 4)], None, 8))
        self.assertEqual(split(4, 3), ([("4", 4)], ("3", 3), 4))


class UnsentTests(SynchronousTestCase):
    def test_those_that_moved_last_come_last(self):
        unsent: Unsent[str] = Unsent(10)
        for holder, size in (("a", 4), ("b", 4), ("c", 2), ("a", 5)):
            unsent.note(holder, size)
        self.assertEqual((unsent.total, unsent.exceeded), (11, True))
        self.assertEqual(unsent.others("c"), ["b", "a"])
        unsent.left("b", 1)
        self.assertEqual((unsent.others("c"), unsent.total, unsent.exceeded), (["b", "a"], 8, False))
        unsent.note("b", 0)
        unsent.left("b", 3)
        self.assertEqual((unsent.others(""), unsent.total), (["c", "a"], 7))
