"""The client library for Python, over what docker's own code pushed: lists, pulls, tags, deletes."""

import json

from tests.clients.index_server import password_of
from tests.clients.v1_lab import V1Case


class PythonTests(V1Case):
    needs = ("v1docker", "v1python")

    def test_standalone(self) -> None:
        self.registry = self.start_registry()
        ids = self.docker_code("push", self.registry.host, "lab/v1")
        found = self.check(ids)
        self.assertEqual(found["left"], 404)
        self.assertEqual((found["repositories"], found["namespaces"]), (["lab/v1"], ["lab"]))

    def test_with_an_index(self) -> None:
        self.registry, index = self.start_with_index()
        ids = self.docker_code("push", index.host, "lab/v1", "alice")
        found = self.check(ids, index.url, "alice", password_of("alice"))
        # The index has it still.
        self.assertEqual(found["left"], [])

    def check(self, ids, *index):
        found = json.loads(self.call("v1python", self.registry.url, "lab/v1", *index))
        self.assertEqual(found["tags"], ["base", "latest"])
        self.assertEqual(found["ancestry"], ids[::-1])
        self.assertEqual({image: one["id"] for image, one in found["jsons"].items()}, {image: image for image in ids})
        self.assertEqual(sorted(found["layers"]), sorted(ids))
        self.assert_layers(self.registry, found["layers"])
        self.assertEqual(list(found["tag_json"]), ["last_update"])
        self.assertEqual((found["tagged"], found["second"]), (["base", "latest", "second"], ids[-1]))
        self.assertEqual(found["untagged"], ["base", "latest"])
        return found
