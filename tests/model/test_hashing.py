"""Hashers whose state can leave the process."""

import hashlib
from unittest import skipUnless

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model import profile  # noqa: F401 - sets how Hypothesis runs
from txregistry.errors import DigestInvalid
from txregistry.model import hashing
from txregistry.model.hashing import Sha256, resumed, upload_hasher

#: What Go's `crypto/sha256` marshals after "abc": its mark, the initial words, the bytes of a block begun, and their
#: number.
AFTER_ABC = (
    b"sha\x03"
    + bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")
    + b"abc".ljust(64, b"\0")
    + (3).to_bytes(8, "big")
)


@skipUnless(hashing.AVAILABLE, "the interpreter's libcrypto keeps its state to itself")
class Sha256Tests(SynchronousTestCase):
    def test_form(self) -> None:
        hasher = Sha256()
        hasher.update(b"abc")
        self.assertEqual(hasher.state(), AFTER_ABC)
        self.assertEqual(Sha256.resume(AFTER_ABC).hexdigest(), hashlib.sha256(b"abc").hexdigest())

    @given(st.lists(st.binary(max_size=200), max_size=8))
    def test_every_split_gives_the_one_digest(self, pieces: list[bytes]) -> None:
        hasher = Sha256()
        plain = hashlib.sha256()
        for piece in pieces:
            hasher = Sha256.resume(hasher.state())
            hasher.update(piece)
            plain.update(piece)
            self.assertEqual(hasher.hexdigest(), plain.hexdigest())
            self.assertEqual(Sha256.resume(hasher.state()).state(), hasher.state())

    def test_past_four_gibibits(self) -> None:
        """The count of bits fills its low word after 512 MiB."""
        start = AFTER_ABC[:36] + bytes(64)
        for size in (1 << 29, 1 << 32, (1 << 60) + 64):
            state = start + size.to_bytes(8, "big")
            self.assertEqual(Sha256.resume(state).state(), state)
            again = Sha256.resume(state)
            again.update(b"x")
            self.assertEqual(again.state()[-8:], (size + 1).to_bytes(8, "big"))

    def test_what_is_no_state(self) -> None:
        wrong = (b"", AFTER_ABC[:-1], AFTER_ABC + b"\0", b"sha\x02" + AFTER_ABC[4:], AFTER_ABC[:-8] + b"\xff" * 8)
        for state in wrong:
            with self.assertRaises(ValueError):
                Sha256.resume(state)
            self.assertIsNone(resumed(state, hashlib.sha256(b"abc").hexdigest()))

    def test_only_with_the_digest_that_was_noted(self) -> None:
        self.assertIsNone(resumed(AFTER_ABC, hashlib.sha256(b"abd").hexdigest()))
        self.assertIsNone(resumed(AFTER_ABC, None))
        self.assertIsNone(resumed(None, hashlib.sha256(b"abc").hexdigest()))
        self.assertIsNotNone(resumed(AFTER_ABC, hashlib.sha256(b"abc").hexdigest()))


class UploadHasherTests(SynchronousTestCase):
    def test_without_the_library(self) -> None:
        self.patch(hashing, "AVAILABLE", False)
        hasher = upload_hasher("sha256")
        hasher.update(b"abc")
        self.assertEqual(
            (type(hasher), hasher.hexdigest()), (type(hashlib.sha256()), hashlib.sha256(b"abc").hexdigest())
        )
        self.assertIsNone(resumed(AFTER_ABC, hashlib.sha256(b"abc").hexdigest()))

    def test_algorithms(self) -> None:
        self.assertEqual(upload_hasher("sha512").name, "sha512")
        with self.assertRaises(DigestInvalid):
            upload_hasher("md5")
