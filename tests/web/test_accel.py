"""Layers and blobs that an nginx in front sends: the answers that name them."""

from hashlib import sha256

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tests.web.v1.base import A, V1TestCase, archive, image_json, simple
from txregistry.interfaces import IRedirects
from txregistry.model.digest import Digest
from txregistry.storage import layout
from txregistry.web.app import WebOptions
from txregistry.web.proxies import TrustedProxies

LAYER = archive()
DIGEST = "sha256:" + sha256(LAYER).hexdigest()


class WithLayer(V1TestCase):
    """A layer, and a blob of the same bytes."""

    def setUp(self):
        super().setUp()
        data = image_json(A)
        self.put(f"/v1/images/{A}/json", data)
        self.put(f"/v1/images/{A}/layer", LAYER)
        self.accepted(self.put(f"/v1/images/{A}/checksum", headers={"X-Docker-Checksum": simple(data, LAYER)}))
        begun = self.successResultOf(self.memory.agent.request("POST", "/v2/a/blobs/uploads/"))
        target = f"{begun.header('Location')}?digest={DIGEST}"
        stored = self.successResultOf(self.memory.agent.request("PUT", target, {}, LAYER))
        self.assertEqual(stored.code, 201)

    def blob(self, method: str = "GET", **headers: str):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.successResultOf(self.memory.agent.request(method, f"/v2/a/blobs/{DIGEST}", names))


class AccelTests(WithLayer):
    options = WebOptions(flavor="test", accel_prefix="/files")

    def test_a_layer(self):
        response = self.get(f"/v1/images/{A}/layer")
        self.assertEqual((response.code, response.body), (200, b""))
        self.assertEqual(response.header("X-Accel-Redirect"), f"/files/images/{A}/layer")
        self.assertEqual(response.header("Cache-Control"), "public, max-age=31536000")
        self.assertEqual(response.header("Last-Modified"), "Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertEqual(response.header("Content-Type"), "application/octet-stream")
        self.assertEqual(response.header("Content-Length"), "0")

    def test_what_is_named_is_there(self):
        for response in (self.get(f"/v1/images/{A}/layer"), self.blob()):
            path = (response.header("X-Accel-Redirect") or "").removeprefix("/files/")
            reader = self.successResultOf(self.memory.driver.open(path))
            self.assertEqual(reader.size, len(LAYER))
            reader.close()

    def test_a_blob(self):
        response = self.blob()
        self.assertEqual((response.code, response.body), (200, b""))
        path = layout.blob_data(Digest.parse(DIGEST))
        self.assertEqual(response.header("X-Accel-Redirect"), f"/files/{path}")
        self.assertEqual(response.header("Docker-Content-Digest"), DIGEST)
        self.assertEqual(response.header("Cache-Control"), "max-age=31536000")

    def test_a_look_at_a_blob_is_answered_here(self):
        response = self.blob("HEAD")
        self.assertIsNone(response.header("X-Accel-Redirect"))
        self.assertEqual(response.header("Content-Length"), str(len(LAYER)))

    def test_what_is_not_there(self):
        self.refused(self.get(f"/v1/images/{'d' * 64}/layer"), 404, "Image not found")
        missing = self.successResultOf(self.memory.agent.request("GET", f"/v2/a/blobs/sha256:{'0' * 64}"))
        self.assertEqual((missing.code, missing.header("X-Accel-Redirect")), (404, None))

    def test_unchanged(self):
        response = self.get(f"/v1/images/{A}/layer", {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"})
        self.assertEqual((response.code, response.header("X-Accel-Redirect")), (304, None))

    def test_who_comes_around_nginx_gets_the_bytes(self):
        """Where it is known which front ends there are."""
        self.memory.agent.site.proxies = TrustedProxies(["192.0.2.1"])
        self.assertEqual(self.get(f"/v1/images/{A}/layer").body, LAYER)
        self.assertEqual(self.blob().body, LAYER)
        self.memory.agent.site.proxies = TrustedProxies(["127.0.0.1"])
        self.assertEqual(self.get(f"/v1/images/{A}/layer").body, b"")


class OffTests(V1TestCase):
    def test_a_layer_is_sent_here(self):
        data = image_json(A)
        self.put(f"/v1/images/{A}/json", data)
        self.put(f"/v1/images/{A}/layer", LAYER)
        self.put(f"/v1/images/{A}/checksum", headers={"X-Docker-Checksum": simple(data, LAYER)})
        response = self.get(f"/v1/images/{A}/layer")
        self.assertEqual((response.header("X-Accel-Redirect"), response.body), (None, LAYER))


@implementer(IRedirects)
class Signs:
    def redirect(self, path: str, seconds: int) -> Deferred[str]:
        return succeed(f"https://store.example/{path}?for={seconds}")


class RedirectTests(WithLayer):
    """Layers and blobs that the storage engine sends."""

    options = WebOptions(flavor="test", redirects=Signs())

    def test_a_layer(self):
        response = self.get(f"/v1/images/{A}/layer")
        self.assertEqual((response.code, response.body), (307, b""))
        self.assertEqual(response.header("Location"), f"https://store.example/images/{A}/layer?for=1200")
        self.assertEqual(response.header("Cache-Control"), "no-store")

    def test_what_is_named_is_there(self):
        for response in (self.get(f"/v1/images/{A}/layer"), self.blob()):
            path = (response.header("Location") or "").removeprefix("https://store.example/").partition("?")[0]
            reader = self.successResultOf(self.memory.driver.open(path))
            self.assertEqual(reader.size, len(LAYER))
            reader.close()

    def test_a_blob(self):
        response = self.blob()
        self.assertEqual((response.code, response.body), (307, b""))
        path = layout.blob_data(Digest.parse(DIGEST))
        self.assertEqual(response.header("Location"), f"https://store.example/{path}?for=1200")
        self.assertEqual(response.header("Docker-Content-Digest"), DIGEST)
        self.assertEqual(response.header("Cache-Control"), "no-store")

    def test_a_look_at_a_layer_is_answered_here(self):
        response = self.successResultOf(self.memory.agent.request("HEAD", f"/v1/images/{A}/layer"))
        self.assertEqual(response.code, 200)
        self.assertIsNone(response.header("Location"))
