"""What tests of V1 share: a registry in memory, whose store is looked into, and pushes in a line."""

from __future__ import annotations

import io
import json
import tarfile
from hashlib import sha256
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txregistry.core.policy import Policy
from txregistry.model.v1.tarsum import TarSum
from txregistry.testing.agent import Response
from txregistry.testing.registry import MemoryRegistry
from txregistry.web.app import WebOptions

A, B, C = "a" * 64, "b" * 64, "c" * 64
UNFINISHED = "Image is being uploaded, retry later"


def archive(name: str = "etc/hosts", content: bytes = b"127.0.0.1 localhost\n") -> bytes:
    """A layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def image_json(image: str, parent: str | None = None, **more: Any) -> bytes:
    return json.dumps({"id": image, **({"parent": parent} if parent else {}), **more}).encode()


def simple(data: bytes, layer: bytes) -> str:
    return "sha256:" + sha256(data + b"\n" + layer).hexdigest()


def tarsum(data: bytes, layer: bytes) -> str:
    total = TarSum(data)
    total.feed(layer)
    found = total.finish()
    assert found is not None
    return found


class V1TestCase(SynchronousTestCase):
    """A test of V1 in memory."""

    policy = Policy()
    options = WebOptions(flavor="test")

    def setUp(self) -> None:
        self.memory = MemoryRegistry(self.policy, self.options)

    def ask(self, method: str, target: str, headers: Any = None, body: bytes = b"", **how: Any) -> Response:
        response: Response = self.successResultOf(self.memory.agent.request(method, target, headers, body, **how))
        self.assertEqual(response.header("X-Docker-Registry-Version"), "0.6.5")
        self.assertEqual(response.header("X-Docker-Registry-Config"), "test")
        return response

    def get(self, target: str, headers: Any = None) -> Response:
        return self.ask("GET", target, headers)

    def put(self, target: str, body: bytes = b"", headers: Any = None, **how: Any) -> Response:
        return self.ask("PUT", target, headers, body, **how)

    def accepted(self, response: Response, code: int = 200, text: str = "true") -> None:
        self.assertEqual((response.code, response.text), (code, text))
        self.assertEqual(response.header("Content-Type"), "application/json")
        self.assertEqual(response.header("Cache-Control"), "no-cache")
        self.assertEqual(response.header("Pragma"), "no-cache")
        self.assertEqual(response.header("Expires"), "-1")

    def refused(self, response: Response, code: int, message: str) -> None:
        """A refusal with exactly this text."""
        self.accepted(response, code, '{\n    "error": ' + json.dumps(message) + "\n}")

    def store(self, path: str, data: bytes) -> None:
        """Put a file into the store, as another server would have."""
        self.successResultOf(self.memory.driver.put(path, data))

    def stored(self, path: str) -> bytes | None:
        """A file of the store, or None."""
        found = self.memory.contents.objects.get(path)
        return None if found is None else found.data

    def everything(self) -> dict[str, bytes]:
        """All files of the store."""
        return {path: found.data for path, found in self.memory.contents.objects.items()}

    def paths(self, below: str = "") -> list[str]:
        """Everything in the store, partial objects included."""
        return sorted(path for path in self.memory.contents.leaves() if path.startswith(below))

    def cookie(self, response: Response) -> dict[str, str]:
        """The headers with which a client sends back the cookie that it got."""
        text = response.header("Set-Cookie")
        assert text is not None
        return {"Cookie": text.partition(";")[0]}

    def push_json(self, image: str, parent: str | None = None, headers: Any = None, **more: Any) -> bytes:
        data = image_json(image, parent, **more)
        self.accepted(self.put(f"/v1/images/{image}/json", data, headers))
        return data

    def push_layer(self, image: str, layer: bytes, headers: Any = None) -> dict[str, str]:
        """The cookie."""
        response = self.put(f"/v1/images/{image}/layer", layer, headers)
        self.accepted(response)
        return self.cookie(response)

    def push_image(self, image: str, parent: str | None = None, layer: bytes | None = None) -> bytes:
        """Push a whole image as the oldest clients did; its JSON."""
        layer = archive() if layer is None else layer
        data = image_json(image, parent)
        self.push_json(image, parent, {"X-Docker-Checksum": simple(data, layer)})
        self.push_layer(image, layer)
        return data

    def finished(self, image: str, layer: bytes) -> None:
        """Look that an image is as it has to be in the end: what its readers get, and what is on disk."""
        got = self.get(f"/v1/images/{image}/layer")
        self.assertEqual((got.code, got.body), (200, layer))
        data = self.get(f"/v1/images/{image}/json").body
        checksum = self.stored(f"images/{image}/_checksum")
        assert checksum is not None
        self.assertIn(checksum.decode(), [simple(data, layer), tarsum(data, layer)])
        self.assertIsNone(self.stored(f"images/{image}/_inprogress"))
        known = json.loads(self.stored(f"_txregistry/index/v1/{image}") or b"{}")
        self.assertEqual((known["digest"], known["size"]), ("sha256:" + sha256(layer).hexdigest(), len(layer)))
        self.assertEqual(self.paths(f"_txregistry/state/v1/attempts/{image}"), [])
        self.assertEqual(self.paths("_txregistry/tmp"), [])
