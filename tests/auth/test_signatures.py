"""Privileged signatures: vectors made by other programs, dates, and what must not count."""

import base64
import subprocess
from email.utils import formatdate
from pathlib import Path
from shutil import which

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from txregistry.auth.signatures import (
    DATE_WINDOW,
    HASHES,
    KeyInvalid,
    Signatures,
    load_private,
    load_public,
    message,
    public_pem,
    sign,
)

NOW = 1_700_000_000.0
JSON = "/v1/images/abc/json"


class MessageTests(SynchronousTestCase):
    def test_vectors(self):
        for method, path, headers, expected in [
            ("GET", JSON, {}, "GET,/v1/images/abc/json"),
            (
                "GET",
                JSON,
                {"x-docker-token": "true", "accept": "*/*", "x-docker-checksum": "foo"},
                "GET,/v1/images/abc/json,X-Docker-Checksum:foo,X-Docker-Token:true",
            ),
            ("GET", "/v1/repositories/foo/a b/tags", {}, "GET,/v1/repositories/foo/a b/tags"),
            ("HEAD", JSON, {}, "HEAD,/v1/images/abc/json"),
            ("PUT", "/v1/é", {"X-DOCKER-A": "1,2"}, "PUT,/v1/é,X-Docker-A:1,2"),
        ]:
            self.assertEqual(message(method, path, headers), expected.encode())


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    program = which("openssl")
    if program is None:
        raise SkipTest("openssl is not installed")
    return subprocess.run([program, *arguments], input=data, capture_output=True, check=True, timeout=60).stdout


_keys: "dict[str, bytes]" = {}


def private_key(form: str = "pkcs8") -> bytes:
    """A private key in PEM, made once."""
    if not _keys:
        _keys["pkcs8"] = openssl("genrsa", "2048")
        _keys["pkcs1"] = openssl("rsa", "-traditional", data=_keys["pkcs8"])
    return _keys[form]


class Keys(SynchronousTestCase):
    def test_both_forms_of_public_keys(self):
        spki = openssl("rsa", "-pubout", data=private_key())
        pkcs1 = openssl("rsa", "-RSAPublicKey_out", data=private_key())
        self.assertTrue(spki.startswith(b"-----BEGIN PUBLIC KEY"))
        self.assertTrue(pkcs1.startswith(b"-----BEGIN RSA PUBLIC KEY"))
        self.assertEqual(load_public(spki).public_numbers(), load_public(pkcs1).public_numbers())

    def test_both_forms_of_private_keys(self):
        self.assertTrue(private_key("pkcs1").startswith(b"-----BEGIN RSA PRIVATE KEY"))
        pems = {public_pem(load_private(private_key(form))) for form in ("pkcs1", "pkcs8")}
        self.assertEqual(len(pems), 1)
        self.assertTrue(pems.pop().startswith(b"-----BEGIN RSA PUBLIC KEY"))

    def test_what_pyrsa_writes(self):
        rsa = import_rsa()
        public, _ = rsa.newkeys(1024)
        found = load_public(public.save_pkcs1()).public_numbers()
        self.assertEqual((found.n, found.e), (public.n, public.e))

    def test_what_is_no_key(self):
        elliptic = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
        sealed = openssl("rsa", "-aes128", "-passout", "pass:secret", data=private_key())
        for data in (b"", b"hello", private_key(), openssl("ec", "-pubout", data=elliptic)):
            self.assertRaises(KeyInvalid, load_public, data)
        for data in (b"", b"hello", public_pem(load_private(private_key())), elliptic, sealed):
            self.assertRaises(KeyInvalid, load_private, data)


def import_rsa():
    try:
        import rsa
    except ImportError:
        raise SkipTest("rsa is not installed") from None
    return rsa


