"""Entity tags."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.model.conditional import entity_tag, none_match, range_holds
from txregistry.model.digest import Digest

DIGEST = Digest.of(b"x")
OTHER = Digest.of(b"y")


class NoneMatchTests(SynchronousTestCase):
    def test_matches(self):
        for header in (
            f'"{DIGEST}"',
            f"{DIGEST}",
            f'W/"{DIGEST}"',
            f'"{OTHER}", "{DIGEST}"',
            f'"a,b" , W/"{DIGEST}",',
            f"{OTHER},{DIGEST}",
            "*",
            " * ",
        ):
            with self.subTest(header):
                self.assertTrue(none_match(header, DIGEST))

    def test_does_not(self):
        broken = (f'"{DIGEST}', f'"{DIGEST}"x', f'"a", "{DIGEST}')
        for header in (None, "", f'"{OTHER}"', f'"x{DIGEST}"', '"*"', ",", *broken):
            with self.subTest(header):
                self.assertFalse(none_match(header, DIGEST))

    @FEW
    @given(st.lists(st.text(alphabet='abc, "W/', max_size=6)))
    def test_found_in_any_list(self, others):
        tags = ['"' + other.replace('"', "") + '"' for other in others]
        self.assertTrue(none_match(", ".join([*tags, entity_tag(DIGEST)]), DIGEST))
        self.assertFalse(none_match(", ".join([*tags, entity_tag(OTHER)]), DIGEST))


class RangeHoldsTests(SynchronousTestCase):
    def test_table(self):
        for header, wanted in [
            (None, True),
            (entity_tag(DIGEST), True),
            (str(DIGEST), True),
            (f"W/{entity_tag(DIGEST)}", False),
            (entity_tag(OTHER), False),
            ("Thu, 01 Jan 1970 00:00:00 GMT", False),
        ]:
            with self.subTest(header):
                self.assertEqual(range_holds(header, DIGEST), wanted)
