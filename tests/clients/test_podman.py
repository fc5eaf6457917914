"""podman: its own image store, push, pull, and a manifest list."""

from tests.clients.images import write_docker_archive
from tests.clients.storage_tools import StoreCase


class PodmanTests(StoreCase):
    """Podman as root, with a store in the test's folder."""

    needs = ("podman",)
    tool = "podman"
    options = ("--cgroup-manager", "cgroupfs")

    def test_image(self) -> None:
        self.check_image()

    def test_index(self) -> None:
        self.check_index()

    def test_docker_archive(self) -> None:
        """An image in Docker's format, pushed in that format."""
        name = f"{self.registry.host}/lab/loaded:1"
        self.verb("load", "--quiet", "-i", write_docker_archive(self.path("archive.tar"), name))
        digest = self.pushed_digest(name, f"docker://{name}", "--format", "v2s2")
        self.verb("rmi", "--force", name)
        self.verb("pull", "--quiet", "--tls-verify=false", name)
        self.assertIn(digest, self.verb("images", "--digests"))
        self.assertEqual(self.registry.manifest("lab/loaded", "1").headers["docker-content-digest"], digest)
