"""Paging: the pages together are the whole."""

from urllib.parse import parse_qsl, unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import PaginationNumberInvalid
from txregistry.model.paging import next_link, page, page_size

NAMES = st.lists(st.text(alphabet="aAbZ_-.0/", min_size=1, max_size=4), unique=True, max_size=20).map(sorted)


class PageTests(SynchronousTestCase):
    @FEW
    @given(NAMES, st.integers(1, 7))
    def test_all_pages_are_the_whole(self, names, size):
        seen, last, more = [], None, True
        while more:
            part, more = page(names, size, last)
            self.assertTrue(len(part) == size or not more)
            seen += part
            last = part[-1] if part else last
        self.assertEqual(seen, names)

    @FEW
    @given(NAMES, st.text(alphabet="aAbZ_-.0/", max_size=4), st.integers(0, 30) | st.none())
    def test_strictly_after_last(self, names, last, size):
        part, more = page(names, size, last)
        after = [name for name in names if name.encode() > last.encode()]
        self.assertEqual(part, after[:size])
        self.assertEqual(more, 0 < len(part) < len(after))

    def test_nothing_asked(self):
        self.assertEqual(page(["a", "b"], 0, None), ([], False))

    def test_byte_order(self):
        self.assertEqual(page(sorted(["a", "A", "_", "b"]), 2, None), (["A", "_"], True))


class PageSizeTests(SynchronousTestCase):
    def test_table(self):
        for text, maximum, default, wanted in [
            (None, 100, 50, 50),
            (None, 100, None, None),
            ("0", 100, 50, 0),
            ("7", 100, 50, 7),
            ("007", 100, 50, 7),
            ("100", 100, 50, 100),
            ("101", 100, 50, 100),
            ("9" * 5000, 100, 50, 100),
            ("0" * 5000 + "1", 100, 50, 1),
            ("9" * 18, None, None, 10**18 - 1),
            ("9" * 5000, None, None, None),
        ]:
            with self.subTest((text or "")[:10]):
                self.assertEqual(page_size(text, maximum, default), wanted)

    def test_refused(self):
        for text in ("", "-1", "+1", "1.0", "abc", "0x1", "1_0", " 1", "\u0661", "\u00b2"):
            with self.subTest(text):
                self.assertRaises(PaginationNumberInvalid, page_size, text, 100, 50)


class LinkTests(SynchronousTestCase):
    def test_examples(self):
        self.assertEqual(
            next_link("/v2/_catalog", [("last", "zoo/y"), ("n", "100")]),
            '</v2/_catalog?last=zoo%2Fy&n=100>; rel="next"',
        )
        self.assertEqual(
            next_link("/v2/a/referrers/sha256:ab", [("artifactType", "x/y+json")]),
            '</v2/a/referrers/sha256:ab?artifactType=x%2Fy%2Bjson>; rel="next"',
        )

    @FEW
    @given(st.text(max_size=20), st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=20)), min_size=1))
    def test_survives(self, path, query):
        link = next_link("/v2/" + path, query)
        self.assertTrue(link.isascii() and link.isprintable())
        target, _, rest = link[1:].partition(">")
        self.assertEqual(rest, '; rel="next"')
        parts = urlsplit(target)
        self.assertEqual(unquote(parts.path), "/v2/" + path)
        self.assertEqual(parse_qsl(parts.query, keep_blank_values=True), query)