class SignatureTests(SynchronousTestCase):
    def setUp(self):
        self.key = load_private(private_key())
        self.signatures = self.make()

    def make(self, require_date: bool = False) -> Signatures:
        return Signatures(load_public(public_pem(self.key)), require_date)

    def signed(self, headers: "dict[str, str]", method: str = "GET", path: str = JSON) -> bool:
        lower = {name.lower(): value for name, value in headers.items()}
        return self.signatures.signed(method, path, lower, NOW)

    def by_openssl(self, text: str, digest: str = "sha256") -> str:
        file = Path(self.mktemp())
        file.write_bytes(private_key())
        data = openssl("dgst", f"-{digest}", "-sign", str(file), data=text.encode())
        return "data=" + base64.b64encode(data).decode()

    def test_openssl(self):
        for digest in HASHES:
            signature = self.by_openssl("GET,/v1/images/abc/json,X-Docker-Token:true", digest)
            self.assertTrue(self.signed({"X-Signature": signature, "X-Docker-Token": "true"}), digest)
            self.assertFalse(self.signed({"X-Signature": signature, "X-Docker-Token": "false"}), digest)
            self.assertFalse(self.signed({"X-Signature": signature}), digest)

    def test_rsa(self):
        rsa = import_rsa()
        key = rsa.PrivateKey.load_pkcs1(private_key("pkcs1"))
        for name in ("SHA-1", "SHA-256", "SHA-384", "SHA-512", "MD5"):
            data = base64.b64encode(rsa.sign(b"GET,/v1/images/abc/json", key, name)).decode()
            self.assertEqual(self.signed({"X-Signature": f"data={data}"}), name != "MD5", name)

    def test_never_md5(self):
        self.assertFalse(self.signed({"X-Signature": self.by_openssl("GET,/v1/images/abc/json", "md5")}))

    def test_method_and_path_are_signed(self):
        signature = {"X-Signature": self.by_openssl("GET,/v1/images/abc/json")}
        self.assertTrue(self.signed(signature))
        self.assertFalse(self.signed(signature, method="HEAD"))
        self.assertFalse(self.signed(signature, path=JSON + "?x=1"))

    def test_another_key(self):
        other = load_private(openssl("genrsa", "2048"))
        self.assertFalse(self.signed(sign(other, "GET", JSON, {}, NOW)))
        self.assertTrue(self.signed(sign(self.key, "GET", JSON, {}, NOW)))

    def test_forms_of_the_header(self):
        data = self.by_openssl("GET,/v1/images/abc/json")
        for text in (f" {data} ", f"{data};", f"x=y; {data} ;z", f"{data}; method=rsa"):
            self.assertTrue(self.signed({"X-Signature": text}), text)
        for text in ("", ";", "data", "data=", "data=!", "data=a", "data=\xe9", "Data=" + data[5:], data[5:]):
            self.assertFalse(self.signed({"X-Signature": text}), text)

    def test_own_signatures(self):
        for digest in HASHES:
            headers = {"x-docker-token": "true", "Accept": "x"}
            headers |= sign(self.key, "PUT", "/v1/a b", headers, NOW, digest)
            self.assertTrue(self.signed(headers, "PUT", "/v1/a b"), digest)

    def test_date_window(self):
        for offset, allowed in [
            (0, True),
            (DATE_WINDOW, True),
            (-DATE_WINDOW, True),
            (DATE_WINDOW + 1, False),
            (-DATE_WINDOW - 1, False),
        ]:
            self.assertEqual(self.signed(sign(self.key, "GET", JSON, {}, NOW + offset)), allowed, offset)

    def test_a_date_has_to_be_one(self):
        for date in ("now", "", "Tue, 99 Nov 2023 22:13:20 GMT", "2023-11-14T22:13:20Z"):
            signature = self.by_openssl(f"GET,{JSON},X-Docker-Date:{date}")
            self.assertFalse(self.signed({"X-Signature": signature, "X-Docker-Date": date}), date)

    def test_old_forms_of_dates(self):
        for date in ("Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"):
            signature = self.by_openssl(f"GET,{JSON},X-Docker-Date:{date}")
            self.assertTrue(self.signed({"X-Signature": signature, "X-Docker-Date": date}), date)

    def test_a_date_can_be_required(self):
        undated = {"X-Signature": self.by_openssl(f"GET,{JSON}")}
        self.assertTrue(self.signed(undated))
        self.signatures = self.make(require_date=True)
        self.assertFalse(self.signed(undated))
        self.assertTrue(self.signed(sign(self.key, "GET", JSON, {}, NOW)))

    def test_a_date_cannot_be_hidden(self):
        date = formatdate(NOW - 10_000, usegmt=True)
        headers = {"X-Docker-Checksum": "foo"}
        headers |= sign(self.key, "GET", JSON, headers, NOW - 10_000)
        self.assertFalse(self.signed(headers))
        # The same bytes are signed when the date is a part of another header, or of the path.
        merged = {"X-Docker-Checksum": f"foo,X-Docker-Date:{date}", "X-Signature": headers["X-Signature"]}
        self.assertFalse(self.signed(merged))
        path = f"{JSON},X-Docker-Checksum:foo,X-Docker-Date:{date}"
        self.assertFalse(self.signed({"X-Signature": headers["X-Signature"]}, path=path))
