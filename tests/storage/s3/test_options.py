"""From the keys of a configuration to what the engine does with them: addresses, headers, signatures."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txregistry import config
from txregistry.errors import Unavailable
from txregistry.storage.s3.options import S3Options, Signing, from_keys, root_of
from txregistry.storage.s3.segments import LARGEST, PARTS, SEGMENT, Pieces, segment_size

SKIP = None if importlib.util.find_spec("boto3") else "needs boto3"
if SKIP is None:
    from txregistry.storage.s3.bucket import Bucket
    from txregistry.storage.s3.signed import signed_url

BASE: dict[str, Any] = {"bucket": "bkt", "access_key": "AK", "secret_key": "SK", "region": "eu-west-1"}


class KeysTests(SynchronousTestCase):
    def options(self, keys: str, engine: str = "s3") -> S3Options:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(f"dev: {{storage: {engine}, boto_bucket: b, {keys}}}\n")
        storage = config.load(None, None, {}, str(folder)).storage
        return from_keys(storage.engine, storage.path, storage.keys)

    def test_roots(self):
        for written, root in ((None, ""), ("", ""), ("/", ""), ("/prod", "prod/"), ("x", "x/"), ("/x/y/", "x/y/")):
            self.assertEqual(root_of(written), root)

    def test_defaults_leave_all_to_the_library(self):
        self.assertEqual(self.options(""), S3Options(bucket="b"))

    def test_empty_keys_are_absent_ones(self):
        given = self.options("s3_access_key: '', s3_secret_key: ''")
        self.assertEqual((given.access_key, given.secret_key), (None, None))

    def test_all_keys(self):
        given = self.options(
            "storage_path: /images, s3_access_key: a, s3_secret_key: s, s3_encrypt: yes, s3_kms_key: k, s3_secure: no,"
            " s3_cacert: /ca.pem,"
            " s3_region: r, s3_endpoint: 'http://h:1', s3_path_style: true, s3_checksums: when_required,"
            " boto_proxy: p, boto_proxy_port: 3128, boto_proxy_user: 'u@', boto_proxy_pass: ':',"
            " cloudfront: {base: d.example, keyid: i, keysecret: f}"
        )
        self.assertEqual(
            given,
            S3Options(
                bucket="b",
                root="images/",
                endpoint="http://h:1",
                access_key="a",
                secret_key="s",
                region="r",
                path_style=True,
                secure=False,
                cacert="/ca.pem",
                checksums="when_required",
                encrypt=True,
                kms_key="k",
                proxy="http://u%40:%3A@p:3128",
                cloudfront=Signing(base="https://d.example", key_id="i", key="f"),
            ),
        )
        for secret in ("'s'", "u%40", "'f'"):
            self.assertNotIn(secret, repr(given))

    def test_the_host_of_later_versions(self):
        given = self.options("boto_host: h, boto_port: 81, boto_secure: false,"
                             " boto_calling_format: boto.s3.connection.OrdinaryCallingFormat")  # fmt: skip
        self.assertEqual((given.endpoint, given.path_style), ("http://h:81", True))
        given = self.options("boto_host: h, boto_calling_format: boto.s3.connection.SubdomainCallingFormat")
        self.assertEqual((given.endpoint, given.path_style), ("https://h", False))

    def test_google(self):
        given = self.options("gs_access_key: a, gs_secret_key: s, storage_path: /p", "gcs")
        self.assertEqual((given.endpoint, given.access_key, given.root), ("https://storage.googleapis.com", "a", "p/"))
        self.assertEqual((given.google, given.checksums), (True, "when_required"))


class RequestTests(SynchronousTestCase):
    """What is sent, seen before it is."""

    skip = SKIP

    def sent(self, **options: Any) -> Any:
        """The requests of a put and of the beginning of an upload."""
        requests: list[Any] = []

        class Seen(Exception):
            pass

        def see(request: Any, **_: object) -> None:
            requests.append(request)
            raise Seen

        bucket = Bucket(S3Options(**{**BASE, **options}))
        bucket.client.meta.events.register("before-send.s3", see)
        self.assertRaises(Seen, bucket.put, "k", b"x")
        self.assertRaises(Seen, bucket.begin, "k")
        return requests

    def test_encryption(self):
        for request in self.sent(encrypt=True):
            self.assertEqual(request.headers["x-amz-server-side-encryption"], b"AES256")
        for request in self.sent(encrypt=True, kms_key="alias/k"):
            self.assertEqual(request.headers["x-amz-server-side-encryption"], b"aws:kms")
            self.assertEqual(request.headers["x-amz-server-side-encryption-aws-kms-key-id"], b"alias/k")
        for request in self.sent():
            self.assertNotIn("x-amz-server-side-encryption", request.headers)

    def test_checksums(self):
        names = [name.lower() for name in self.sent(checksums="when_required")[0].headers]
        self.assertFalse([name for name in names if "checksum" in name or "trailer" in name])
        names = [name.lower() for name in self.sent()[0].headers]
        self.assertTrue([name for name in names if "checksum" in name])
        for options in ({"endpoint": "http://127.0.0.1:1"}, {"secure": False}):  # the whole body is signed
            request = self.sent(**options)[0]
            self.assertFalse([name for name in request.headers if "checksum" in name.lower()])
            self.assertEqual(request.headers["x-amz-content-sha256"].decode(), hashlib.sha256(b"x").hexdigest())

    def test_addresses(self):
        for options, url in (
            ({}, "https://bkt.s3.eu-west-1.amazonaws.com/k"),
            ({"path_style": True}, "https://s3.eu-west-1.amazonaws.com/bkt/k"),
            ({"secure": False}, "http://bkt.s3.eu-west-1.amazonaws.com/k"),
            ({"endpoint": "http://127.0.0.1:1"}, "http://127.0.0.1:1/bkt/k"),
            ({"root": "r/"}, "https://bkt.s3.eu-west-1.amazonaws.com/r/k"),
        ):
            self.assertEqual(self.sent(**options)[0].url.partition("?")[0], url)


class SignedTests(SynchronousTestCase):
    skip = SKIP

    def test_the_bucket_s_own(self):
        bucket = Bucket(S3Options(**BASE, root="r/"))
        parts = urlsplit(signed_url(bucket, "a b/c", 1200, 0.0))
        self.assertEqual(parts.path, "/r/a%20b/c")
        query = parse_qs(parts.query)
        self.assertEqual(query["X-Amz-Expires"], ["1200"])
        self.assertEqual(len(query["X-Amz-Signature"][0]), 64)

    def test_cloudfront(self):
        key = generate_private_key(65537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
        path = Path(self.mktemp())
        path.write_text(pem)
        for written in (pem, str(path)):
            signing = Signing(base="https://d.example", key_id="KEYID", key=written)
            bucket = Bucket(S3Options(**BASE, root="r/", cloudfront=signing))
            url, _, query = signed_url(bucket, "a/b", 60, 1000.0).partition("?")
            self.assertEqual(url, "https://d.example/r/a/b")
            fields = parse_qs(query)
            self.assertEqual((fields["Expires"], fields["Key-Pair-Id"]), (["1060"], ["KEYID"]))
            told = fields["Signature"][0].translate(str.maketrans("-_~", "+=/"))
            policy = {"Statement": [{"Resource": url, "Condition": {"DateLessThan": {"AWS:EpochTime": 1060}}}]}
            key.public_key().verify(
                base64.b64decode(told), json.dumps(policy, separators=(",", ":")).encode(), PKCS1v15(), SHA1()
            )

    def test_a_key_that_is_none(self):
        signing = Signing(base="https://d.example", key_id="i", key="/nowhere")
        bucket = Bucket(S3Options(**BASE, cloudfront=signing))
        self.assertRaises(Unavailable, signed_url, bucket, "a", 60, 0.0)


class SegmentTests(SynchronousTestCase):
    def test_the_largest_object_fits(self):
        begin = count = 0
        while begin < LARGEST:
            size = segment_size(begin)
            self.assertGreaterEqual(size, SEGMENT)
            self.assertLessEqual(size, 5 * 1024**3 + (300 << 20))
            begin, count = begin + size, count + 1
        self.assertLess(count, PARTS)


class PiecesTests(SynchronousTestCase):
    """The bytes of a segment, as they arrived."""

    @given(st.lists(st.binary(max_size=9)), st.integers(0, 50), st.integers(0, 50))
    @settings(deadline=None, derandomize=True)
    def test_cut(self, batch, begin, end):
        pieces, whole = Pieces(), b"".join(batch)
        pieces.add(batch[:3])
        pieces.add(batch[3:])
        self.assertEqual(len(pieces), len(whole))
        self.assertEqual(b"".join(pieces.cut(begin, end)), whole[begin:end])

    @given(st.lists(st.binary(max_size=9)), st.integers(1, 20), st.integers(0, 99))
    @settings(deadline=None, derandomize=True)
    def test_read(self, batch, size, offset):
        stream, whole = Pieces(batch).stream(), b"".join(batch)
        self.assertEqual(stream.seek(0, os.SEEK_END), len(whole))
        self.assertEqual(stream.read(size), b"")
        begin = min(offset, len(whole))
        self.assertEqual((stream.seek(begin), stream.tell()), (begin, begin))
        found = b""
        while piece := bytes(stream.read(size)):
            self.assertLessEqual(len(piece), size)
            self.assertGreaterEqual(len(piece) * 4, min(size, len(whole) - begin - len(found)))
            found += piece
            self.assertEqual(stream.tell(), begin + len(found))
        self.assertEqual(found, whole[begin:])
        stream.seek(-len(found), os.SEEK_CUR)
        self.assertEqual(bytes(stream.read()), whole[begin:])
        self.assertRaises(ValueError, stream.seek, len(whole) + 1)

    def test_large_pieces_are_not_copied(self):
        large = bytes(1 << 18)
        view = Pieces([large]).stream().read(1 << 20)
        self.assertIsInstance(view, memoryview)
        self.assertIs(memoryview(view).obj, large)
