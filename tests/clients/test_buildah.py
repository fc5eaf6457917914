"""buildah: builds from scratch, pushes, pulls, and a manifest list."""

import os

from tests.clients.storage_tools import StoreCase


class BuildahTests(StoreCase):
    """Buildah as root, with a store in the test's folder."""

    needs = ("buildah",)
    tool = "buildah"

    def test_image(self) -> None:
        self.check_image()

    def test_index(self) -> None:
        self.check_index()

    def test_build(self) -> None:
        """Two builds on one base: the second push finds the first's layer there."""
        os.makedirs(self.path("context"))
        with open(self.path("context", "Containerfile"), "w") as file:
            file.write("FROM scratch\nARG N\nCOPY base /base\nCOPY top$N /top\n")
        for name, content in (("base", "b" * 200_000), ("top1", "one"), ("top2", "two")):
            with open(self.path("context", name), "w") as file:
                file.write(content)
        digests = set()
        for number in ("1", "2"):
            arguments = ("--layers", "--build-arg", f"N={number}", "-t", f"built:{number}", self.path("context"))
            self.verb("bud", *arguments)
            digests.add(self.pushed_digest(f"built:{number}", f"docker://{self.registry.host}/lab/built:{number}"))
        self.assertEqual(len(digests), 2)
        layers = [
            {layer["digest"] for layer in self.registry.manifest("lab/built", number).json["layers"]}
            for number in ("1", "2")
        ]
        self.assertEqual(len(layers[0] & layers[1]), 1)
