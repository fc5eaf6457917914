"""Digests: one legal spelling each."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import DigestInvalid
from txregistry.model.digest import ALGORITHMS, Digest


class DigestTests(SynchronousTestCase):
    @FEW
    @given(st.sampled_from(sorted(ALGORITHMS)), st.binary(max_size=100))
    def test_of_and_back(self, algorithm, data):
        digest = Digest.of(data, algorithm)
        self.assertEqual(digest.hex, hashlib.new(algorithm, data).hexdigest())
        self.assertEqual(Digest.parse(str(digest)), digest)
        self.assertTrue(digest.matches(data))
        self.assertFalse(digest.matches(data + b"x"))

    def test_refused(self):
        good = "a" * 64
        for text in (
            "",
            ":",
            good,
            f"sha256:{good[1:]}",
            f"sha256:{good}a",
            f"sha256:{good[1:]}A",
            f"sha256:{good}\n",
            f"sha256:{good[1:]}\u0661",
            f"SHA256:{good}",
            f"sha512:{good}",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:baddigeststring",
            f"sha256:../{good[3:]}",
        ):
            with self.subTest(text):
                self.assertRaises(DigestInvalid, Digest.parse, text)

    @FEW
    @given(st.text(max_size=150))
    def test_any_text_is_refused_or_kept(self, text):
        try:
            digest = Digest.parse(text)
        except DigestInvalid:
            return
        self.assertEqual(str(digest), text)
