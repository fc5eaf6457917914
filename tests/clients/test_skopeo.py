"""skopeo: copies into the registry and back, by tag and by digest, in OCI's and in Docker's formats."""

import json

from tests.clients.base import ClientCase
from tests.clients.images import DOCKER_MANIFEST, digest_of

PUSH = ("copy", "--all", "--dest-tls-verify=false")
PULL = ("copy", "--all", "--preserve-digests", "--src-tls-verify=false")


class SkopeoTests(ClientCase):
    """Images from our layout to the registry and back."""

    needs = ("skopeo",)

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.remote = f"docker://{self.registry.host}/lab/app"

    def push_tag(self, tag: str) -> None:
        self.call("skopeo", *PUSH, "--preserve-digests", f"oci:{self.images.layout.path}:{tag}", f"{self.remote}:{tag}")

    def test_image(self) -> None:
        self.push_tag("app")
        self.assert_served(self.registry, "lab/app", "app", self.images.app)
        self.call("skopeo", *PULL, f"{self.remote}:app", f"oci:{self.path('back')}:app")
        self.assert_layout(self.path("back"), self.images.app)
        by_digest = f"{self.remote}@{self.images.app['digest']}"
        self.call("skopeo", *PULL, by_digest, f"oci:{self.path('again')}:app")
        self.assert_layout(self.path("again"), self.images.app)

    def test_index(self) -> None:
        self.push_tag("multi")
        self.assert_served(self.registry, "lab/app", "multi", self.images.multi)
        self.call("skopeo", *PULL, f"{self.remote}:multi", f"oci:{self.path('back')}:multi")
        self.assert_layout(self.path("back"), self.images.multi)

    def test_artifacts(self) -> None:
        for tag in ("app", "sbom", "signature"):
            self.push_tag(tag)
        self.assert_served(self.registry, "lab/app", "sbom", self.images.sbom)
        self.assert_referrers(self.registry, "lab/app", self.images.app["digest"], self.both_artifacts())
        self.call("skopeo", *PULL, f"{self.remote}:sbom", f"oci:{self.path('back')}:sbom")
        self.assert_layout(self.path("back"), self.images.sbom)

    def test_docker_format(self) -> None:
        source = f"oci:{self.images.layout.path}:app"
        self.call("skopeo", *PUSH, "--format", "v2s2", source, f"{self.remote}:docker")
        stored = self.registry.manifest("lab/app", "docker")
        self.assertEqual((stored.status, stored.headers["content-type"]), (200, DOCKER_MANIFEST))
        raw = self.call("skopeo", "inspect", "--raw", "--tls-verify=false", f"{self.remote}:docker")
        self.assertEqual(digest_of(raw.encode()), stored.headers["docker-content-digest"])
        self.call("skopeo", *PULL, f"{self.remote}:docker", f"dir:{self.path('back')}")
        with open(self.path("back", "manifest.json"), "rb") as file:
            self.assertEqual(file.read(), stored.body)

    def test_lists_and_deletes(self) -> None:
        self.push_tag("app")
        self.push_tag("multi")
        listed = json.loads(self.call("skopeo", "list-tags", "--tls-verify=false", self.remote))
        self.assertEqual(listed["Tags"], ["app", "multi"])
        self.call("skopeo", "delete", "--tls-verify=false", f"{self.remote}:multi")
        self.assertEqual(self.registry.manifest("lab/app", "multi").status, 404)
        self.assert_served(self.registry, "lab/app", "app", self.images.app)
