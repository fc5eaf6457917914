"""Ranges of downloads and of upload chunks."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import RangeInvalid
from txregistry.model.ranges import ByteRange, parse_content_range, unsatisfied, upload_range


class ByteRangeTests(SynchronousTestCase):
    def test_table(self):
        for header, size, start, stop in [
            ("bytes=0-0", 10, 0, 1),
            ("bytes=0-9", 10, 0, 10),
            ("bytes=500-1499", 3000, 500, 1500),
            ("bytes=500-", 3000, 500, 3000),
            ("bytes=-500", 3000, 2500, 3000),
            ("bytes=-5000", 3000, 0, 3000),
            ("bytes=2000-5000", 3000, 2000, 3000),
            ("bytes=4-10", 10, 4, 10),  # a V1 client's end, one past the last byte
            ("Bytes = 1 - 2", 10, 1, 3),
            ("bytes=0-" + "9" * 5000, 10, 0, 10),
            ("bytes=-" + "9" * 5000, 10, 0, 10),
            ("bytes=" + "0" * 5000 + "1-2", 10, 1, 3),
        ]:
            with self.subTest(header[:30]):
                self.assertEqual(ByteRange.parse(header, size), ByteRange(start, stop))

    def test_ignored(self):
        for header in (None, "", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "0-1", "bytes=--1",
                       "bytes=\u0661-\u0662", "bytes=0x1-2", "bytes=1_0-20", "bytes=+1-2"):  # fmt: skip
            with self.subTest(header):
                self.assertIsNone(ByteRange.parse(header, 10))

    def test_blanks(self):
        """However many there are: with the square of their number this would never come to its end."""
        self.assertEqual(ByteRange.parse(" bytes = 1 - 2 ", 10), ByteRange(1, 3))
        many = " " * 1_000_000
        for header in (f"bytes={many}x", f"bytes={many}-{many}x", f"bytes=1{many}x", f"{many}x"):
            self.assertIsNone(ByteRange.parse(header, 10))

    def test_unsatisfiable(self):
        for header, size in [
            ("bytes=500-0", 3000),
            ("bytes=5000-10000", 3000),
            ("bytes=10-", 10),
            ("bytes=10-10", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=-1", 0),
            ("bytes=" + "9" * 5000 + "-", 10),
        ]:
            with self.subTest(header[:30]):
                error = self.assertRaises(RangeInvalid, ByteRange.parse, header, size)
                self.assertEqual(error.detail["size"], size)

    @FEW
    @given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
    def test_as_slices(self, size, first, last):
        data = bytes(range(size))
        for header, wanted in [
            (f"bytes={first}-{last}", data[first : last + 1]),
            (f"bytes={first}-", data[first:]),
            (f"bytes=-{last}", data[-last:] if last else b""),
        ]:
            try:
                found = ByteRange.parse(header, size)
            except RangeInvalid:
                self.assertEqual(wanted, b"")
                continue
            assert found is not None
            self.assertEqual(data[found.start : found.stop], wanted)
            self.assertEqual(found.length, len(wanted))
            self.assertEqual(found.content_range(size), f"bytes {found.start}-{found.stop - 1}/{size}")

    @FEW
    @given(st.text(alphabet="bytes=0123456789-, ", max_size=20), st.integers(0, 100))
    def test_never_outside(self, header, size):
        try:
            found = ByteRange.parse(header, size)
        except RangeInvalid:
            return
        if found is not None:
            self.assertTrue(0 <= found.start < found.stop <= size)

    def test_unsatisfied(self):
        self.assertEqual(unsatisfied(7), "bytes */7")


class ChunkTests(SynchronousTestCase):
    @FEW
    @given(st.text(alphabet="0123456789-bytes /", max_size=12))
    def test_grammar(self, text):
        try:
            first, last = parse_content_range(text)
        except RangeInvalid:
            match = re.fullmatch("([0-9]+)-([0-9]+)", text)
            self.assertTrue(match is None or int(match[1]) > int(match[2]))
            return
        self.assertLessEqual(first, last)
        self.assertEqual([first, last], [int(part) for part in text.split("-")])

    def test_refused(self):
        long, arabic = "0-" + "9" * 5000, "\u0661-\u0662"
        for text in ("", "abc", "bytes 0-4/5", "bytes=0-4", "5-4", "0-", "-4", "0-4\n", long, arabic):
            with self.subTest(text[:20]):
                self.assertRaises(RangeInvalid, parse_content_range, text)

    def test_upload_range(self):
        self.assertEqual([upload_range(n) for n in (0, 1, 2, 10)], ["0-0", "0-0", "0-1", "0-9"])
