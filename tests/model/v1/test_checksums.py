"""V1 checksums."""

import base64
import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from tests.model.v1.vectors import GZIP, JSON, PLAIN, SIMPLE_GZIP, SIMPLE_PLAIN
from txregistry.errors import V1Error
from txregistry.model.v1.checksums import (
    Announced,
    decode_checksums,
    encode_checksum,
    parse_checksum,
    simple_checksum,
    simple_hasher,
)


class SimpleTests(SynchronousTestCase):
    def test_vectors(self):
        for layer, wanted in [(PLAIN, SIMPLE_PLAIN), (GZIP, SIMPLE_GZIP)]:
            hasher = simple_hasher(JSON)
            for start in range(0, len(layer), 100):
                hasher.update(layer[start : start + 100])
            self.assertEqual(simple_checksum(hasher), wanted)

    def test_empty(self):
        self.assertEqual(simple_checksum(simple_hasher(b"{}")), "sha256:" + hashlib.sha256(b"{}\n").hexdigest())


class HeaderTests(SynchronousTestCase):
    def test_forms(self):
        for text in ("sha256:abc", " tarsum+sha256:abc ", "a:", ":"):
            self.assertEqual(parse_checksum(text), text.strip())
        for text in ("", "abc", "a:b:c", "a:" + "b" * 300, "a:\u00e9", "a:\n b"):
            with self.subTest(ascii(text)):
                self.assertEqual(self.assertRaises(V1Error, parse_checksum, text).message, "Invalid checksum format")

    def test_match(self):
        candidates = {"sha256:s", "tarsum+sha256:t"}
        for checksum, payload, wanted in [
            ("sha256:s", None, "sha256:s"),
            ("tarsum+sha256:t", "sha256:x", "tarsum+sha256:t"),
            ("tarsum+sha256:x", "sha256:s", "sha256:s"),
            ("", "sha256:s", "sha256:s"),
            ("tarsum+sha256:x", None, None),
            ("sha256:S", "sha256:x", None),
        ]:
            self.assertEqual(Announced.parse(checksum, payload).match(candidates), wanted)

    def test_refused(self):
        for checksum, payload, message in [
            (None, None, "Missing Image's checksum"),
            ("", "", "Missing Image's checksum"),
            ("abc", None, "Invalid checksum format"),
            ("a:b", "abc", "Invalid checksum format"),
        ]:
            self.assertEqual(self.assertRaises(V1Error, Announced.parse, checksum, payload).message, message)


class FileTests(SynchronousTestCase):
    def test_both_forms(self):
        for data, wanted in [
            (b"sha256:abc", ("sha256:abc",)),
            (b" sha256:abc\n", ("sha256:abc",)),
            (b'["sha256:abc", "tarsum+sha256:def"]', ("sha256:abc", "tarsum+sha256:def")),
            (b'["sha256:abc", 7, null, "x"]', ("sha256:abc",)),
            (b"", ()),
            (b"abc", ()),
            (b"[", ()),
            (b"[]", ()),
            (b"[" * 100_000, ()),
            (b"\xff\xfe", ()),
            (base64.b64encode(b"x" * 99), ()),
        ]:
            with self.subTest(data[:20]):
                self.assertEqual(decode_checksums(data), wanted)

    @FEW
    @given(st.from_regex("[a-z0-9+]{1,12}:[a-f0-9]{1,64}", fullmatch=True))
    def test_round_trip(self, checksum):
        self.assertEqual(decode_checksums(encode_checksum(parse_checksum(checksum))), (checksum,))
        self.assertEqual(decode_checksums(json.dumps([checksum]).encode()), (checksum,))
