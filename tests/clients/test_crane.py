"""crane: push from and pull to a layout, validate, copy between repositories, list and delete."""

from tests.clients.base import ClientCase


class CraneTests(ClientCase):
    """The main verbs of crane."""

    needs = ("crane",)

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.remote = f"{self.registry.host}/lab/app"

    def push_tag(self, tag: str) -> None:
        descriptor = getattr(self.images, tag)
        source = self.images.layout.only(self.path("only-" + tag), descriptor)
        self.call("crane", "push", source.path, f"{self.remote}:{tag}")
        self.assert_served(self.registry, "lab/app", tag, descriptor)

    def test_image(self) -> None:
        self.push_tag("app")
        self.assertEqual(self.call("crane", "digest", f"{self.remote}:app").strip(), self.images.app["digest"])
        self.call("crane", "validate", "--remote", f"{self.remote}:app")
        self.call("crane", "pull", "--format", "oci", f"{self.remote}:app", self.path("back"))
        self.assert_layout(self.path("back"), self.images.app)
        by_digest = f"{self.remote}@{self.images.app['digest']}"
        self.call("crane", "pull", "--format", "oci", by_digest, self.path("again"))
        self.assert_layout(self.path("again"), self.images.app)

    def test_index(self) -> None:
        self.push_tag("multi")
        self.call("crane", "validate", "--remote", f"{self.remote}:multi")
        self.call("crane", "pull", "--format", "oci", f"{self.remote}:multi", self.path("back"))
        self.assert_layout(self.path("back"), self.images.multi)

    def test_artifacts(self) -> None:
        for tag in ("app", "sbom", "signature"):
            self.push_tag(tag)
        self.assert_referrers(self.registry, "lab/app", self.images.app["digest"], self.both_artifacts())
        manifest = self.call("crane", "manifest", f"{self.remote}:sbom")
        self.assertEqual(manifest.encode(), self.images.layout.read(self.images.sbom["digest"]))

    def test_copies_lists_and_deletes(self) -> None:
        self.push_tag("app")
        self.push_tag("multi")
        self.call("crane", "copy", f"{self.remote}:multi", f"{self.registry.host}/lab/copy:multi")
        self.assert_served(self.registry, "lab/copy", "multi", self.images.multi)
        self.assertEqual(self.call("crane", "ls", self.remote).split(), ["app", "multi"])
        catalog = self.call("crane", "catalog", self.registry.host).split()
        self.assertEqual(catalog, ["lab/app", "lab/copy"])
        self.call("crane", "delete", f"{self.remote}@{self.images.multi['digest']}")
        self.assertEqual(self.registry.manifest("lab/app", "multi").status, 404)
        self.assert_served(self.registry, "lab/copy", "multi", self.images.multi)
