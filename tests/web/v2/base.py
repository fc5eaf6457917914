"""What tests of the V2 API share: a registry in memory, and pushes in a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txregistry.core.policy import Policy
from txregistry.model.digest import Digest
from txregistry.testing.agent import Response
from txregistry.testing.registry import MemoryRegistry
from txregistry.web.app import WebOptions

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> str:
    return str(Digest.of(data))


def descriptor(data: bytes, media_type: str, algorithm: str = "sha256", **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(data), "digest": str(Digest.of(data, algorithm)), **more}


def image(config: bytes = b"{}", layers: Iterable[bytes] = (b"layer",), **more: object) -> bytes:
    """An OCI image manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer, LAYER) for layer in layers],
        **more,
    }
    return json.dumps(document).encode()


def index(manifests: Iterable[bytes] = (), **more: object) -> bytes:
    """An OCI image index."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(manifest, OCI_MANIFEST) for manifest in manifests],
        **more,
    }
    return json.dumps(document).encode()


class V2TestCase(SynchronousTestCase):
    """A test of the V2 API in memory."""

    policy = Policy()
    options = WebOptions()

    def setUp(self) -> None:
        self.memory = MemoryRegistry(self.policy, self.options)

    def ask(self, method: str, target: str, headers: Any = None, body: bytes = b"", **how: Any) -> Response:
        response: Response = self.successResultOf(self.memory.agent.request(method, target, headers, body, **how))
        if target.startswith("/v2/"):
            self.assertEqual(response.header("Docker-Distribution-Api-Version"), "registry/2.0")
        return response

    def refused(self, response: Response, code: int, error: str) -> Any:
        """The detail of a refusal with this status and error code."""
        self.assertEqual((response.code, response.header("Content-Type")), (code, "application/json"))
        first = response.json()["errors"][0]
        self.assertEqual(first["code"], error)
        self.assertTrue(first["message"])
        return first.get("detail")

    def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = str(Digest.of(data, algorithm))
        start = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        self.assertEqual(start.code, 202)
        put = self.ask("PUT", f"{start.header('Location')}?digest={digest}", body=data)
        self.assertEqual(put.code, 201, put.body)
        return digest

    def paths(self) -> list[str]:
        """Everything in the store, upload sessions included."""
        return sorted(self.memory.contents.leaves())

    def start(self, name: str) -> str:
        """The URL of a new upload session."""
        location = self.ask("POST", f"/v2/{name}/blobs/uploads/").header("Location")
        assert location is not None
        return location

    def push(
        self, name: str, reference: str, manifest: bytes, media_type: str = OCI_MANIFEST, query: str = ""
    ) -> Response:
        return self.ask("PUT", f"/v2/{name}/manifests/{reference}{query}", {"Content-Type": media_type}, manifest)

    def push_image(self, name: str, reference: str, layer: bytes = b"layer", **more: Any) -> bytes:
        """Push an image with its blobs; its manifest."""
        self.push_blob(name, b"{}")
        self.push_blob(name, layer)
        manifest = image(layers=[layer], **more)
        self.assertEqual(self.push(name, reference, manifest).code, 201)
        return manifest
