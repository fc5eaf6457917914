"""oras: files as artifacts, attached artifacts, and a copy of an image with all that refers to it."""

import json

from tests.clients.base import ClientCase
from tests.clients.images import SBOM


class OrasTests(ClientCase):
    """The main verbs of oras."""

    needs = ("oras",)

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.start_registry()
        self.remote = f"{self.registry.host}/lab/app"

    def push_tag(self, tag: str) -> None:
        source = f"{self.images.layout.path}:{tag}"
        self.call("oras", "cp", "--from-oci-layout", source, "--to-plain-http", f"{self.remote}:{tag}")
        self.assert_served(self.registry, "lab/app", tag, getattr(self.images, tag))

    def pull(self, tag: str, *flags: str) -> None:
        target = f"{self.path('back')}:{tag}"
        self.call("oras", "cp", *flags, "--from-plain-http", f"{self.remote}:{tag}", "--to-oci-layout", target)
        self.assert_layout(self.path("back"), getattr(self.images, tag))

    def test_image_and_index(self) -> None:
        for tag in ("app", "multi"):
            self.push_tag(tag)
            self.pull(tag)

    def test_image_with_its_referrers(self) -> None:
        for tag in ("app", "sbom", "signature"):
            self.push_tag(tag)
        self.assert_referrers(self.registry, "lab/app", self.images.app["digest"], self.both_artifacts())
        self.pull("app", "--recursive")
        for artifact in (self.images.sbom, self.images.signature):
            self.assert_layout_blob(artifact["digest"])

    def assert_layout_blob(self, digest: str) -> None:
        for needed in self.images.layout.reachable(digest):
            algorithm, hex_ = needed.split(":")
            with open(self.path("back", "blobs", algorithm, hex_), "rb") as file:
                self.assertEqual(file.read(), self.images.layout.read(needed))

    def test_attached_files(self) -> None:
        self.push_tag("app")
        with open(self.path("notes.txt"), "w") as file:
            file.write("notes\n" * 1000)
        kind = ("--artifact-type", SBOM)
        self.call("oras", "push", "--plain-http", *kind, f"{self.remote}:files", "notes.txt:text/plain")
        self.call("oras", "attach", "--plain-http", *kind, f"{self.remote}:app", "notes.txt:text/plain")
        found = json.loads(self.call("oras", "discover", "--plain-http", "--format", "json", f"{self.remote}:app"))
        attached = found["referrers"]
        self.assertEqual([entry["artifactType"] for entry in attached], [SBOM])
        self.assert_referrers(self.registry, "lab/app", self.images.app["digest"], {attached[0]["digest"]: SBOM})
        for number, reference in enumerate((f"{self.remote}:files", f"{self.remote}@{attached[0]['digest']}")):
            self.call("oras", "pull", "--plain-http", "-o", self.path(f"out{number}"), reference)
            with open(self.path(f"out{number}", "notes.txt")) as file:
                self.assertEqual(file.read(), "notes\n" * 1000)

    def test_lists_and_deletes(self) -> None:
        self.push_tag("app")
        self.call("oras", "tag", "--plain-http", f"{self.remote}:app", "v1", "v2")
        tags = self.call("oras", "repo", "tags", "--plain-http", self.remote).split()
        self.assertEqual(sorted(tags), ["app", "v1", "v2"])
        self.assertEqual(self.call("oras", "repo", "ls", "--plain-http", self.registry.host).split(), ["lab/app"])
        self.call("oras", "manifest", "delete", "--force", "--plain-http", f"{self.remote}:app")
        self.assertEqual(self.registry.manifest("lab/app", "v1").status, 404)
