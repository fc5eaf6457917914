"""Pulling, looking at and deleting blobs."""

from __future__ import annotations

from tests.web.v2.base import V2TestCase, sha256
from txregistry.core.policy import Policy

DATA = bytes(range(250)) * 8  # 2000 bytes


class Pull(V2TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.digest = self.push_blob("a", DATA)
        self.url = f"/v2/a/blobs/{self.digest}"

    def test_get(self) -> None:
        response = self.ask("GET", self.url, {"Accept-Encoding": "gzip"})
        self.assertEqual((response.code, response.body), (200, DATA))
        expected = {
            "Content-Type": "application/octet-stream",
            "Content-Length": "2000",
            "Docker-Content-Digest": self.digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{self.digest}"',
            "Content-Encoding": None,
            "Transfer-Encoding": None,
        }
        self.assertEqual({name: response.header(name) for name in expected}, expected)

    def test_head_has_the_headers_of_get(self) -> None:
        get, head = self.ask("GET", self.url), self.ask("HEAD", self.url)
        self.assertEqual((head.code, head.body), (200, b""))
        without_date = [
            {name: values for name, values in one.headers.getAllRawHeaders() if name != b"Date"} for one in (get, head)
        ]
        self.assertEqual(*without_date)

    def test_ranges(self) -> None:
        for asked, first, last in (("500-1499", 500, 1499), ("500-", 500, 1999), ("-500", 1500, 1999),
                                   ("1900-5000", 1900, 1999), ("0-0", 0, 0), ("-5000", 0, 1999)):  # fmt: skip
            response = self.ask("GET", self.url, {"Range": f"bytes={asked}"})
            self.assertEqual((response.code, response.body), (206, DATA[first : last + 1]), asked)
            self.assertEqual(response.header("Content-Range"), f"bytes {first}-{last}/2000")
            self.assertEqual(response.header("Content-Length"), str(last - first + 1))

    def test_ranges_that_cannot_be_met(self) -> None:
        for asked in ("500-0", "2000-2001", "5000-10000", "-0"):
            response = self.ask("GET", self.url, {"Range": f"bytes={asked}"})
            self.refused(response, 416, "RANGE_INVALID")
            self.assertEqual(response.header("Content-Range"), "bytes */2000")

    def test_ranges_that_are_ignored(self) -> None:
        for asked in ("bytes=0-1,4-5", "pages=1-2", "bytes=x"):
            self.assertEqual(self.ask("GET", self.url, {"Range": asked}).code, 200)

    def test_head_knows_no_ranges(self) -> None:
        for asked in ("bytes=0-1", "bytes=5000-"):
            response = self.ask("HEAD", self.url, {"Range": asked})
            self.assertEqual((response.code, response.header("Content-Length")), (200, "2000"))
            self.assertEqual(response.header("Content-Range"), None)

    def test_if_range(self) -> None:
        for tag, code in ((f'"{self.digest}"', 206), ('"other"', 200)):
            self.assertEqual(self.ask("GET", self.url, {"Range": "bytes=0-1", "If-Range": tag}).code, code)

    def test_not_modified(self) -> None:
        for tag in (f'"{self.digest}"', self.digest, f'"x", W/"{self.digest}"', "*"):
            response = self.ask("GET", self.url, {"If-None-Match": tag})
            self.assertEqual((response.code, response.body), (304, b""))
            self.assertEqual(response.header("ETag"), f'"{self.digest}"')
            self.assertEqual(response.header("Content-Length"), None)
        self.assertEqual(self.ask("GET", self.url, {"If-None-Match": '"x"'}).code, 200)

    def test_an_encoded_digest(self) -> None:
        self.assertEqual(self.ask("GET", self.url.replace(":", "%3A")).body, DATA)

    def test_what_is_not_there(self) -> None:
        other = sha256(b"other")
        detail = self.refused(self.ask("GET", f"/v2/a/blobs/{other}"), 404, "BLOB_UNKNOWN")
        self.assertEqual(detail, {"name": "a", "digest": other})
        self.refused(self.ask("GET", f"/v2/b/blobs/{self.digest}"), 404, "NAME_UNKNOWN")
        self.assertEqual(self.ask("HEAD", f"/v2/a/blobs/{other}").code, 404)
        for bad in ("sha256:x", "latest", "sha256:" + "A" * 64, "md5:" + "0" * 32):
            self.refused(self.ask("GET", f"/v2/a/blobs/{bad}"), 400, "DIGEST_INVALID")

    def test_a_name_that_looks_like_a_route(self) -> None:
        for name in ("a/blobs/uploads", "manifests/tags/list", "blobs", "a/referrers"):
            digest = self.push_blob(name, DATA)
            self.assertEqual(self.ask("GET", f"/v2/{name}/blobs/{digest}").body, DATA)


class Delete(V2TestCase):
    def test_only_from_this_repository(self) -> None:
        digest = self.push_blob("a", DATA)
        self.push_blob("a", b"other")
        self.push_blob("b", DATA)
        response = self.ask("DELETE", f"/v2/a/blobs/{digest}")
        self.assertEqual((response.code, response.header("Content-Length")), (202, "0"))
        self.assertEqual(self.ask("HEAD", f"/v2/a/blobs/{digest}").code, 404)
        self.refused(self.ask("DELETE", f"/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN")
        self.assertEqual(self.ask("GET", f"/v2/b/blobs/{digest}").body, DATA)


class DeleteOff(V2TestCase):
    policy = Policy(delete=False)

    def test_is_refused(self) -> None:
        digest = self.push_blob("a", DATA)
        self.push_image("a", "t")
        for target in (f"blobs/{digest}", "manifests/t", f"manifests/{digest}"):
            self.refused(self.ask("DELETE", f"/v2/a/{target}"), 405, "UNSUPPORTED")
        self.assertEqual(self.ask("GET", f"/v2/a/blobs/{digest}").code, 200)
