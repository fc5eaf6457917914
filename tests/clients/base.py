"""What every test of the lab starts from: a folder, images, a registry, and a way to run a client."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.clients import tools
from tests.clients.images import (
    EMPTY,
    MANIFEST,
    MANIFESTS,
    SBOM,
    SIGNATURE,
    Descriptor,
    Layout,
    digest_of,
    encode,
    make_images,
)
from tests.clients.server import Registry


class ClientCase(SynchronousTestCase):
    """A test with the programs named in `needs`; those that must be root say so by `needs_root`."""

    needs: tuple[str, ...] = ()
    needs_root = False

    def setUp(self) -> None:
        self.tools = {name: tools.find(name) for name in self.needs}
        if self.needs_root and os.geteuid() != 0:
            raise tools.missing("needs root")
        # A short path: some clients put a unix socket below it, whose path may have 107 bytes. Hexadecimal:
        # podman takes a path for an image's name, where an underscore before a slash is not allowed.
        self.folder = os.path.join(tempfile.gettempdir(), f"txr-{secrets.token_hex(6)}")
        os.mkdir(self.folder, 0o700)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.images = make_images(self.path("images"))
        # Nothing of the user's own configuration, and nothing left in it.
        home = self.path("home")
        os.makedirs(os.path.join(home, ".config", "containers"))
        with open(os.path.join(home, ".config", "containers", "policy.json"), "w") as file:
            file.write('{"default":[{"type":"insecureAcceptAnything"}]}')
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "TMPDIR": self.folder,
            "LANG": "C.UTF-8",
        }
        self.registries: list[Registry] = []

    def path(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)

    def start_registry(self, label: str = "server", **options: Any) -> Registry:
        """A registry that is stopped with the test; `options` are those of `Registry`."""
        registry = Registry(self.path(label), **options)
        self.registries.append(registry)
        self.addCleanup(registry.stop)
        return registry.start()

    def attempt(self, tool: str, *arguments: str, timeout: int = 180, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a client to its end, whatever its end; `more` is added to its environment."""
        command = [self.tools.get(tool) or tools.find(tool), *arguments]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **more},
            cwd=self.folder,
            check=False,
        )

    def call(self, tool: str, *arguments: str, timeout: int = 180, **more: Any) -> str:
        """Run a client, which must succeed; its standard output."""
        done = self.attempt(tool, *arguments, timeout=timeout, **more)
        if done.returncode:
            logs = "".join(registry.log_tail() for registry in self.registries)
            self.fail(f"{tool} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}\n{logs}")
        return done.stdout

    def start_daemon(self, *command: str, log: str, ready: str) -> None:
        """Start a daemon of root's, wait for the path `ready`, and stop it with the test."""
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
            )

        def stop() -> None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self.addCleanup(stop)
        deadline = time.monotonic() + 60
        while not os.path.exists(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log, errors="replace") as text:
                    self.fail(f"{command[0]} does not start:\n{text.read()[-4000:]}")
            time.sleep(0.1)

    def push(self, registry: Registry, name: str, reference: str, descriptor: Descriptor) -> None:
        """Push from our layout over plain HTTP requests; the children of an index stay without a tag."""
        needed = self.images.layout.reachable(descriptor["digest"])
        # Blobs first, then the manifests from the leaves up.
        order = list(reversed(needed.items()))
        order.sort(key=lambda item: item[1] in MANIFESTS)
        for digest, media_type in order:
            data = self.images.layout.read(digest)
            if media_type not in MANIFESTS:
                answer = registry.upload(name, data, digest)
            else:
                target = reference if digest == descriptor["digest"] else digest
                path = f"/v2/{name}/manifests/{target}"
                answer = registry.request("PUT", path, data, Content_Type=media_type)
            self.assertEqual(answer.status, 201, answer.body)

    def assert_served(self, registry: Registry, name: str, reference: str, descriptor: Descriptor) -> None:
        """`reference` of repository `name` and all that it needs are served with the bytes of our layout."""
        digest = descriptor["digest"]
        top = registry.manifest(name, reference)
        self.assertEqual((top.status, digest_of(top.body)), (200, digest), top.body[:500])
        self.assertEqual(top.headers["content-type"], descriptor["mediaType"])
        self.assertEqual(top.headers["docker-content-digest"], digest)
        for needed, media_type in self.images.layout.reachable(digest).items():
            kind = "manifests" if media_type in MANIFESTS else "blobs"
            answer = registry.request("GET", f"/v2/{name}/{kind}/{needed}", Accept=", ".join(MANIFESTS))
            self.assertEqual((answer.status, answer.body), (200, self.images.layout.read(needed)), needed)

    def assert_layout(self, path: str, descriptor: Descriptor) -> None:
        """The layout that a client wrote at `path` holds `descriptor` and all that it needs, byte for byte."""
        pulled = Layout(path)
        self.assertIn(descriptor["digest"], [entry["digest"] for entry in pulled.tagged()])
        for digest in self.images.layout.reachable(descriptor["digest"]):
            self.assertEqual(digest_of(pulled.read(digest)), digest)

    def assert_referrers(self, registry: Registry, name: str, digest: str, expected: dict[str, str]) -> None:
        """The referrers of `digest` are `expected` (digest -> artifact type), with and without the filter."""
        if registry.peer:
            return  # It has no referrers API.
        answer = registry.request("GET", f"/v2/{name}/referrers/{digest}")
        self.assertEqual(answer.status, 200, answer.body)
        found = {entry["digest"]: entry["artifactType"] for entry in answer.json["manifests"]}
        self.assertEqual(found, expected)
        for artifact, artifact_type in expected.items():
            filtered = registry.request("GET", f"/v2/{name}/referrers/{digest}?artifactType={artifact_type}")
            self.assertEqual(filtered.headers["oci-filters-applied"], "artifactType")
            self.assertIn(artifact, [entry["digest"] for entry in filtered.json["manifests"]])
            self.assertEqual({entry["artifactType"] for entry in filtered.json["manifests"]}, {artifact_type})

    def both_artifacts(self) -> dict[str, str]:
        return {self.images.sbom["digest"]: SBOM, self.images.signature["digest"]: SIGNATURE}

    def attach(self, registry: Registry, name: str, digest: str) -> None:
        """Attach an artifact to what a client pushed that makes none itself, and find it."""
        subject = registry.manifest(name, digest)
        self.assertEqual(subject.status, 200)
        content, nothing = b"about " + digest.encode(), b"{}"
        for data in (content, nothing):
            self.assertEqual(registry.upload(name, data, digest_of(data)).status, 201)
        artifact = encode(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": SBOM,
                "config": {"mediaType": EMPTY, "digest": digest_of(nothing), "size": len(nothing)},
                "layers": [{"mediaType": "text/plain", "digest": digest_of(content), "size": len(content)}],
                "subject": {
                    "mediaType": subject.headers["content-type"],
                    "digest": digest,
                    "size": len(subject.body),
                },
            }
        )
        path = f"/v2/{name}/manifests/{digest_of(artifact)}"
        stored = registry.request("PUT", path, artifact, Content_Type=MANIFEST)
        self.assertEqual(stored.status, 201, stored.body)
        self.assert_referrers(registry, name, digest, {digest_of(artifact): SBOM})
