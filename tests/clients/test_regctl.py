"""regctl: copies, artifacts with a subject, deletes of tags alone, and blobs by hand."""

from tests.clients.base import ClientCase
from tests.clients.images import SBOM, digest_of


class RegctlTests(ClientCase):
    """The main verbs of regctl."""

    needs = ("regctl",)

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.remote = f"{self.registry.host}/lab/app"
        self.call("regctl", "registry", "set", "--tls", "disabled", self.registry.host)

    def push_tag(self, tag: str) -> None:
        self.call("regctl", "image", "copy", f"ocidir://{self.images.layout.path}:{tag}", f"{self.remote}:{tag}")
        self.assert_served(self.registry, "lab/app", tag, getattr(self.images, tag))

    def test_image_and_index(self) -> None:
        for tag in ("app", "multi"):
            self.push_tag(tag)
            self.call("regctl", "image", "copy", f"{self.remote}:{tag}", f"ocidir://{self.path('back')}:{tag}")
            self.assert_layout(self.path("back"), getattr(self.images, tag))
        digest = self.call("regctl", "image", "digest", f"{self.remote}:multi").strip()
        self.assertEqual(digest, self.images.multi["digest"])

    def test_artifacts(self) -> None:
        for tag in ("app", "sbom", "signature"):
            self.push_tag(tag)
        self.assert_referrers(self.registry, "lab/app", self.images.app["digest"], self.both_artifacts())
        with open(self.path("notes.txt"), "w") as file:
            file.write("notes\n")
        put = ("artifact", "put", "--artifact-type", SBOM, "--file-media-type", "text/plain", "-f", "notes.txt")
        self.call("regctl", *put, "--subject", f"{self.remote}:app")
        listed = self.call("regctl", "artifact", "list", "--filter-artifact-type", SBOM, f"{self.remote}:app")
        self.assertEqual(listed.count("Digest:"), 2, listed)
        got = self.call("regctl", "artifact", "get", f"{self.remote}:sbom")
        self.assertEqual(got, "made of 1\n")

    def test_copy_with_referrers(self) -> None:
        for tag in ("app", "sbom"):
            self.push_tag(tag)
        self.call("regctl", "image", "copy", "--referrers", f"{self.remote}:app", f"{self.registry.host}/lab/copy:app")
        expected = {self.images.sbom["digest"]: SBOM}
        self.assert_referrers(self.registry, "lab/copy", self.images.app["digest"], expected)

    def test_tags_and_blobs(self) -> None:
        self.push_tag("app")
        self.push_tag("multi")
        self.assertEqual(self.call("regctl", "tag", "ls", self.remote).split(), ["app", "multi"])
        self.call("regctl", "tag", "delete", f"{self.remote}:app")
        self.assertEqual(self.registry.manifest("lab/app", "app").status, 404)
        self.assert_served(self.registry, "lab/app", "multi", self.images.multi)
        self.assertEqual(self.call("regctl", "repo", "ls", self.registry.host).split(), ["lab/app"])
        layer = self.images.layout.read(self.images.sbom["digest"])
        got = self.call("regctl", "blob", "get", self.remote, self.put_blob(layer))
        self.assertEqual(got.encode(), layer)

    def put_blob(self, data: bytes) -> str:
        self.assertEqual(self.registry.upload("lab/app", data, digest_of(data)).status, 201)
        return digest_of(data)
