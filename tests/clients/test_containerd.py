"""containerd: its own content store, filled from an archive, pushed and pulled by `ctr`."""

from tests.clients.containerd_daemon import ContainerdCase
from tests.clients.images import Descriptor


class ContainerdTests(ContainerdCase):
    """Push from one content store, pull into an empty one."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.start_containerd()

    def push_and_pull(self, tag: str, descriptor: Descriptor) -> None:
        """Push from the store, empty the store, pull: the same digest, and every byte of it."""
        name = f"{self.registry.host}/lab/app"
        archive = self.images.layout.only(self.path("only-" + tag), descriptor, tag).archive(self.path(tag + ".tar"))
        self.ctr("images", "import", "--all-platforms", "--no-unpack", "--base-name", name, archive)
        self.ctr("images", "push", "--plain-http", f"{name}:{tag}")
        self.assert_served(self.registry, "lab/app", tag, descriptor)
        self.ctr("images", "rm", "--sync", *self.ctr("images", "ls", "--quiet").split())
        self.assertEqual(self.ctr("content", "ls", "--quiet").strip(), "")
        pull = ("content", "fetch", "--plain-http", "--all-platforms")
        self.ctr(*pull, f"{name}:{tag}")
        self.assertIn(f"{name}:{tag}", self.ctr("images", "ls", "--quiet"))
        held = set(self.ctr("content", "ls", "--quiet").split())
        self.assertEqual(set(self.images.layout.reachable(descriptor["digest"])) - held, set())

    def test_image(self) -> None:
        self.push_and_pull("app", self.images.app)
        pull = ("images", "pull", "--plain-http", "--snapshotter", "native", "--platform", "linux/amd64")
        self.ctr(*pull, f"{self.registry.host}/lab/app:app")
        self.assertIn(self.images.app["digest"], self.ctr("images", "ls"))

    def test_index(self) -> None:
        self.push_and_pull("multi", self.images.multi)

    def test_artifacts(self) -> None:
        for tag, descriptor in (("app", self.images.app), ("sbom", self.images.sbom)):
            self.push_and_pull(tag, descriptor)
        expected = {self.images.sbom["digest"]: self.both_artifacts()[self.images.sbom["digest"]]}
        self.assert_referrers(self.registry, "lab/app", self.images.app["digest"], expected)
