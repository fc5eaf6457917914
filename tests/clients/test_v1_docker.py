"""Docker's own V1 code (the Go package of docker 19.03), and the client library for node."""

import json

from tests.clients.index_server import password_of
from tests.clients.v1_lab import V1Case


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
        registry, index = self.start_with_index()
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
