"""nginx as conf/nginx.conf sets it up, with and without sending layers itself."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from tests.clients.images import digest_of
from tests.fronts.base import IMAGE, FrontCase
from tests.fronts.nginx_server import start_nginx
from tests.fronts.process import Process
from tests.running import wait_until


class NginxCase(FrontCase):
    needs = ("nginx", "openssl", "skopeo")

    def serve(self, folder: Path, passwords: Path | None) -> Process:
        return start_nginx(folder, self.registry, self.certificates, passwords)


class NginxTests(NginxCase):
    """Every byte goes through the registry."""

    def test_images(self) -> None:
        self.start_front()
        self.check_skopeo()
        self.check_v1()
        self.check_client()

    def test_bodies(self) -> None:
        self.start_front()
        self.check_continue()
        self.check_refusal(64 << 20)
        self.check_streaming()

    def test_passwords(self) -> None:
        self.check_passwords()


class AccelTests(NginxCase):
    """nginx sends layers and blobs."""

    settings = {**FrontCase.settings, "nginx_x_accel_redirect": "/txregistry-files"}

    def test_images(self) -> None:
        self.start_front()
        self.check_skopeo()
        self.check_v1()

    def test_layer(self) -> None:
        self.start_front()
        layer = secrets.token_bytes(1 << 20)
        self.push_v1(layer)
        path = f"/v1/images/{IMAGE}/layer"
        whole = self.ask("GET", path)
        self.assertEqual((whole.status, whole.body), (200, layer))
        self.assertEqual(whole.headers["content-type"], "application/octet-stream")
        self.assertEqual(whole.headers["cache-control"], "public, max-age=31536000")
        self.assertNotIn("x-accel-redirect", whole.headers)
        part = self.ask("GET", path, Range="bytes=1000-1999")
        self.assertEqual((part.status, part.body), (206, layer[1000:2000]))
        head = self.ask("HEAD", path)
        self.assertEqual((head.status, head.headers["content-length"]), (200, str(len(layer))))
        self.assert_not_sent_by_the_registry(f"GET {path}", 2)
        # Whoever comes from where nginx is counts as nginx.
        self.assertEqual(self.registry.request("GET", path).body, b"")

    def test_blob(self) -> None:
        self.start_front()
        data = secrets.token_bytes(1 << 20)
        digest = digest_of(data)
        self.assertEqual(self.registry.upload("lab/app", data, digest).status, 201)
        path = f"/v2/lab/app/blobs/{digest}"
        whole = self.ask("GET", path)
        self.assertEqual((whole.status, hashlib.sha256(whole.body).hexdigest()), (200, digest.partition(":")[2]))
        self.assertEqual(whole.headers["docker-content-digest"], digest)
        self.assertEqual(whole.headers["docker-distribution-api-version"], "registry/2.0")
        self.assertEqual(whole.headers["content-type"], "application/octet-stream")
        part = self.ask("GET", path, Range="bytes=5-")
        self.assertEqual((part.status, part.body), (206, data[5:]))
        head = self.ask("HEAD", path)
        self.assertEqual((head.status, head.headers["docker-content-digest"]), (200, digest))
        self.assert_not_sent_by_the_registry(f"GET {path}", 2)

    def assert_not_sent_by_the_registry(self, request: str, times: int) -> None:
        wait_until(lambda: len(self.lines(request)) == times, "the lines of the access log")
        for line in self.lines(request):
            self.assertIn('" 200 - "', line)

    def test_files_are_not_shown(self) -> None:
        """Nobody but the registry can name a file."""
        self.start_front()
        self.push_v1(b"x" * 1000)
        for path in (f"images/{IMAGE}/layer", "", "../etc/passwd"):
            self.assertEqual(self.ask("GET", f"/txregistry-files/{path}").status, 404)

    def test_not_around_nginx(self) -> None:
        """A client that comes from elsewhere than a trusted front end gets the bytes themselves."""
        self.start_front()
        layer = secrets.token_bytes(1000)
        self.push_v1(layer)
        self.registry.stop()
        self.registry.config = {**self.settings, "trusted_proxies": ["192.0.2.1"]}
        self.registry.start()
        self.assertEqual(self.registry.request("GET", f"/v1/images/{IMAGE}/layer").body, layer)
