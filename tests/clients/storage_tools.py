"""What podman and buildah have in common: an image store of their own and the same verbs."""

from tests.clients.base import ClientCase
from tests.clients.images import digest_of


class StoreCase(ClientCase):
    """A client with a store of its own in the test's folder; `tool` names it, `options` go before the verb."""

    needs_root = True
    tool: str
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.remote = f"docker://{self.registry.host}/lab/app"
        # Not deleted with the rest otherwise: the store is a mount point once it was used.
        self.addCleanup(self.attempt, "umount", self.path("root", "vfs"))

    def verb(self, *arguments: str) -> str:
        store = ("--root", self.path("root"), "--runroot", self.path("run"), "--storage-driver", "vfs")
        return self.call(self.tool, *store, *self.options, *arguments)

    def pushed_digest(self, source: str, reference: str, *flags: str) -> str:
        self.verb("push", "--tls-verify=false", "--digestfile", self.path("digest"), *flags, source, reference)
        with open(self.path("digest")) as file:
            return file.read().strip()

    def check_image(self) -> None:
        """Push an image, forget it, pull it: the same image, and the digest that the registry computed."""
        self.verb("pull", "--quiet", f"oci:{self.images.layout.path}:app")
        image_id = self.verb("images", "--quiet", "--no-trunc").strip().removeprefix("sha256:")
        digest = self.pushed_digest(image_id, f"{self.remote}:app")
        stored = self.registry.manifest("lab/app", "app")
        self.assertEqual((stored.status, digest_of(stored.body)), (200, digest))
        self.verb("rmi", "--force", image_id)
        self.verb("pull", "--quiet", "--tls-verify=false", f"{self.remote}:app")
        self.assertEqual(self.verb("images", "--quiet", "--no-trunc").strip().removeprefix("sha256:"), image_id)
        self.assertIn(digest, self.verb("images", "--digests"))
        self.verb("pull", "--quiet", "--tls-verify=false", f"{self.remote}@{digest}")
        self.attach(self.registry, "lab/app", digest)

    def check_index(self) -> None:
        """Make a manifest list of two platforms from what the registry has, push it, pull one platform."""
        self.push(self.registry, "lab/app", "amd64", self.images.app)
        self.push(self.registry, "lab/app", "arm64", self.images.other)
        self.verb("manifest", "create", "multi")
        for platform in ("amd64", "arm64"):
            self.verb("manifest", "add", "--tls-verify=false", "multi", f"{self.remote}:{platform}")
        self.verb("manifest", "push", "--all", "--tls-verify=false", "multi", f"{self.remote}:multi")
        stored = self.registry.manifest("lab/app", "multi")
        self.assertEqual(stored.status, 200)
        children = {entry["digest"] for entry in stored.json["manifests"]}
        self.assertEqual(children, {self.images.app["digest"], self.images.other["digest"]})
        self.verb("pull", "--quiet", "--tls-verify=false", "--arch", "arm64", f"{self.remote}:multi")
        inspected = self.verb("inspect", f"{self.registry.host}/lab/app:multi")
        self.assertIn("arm64", inspected)
