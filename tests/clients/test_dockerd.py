"""A real dockerd: load, push, forget, pull; a build on a pulled image; an index."""

import os

from tests.clients.docker_daemon import DockerCase
from tests.clients.images import write_docker_archive


class DockerdTests(DockerCase):
    """dockerd over plain HTTP, which it speaks to 127.0.0.0/8 unasked."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.start_dockerd()
        self.name = f"{self.registry.host}/lab/docker"

    def test_image(self) -> None:
        self.docker("load", "--input", write_docker_archive(self.path("archive.tar"), f"{self.name}:1"))
        image_id = self.image_id(f"{self.name}:1")
        digest = self.docker_push(f"{self.name}:1")
        self.assertEqual(self.registry.manifest("lab/docker", "1").headers["docker-content-digest"], digest)
        # The second tag and the second repository find every layer there.
        self.docker("tag", f"{self.name}:1", f"{self.registry.host}/lab/second:1")
        self.assertEqual(self.docker_push(f"{self.registry.host}/lab/second:1"), digest)
        self.docker("rmi", "--force", image_id)
        self.docker("pull", f"{self.name}:1")
        self.assertEqual(self.image_id(f"{self.name}:1"), image_id)
        self.docker("pull", f"{self.name}@{digest}")
        self.build_on(f"{self.name}:1")
        self.attach(self.registry, "lab/docker", digest)

    def build_on(self, base: str) -> None:
        os.makedirs(self.path("context"))
        with open(self.path("context", "Dockerfile"), "w") as file:
            file.write(f"FROM {base}\nCOPY Dockerfile /added\n")
        self.docker("build", "--tag", f"{self.name}:2", self.path("context"))
        digest = self.docker_push(f"{self.name}:2")
        image_id = self.image_id(f"{self.name}:2")
        self.docker("rmi", "--force", image_id)
        self.docker("pull", f"{self.name}@{digest}")
        self.assertEqual(self.image_id(f"{self.name}@{digest}"), image_id)
        layers = [
            [layer["digest"] for layer in self.registry.manifest("lab/docker", tag).json["layers"]] for tag in "12"
        ]
        self.assertEqual(layers[1][:3], layers[0])

    def test_index(self) -> None:
        """A manifest list made by `docker manifest`, pulled for the platform of this daemon."""
        for tag, seed in (("a", 1), ("b", 2)):
            archive = write_docker_archive(self.path(f"{tag}.tar"), f"{self.name}:{tag}", seed)
            self.docker("load", "--input", archive)
            self.docker_push(f"{self.name}:{tag}")
        image_id = self.image_id(f"{self.name}:a")
        create = ("manifest", "create", "--insecure", f"{self.name}:multi")
        self.docker(*create, f"{self.name}:a", f"{self.name}:b")
        self.docker("manifest", "annotate", "--arch", "arm64", f"{self.name}:multi", f"{self.name}:b")
        pushed = self.docker("manifest", "push", "--insecure", f"{self.name}:multi").split()[-1]
        stored = self.registry.manifest("lab/docker", "multi")
        self.assertEqual(stored.headers["docker-content-digest"], pushed)
        self.assertEqual([entry["platform"]["architecture"] for entry in stored.json["manifests"]], ["amd64", "arm64"])
        self.docker("pull", f"{self.name}:multi")
        self.assertEqual(self.image_id(f"{self.name}:multi"), image_id)
