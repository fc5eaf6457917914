"""Merging the lists of a V1 repository's images."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import V1Error
from txregistry.model.v1.index import listed_ids, merge_images

ENTRY = st.fixed_dictionaries(
    {"id": st.sampled_from("abcd")}, optional={"checksum": st.sampled_from("xy"), "Tag": st.sampled_from("tu")}
)
ENTRIES = st.lists(ENTRY, max_size=6).map(lambda entries: json.dumps(entries).encode())


class MergeTests(SynchronousTestCase):
    def test_first_list_is_kept_as_it_is(self):
        data = b' [ {"id":"a1", "Tag" : "x"} ]\n'
        self.assertEqual(merge_images(None, data), data)

    def test_example(self):
        merged = merge_images(b'[{"id":"a1"}]', b'[{"id":"a1","checksum":"x"},{"id":"a2","Tag":"t"}]')
        self.assertEqual(json.loads(merged), [{"id": "a1", "checksum": "x"}, {"id": "a2", "Tag": "t"}])

    def test_rule(self):
        for new, old, wanted in [
            ([{"id": "a"}], [{"id": "a", "checksum": "x"}], {"id": "a", "checksum": "x"}),
            ([{"id": "a", "checksum": "n"}], [{"id": "a", "checksum": "o"}], {"id": "a", "checksum": "n"}),
            ([{"id": "a", "Tag": "n"}], [{"id": "a", "Tag": "o"}], {"id": "a", "Tag": "o"}),
            ([], [{"id": "a"}], {"id": "a"}),
        ]:
            merged = merge_images(json.dumps(old).encode(), json.dumps(new).encode())
            self.assertEqual(json.loads(merged), [wanted])

    def test_unreadable_stored_list_is_given_up(self):
        for stored in (b"", b"{", b"{}", b"[7]", b"\xff"):
            self.assertEqual(json.loads(merge_images(stored, b'[{"id": "a"}]')), [{"id": "a"}])

    def test_refused(self):
        for data, message in [
            (b"", "Error Decoding JSON"),
            (b"{", "Error Decoding JSON"),
            (b"\xff", "Error Decoding JSON"),
            (b"[" * 100_000, "Error Decoding JSON"),
            (b"{}", "Invalid data"),
            (b'"x"', "Invalid data"),
            (b"[7]", "Invalid data"),
            (b'[{"Tag": "x"}]', "Invalid data"),
            (b'[{"id": 7}]', "Invalid data"),
        ]:
            for stored in (None, b"[]"):
                with self.subTest((data[:20], stored)):
                    self.assertEqual(self.assertRaises(V1Error, merge_images, stored, data).message, message)

    @FEW
    @given(ENTRIES, ENTRIES)
    def test_nothing_is_lost(self, stored, pushed):
        merged = merge_images(stored, pushed)
        entries = json.loads(merged)
        self.assertEqual(len({entry["id"] for entry in entries}), len(entries))
        self.assertEqual(set(listed_ids(merged)), set(listed_ids(stored)) | set(listed_ids(pushed)))
        everything = json.loads(pushed) + json.loads(stored)
        for entry in entries:
            self.assertIn(entry, everything)
            had_checksum = any("checksum" in other for other in everything if other["id"] == entry["id"])
            self.assertEqual("checksum" in entry, had_checksum)

    @FEW
    @given(ENTRIES, ENTRIES)
    def test_again_changes_nothing_with_checksums(self, stored, pushed):
        merged = merge_images(stored, pushed)
        self.assertEqual(merge_images(merged, merged), merged)
        self.assertEqual(merge_images(merged, b"[]"), merged)


class ListedTests(SynchronousTestCase):
    def test_table(self):
        self.assertEqual(listed_ids(b'[{"id": "b"}, {"id": "a"}, {"id": "b", "Tag": "x"}]'), ("b", "a"))
        self.assertEqual(listed_ids(b"{"), ())
