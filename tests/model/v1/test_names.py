"""V1 names: quoted as on disk, and never a way out of the store."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import V1Error, V1NotFound
from txregistry.model.v1.names import ImageId, V1Repository, V1Tag

EVIL = ["", ".", "..", "a/b", "../a", "a\0", "a\n", "\x7f", "a\\b", "x" * 256, "\u00e9" * 128, "\udcff", "/"]


class RepositoryTests(SynchronousTestCase):
    def test_table(self):
        for path, namespace, name in [
            ("ubuntu", "library", "ubuntu"),
            ("ubuntu/", "library", "ubuntu"),
            ("library/ubuntu", "library", "ubuntu"),
            ("foo/bar", "foo", "bar"),
            ("foo/bar//", "foo", "bar"),
            ("foo/b r+x%y", "foo", "b+r%2Bx%25y"),
            ("foo/x%$_-t", "foo", "x%25%24_-t"),
            ("foo/bar/baz", "foo", "bar%2Fbaz"),
            ("foo/a~b", "foo", "a%7Eb"),
            ("foo/\u00e9", "foo", "%C3%A9"),
            ("foo/../x", "foo", "..%2Fx"),
            ("Foo Bar/x", "Foo Bar", "x"),
        ]:
            with self.subTest(path):
                self.assertEqual(V1Repository.parse(path), V1Repository(namespace, name))
        self.assertEqual(str(V1Repository.parse("foo/bar/baz")), "foo/bar%2Fbaz")

    def test_refused(self):
        traversal = ("", "/", "//", "/foo", ".", "..", "../x", "./x", "foo/.", "foo/..")
        too_long = ("x" * 256, "foo/" + "x" * 256, "foo/" + "%" * 86, "\u00e9" * 128 + "/x")
        for path in (*traversal, *too_long, "foo\0/x", "a\n/x", "\udcff/x", "foo/\udcff"):
            with self.subTest(ascii(path)):
                error = self.assertRaises(V1Error, V1Repository.parse, path)
                self.assertEqual(error.message, "Invalid repository name")

    @FEW
    @given(st.text(max_size=12) | st.text(alphabet="./~+% a", max_size=8))
    def test_always_two_components(self, path):
        try:
            repository = V1Repository.parse(path)
        except V1Error:
            return
        for component in (repository.namespace, repository.name):
            self.assertNotIn(component, ("", ".", ".."))
            self.assertNotIn("/", component)
            self.assertNotIn("\0", component)
        self.assertTrue(re.fullmatch("(?:[A-Za-z0-9_.+-]|%[0-9A-F]{2})+", repository.name))


class ImageIdTests(SynchronousTestCase):
    def test_new(self):
        for text in ("0" * 16, "abcdefghijklmnop", "a" * 64):
            self.assertEqual(ImageId.parse_new(text).text, text)
        for text in (*EVIL, "a" * 15, "a" * 17, "g" * 64, "A" * 16, "A" * 64, "a" * 64 + "\n", "test", "\u0661" * 16):
            with self.subTest(ascii(text)):
                self.assertRaises(V1Error, ImageId.parse_new, text)

    def test_any_shape(self):
        for text in ("test", "A" * 40, "a.b", "...", "\u00e9", "with space", "x" * 255):
            self.assertEqual(str(ImageId.parse(text)), text)
        for text in EVIL:
            with self.subTest(ascii(text)):
                self.assertEqual(self.assertRaises(V1NotFound, ImageId.parse, text).message, "Image not found")


class TagTests(SynchronousTestCase):
    def test_new(self):
        for text in ("latest", "1.0", "_x", "-x", ".x", "..", "x" * 128):
            self.assertEqual(V1Tag.parse_new(text).text, text)
        for text in ("", "x" * 129, "a b", "a/b", "a\n", "\u00e9", "a:b", "\0"):
            with self.subTest(ascii(text)):
                self.assertRaises(V1Error, V1Tag.parse_new, text)

    def test_any_shape(self):
        for text in ("latest", "..", "a b", "\u00e9", "x" * 251):
            self.assertEqual(str(V1Tag.parse(text)), text)
        for text in ("", "a/b", "../x", "a\0", "x" * 252, "\udcff"):
            with self.subTest(ascii(text)):
                self.assertEqual(self.assertRaises(V1NotFound, V1Tag.parse, text).message, "Tag not found")
