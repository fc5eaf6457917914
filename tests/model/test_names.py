"""Names of repositories, tags, references."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import NameInvalid, RegistryError, TagInvalid
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName, Tag, parse_reference

COMPONENT = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True)


class NameTests(SynchronousTestCase):
    def test_refused(self):
        for text in (
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", ".a", "a.", "_a", "a_", "a/../b", "..",
            "a\n", "a\0", "a b", "a/_layers", "\u00e9", "a" * 256, "a._b",
        ):  # fmt: skip
            with self.subTest(text):
                self.assertRaises(NameInvalid, RepositoryName.parse, text)

    @FEW
    @given(st.lists(COMPONENT, min_size=1, max_size=4).map("/".join).filter(lambda text: len(text) <= 255))
    def test_taken(self, text):
        self.assertEqual(str(RepositoryName.parse(text)), text)

    def test_dashes_and_route_words(self):
        for text in ("a--b", "a---b", "blobs/uploads", "tags/list", "a__b", "a.b_c-d", "a" * 255):
            self.assertEqual(RepositoryName.parse(text).text, text)


class TagTests(SynchronousTestCase):
    def test_table(self):
        for text in ("a", "_", "1.0", "A-b_c.d", "x" * 128, "sha256-" + "a" * 64):
            self.assertEqual(Tag.parse(text).text, text)
        for text in ("", ".a", "-a", "x" * 129, "a b", "a/b", "a:b", "a\n", "\u00e9"):
            with self.subTest(text):
                self.assertRaises(TagInvalid, Tag.parse, text)


class ReferenceTests(SynchronousTestCase):
    def test_colon_tells(self):
        digest = Digest.of(b"")
        self.assertEqual(parse_reference(str(digest)), digest)
        self.assertEqual(parse_reference("latest"), Tag("latest"))
        self.assertRaises(RegistryError, parse_reference, "sha256:baddigeststring")

    @FEW
    @given(st.text(max_size=140))
    def test_never_another_error(self, text):
        with contextlib.suppress(RegistryError):
            self.assertEqual(str(parse_reference(text)), text)
