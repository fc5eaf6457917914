"""Docker's own V1 code (the Go package of docker 19.03), and the client library for node."""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path
from typing import Any

from tests.clients.index_server import password_of
from tests.clients.tools import HERE
from tests.clients.v1_lab import V1Case
from txregistry.model.v1.tarsum import TarSum

#: The checksums of the layers that docker's own tests have, by these: folder -> the first version of tarsum.
PUBLISHED = {
    "46af0962ab5afeb5ce6740d4d91652e69206fc991fd5328c1a94d364ad00e457": (
        "tarsum+sha256:4095cc12fa5fdb1ab2760377e1cd0c4ecdd3e61b4f9b82319d96fcea6c9a41c6"
    ),
    "511136ea3c5a64f264b78b5433614aec563103b4d4702f3ba7d4d2698e22c158": (
        "tarsum+sha256:c66bd5ec9f87b8f4c6135ca37684618f486a3dd1d113b138d0a177bfa39c2571"
    ),
    "xattr": "tarsum+sha256:07e304a8dbcb215b37649fde1a699f8aeea47e60815707f1cdf4d55d25ff6ab4",
}


class DockerTests(V1Case):
    """What docker pushes, it pulls, and so does another."""

    needs = ("v1docker",)

    def test_standalone(self) -> None:
        registry = self.start_registry()
        ids = self.docker_code("push", registry.host, "lab/v1")
        self.assertEqual(len(ids), 3)
        # Nothing is new to a second push, nor for another repository.
        self.assertEqual(self.docker_code("push", registry.host, "lab/v1"), ids)
        self.assertEqual(self.docker_code("push", registry.host, "lab/copy"), ids)
        registry.stop()
        registry.start()
        for name in ("lab/v1", "lab/copy"):
            self.assertEqual(self.docker_code("pull", registry.host, name), ids)

    def test_names_without_a_namespace(self) -> None:
        registry = self.start_registry()
        ids = self.docker_code("push", registry.host, "single")
        self.assertEqual(self.docker_code("pull", registry.host, "single"), ids)
        self.assertEqual(registry.request("GET", "/v1/repositories/library/single/tags/latest").json, ids[-1])

    def test_search(self) -> None:
        registry = self.start_registry()
        self.docker_code("push", registry.host, "lab/by-v1")
        self.push(registry, "lab/by-v2", "1", self.images.app)
        self.push(registry, "other", "1", self.images.app)
        found = self.call("v1docker", "-index", registry.host, "search", "BY-").split()
        self.assertEqual(found, ["lab/by-v1", "lab/by-v2"])

    def test_with_an_index(self) -> None:
        _, index = self.start_with_index()
        ids = self.docker_code("push", index.host, "lab/v1", "alice")
        self.assertEqual(self.docker_code("push", index.host, "lab/v1", "alice"), ids)
        self.assertEqual(self.docker_code("pull", index.host, "lab/v1", "alice"), ids)
        self.assertEqual({seen["user"] for seen in index.verifications()}, {"alice"})

    def test_node(self) -> None:
        registry = self.start_registry()
        self.check_node(registry, self.docker_code("push", registry.host, "lab/v1"), registry.host)

    def test_node_with_an_index(self) -> None:
        registry, index = self.start_with_index()
        ids = self.docker_code("push", index.host, "lab/v1", "alice")
        # It shows a token to the host alone that it has it from.
        index.kill()
        index.start(registry.host, is_front=True)
        self.check_node(registry, ids, index.host, "alice", password_of("alice"))

    def check_node(self, registry, ids, host, *login) -> None:
        pulled = json.loads(self.call("v1pull", f"{host}/lab/v1", *login))
        self.assertEqual(pulled["tags"], {"latest": ids[-1], "base": ids[0]})
        self.assertEqual(sorted(pulled["listed"]), sorted(ids))
        self.assertEqual(pulled["ids"], ids[::-1])
        self.assertEqual(sorted(pulled["layers"]), sorted(ids))
        self.assert_layers(registry, pulled["layers"])


class PublishedTests(V1Case):
    """Docker's own layers, in the source of the module that the client is built from."""

    needs = ("go",)

    def test_checksums(self) -> None:
        module = os.path.join(HERE, "go", "v1docker")
        kept: dict[str, Any] = {
            name: value for name, value in os.environ.items() if name == "HOME" or name.startswith(("GO", "SSL_"))
        }
        found = self.call("go", "-C", module, "mod", "download", "-json", "github.com/docker/docker", **kept)
        source = Path(json.loads(found)["Dir"], "pkg", "tarsum", "testdata")
        for name, expected in PUBLISHED.items():
            image_json, layer = ((source / name / part).read_bytes() for part in ("json", "layer.tar"))
            for pack in (bytes, gzip.compress, bz2.compress, lzma.compress, lambda data: lzma.compress(data, 2)):
                total = TarSum(image_json)
                total.feed(pack(layer))
                self.assertEqual(total.finish(), expected, name)
