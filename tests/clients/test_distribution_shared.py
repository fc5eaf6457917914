"""One root, in a folder or in a bucket, served in turn by ours and by Debian's docker-registry, whose garbage
collection then loses nothing.

"Theirs" is docker-registry 2.8. Its collection without options is the one tried: with `-m` it takes what an index
alone names, whoever wrote the index.
"""

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.clients import tools
from tests.clients.base import ClientCase
from tests.clients.images import INDEX, Descriptor, digest_of, encode, make_images, sha512_of
from tests.clients.server import Registry, peer_environment, write_peer_config
from tests.services.s3 import S3Server


class SharedRootTests(ClientCase):
    """Each test writes with one and reads with the other."""

    needs: tuple[str, ...] = ("docker-registry",)

    def setUp(self) -> None:
        super().setUp()
        self.root = self.path("store")
        self.served = 0
        # How both are told of it.
        self.storage: str = self.root
        self.config: dict[str, object] | None = None

    @contextmanager
    def ours(self) -> Iterator[Registry]:
        """Ours on the root, stopped at the end."""
        yield from self.turn(peer=False)

    @contextmanager
    def theirs(self) -> Iterator[Registry]:
        """Debian's on the root, stopped at the end."""
        yield from self.turn(peer=True)

    def turn(self, peer: bool) -> Iterator[Registry]:
        self.served += 1
        registry = self.start_registry(f"turn{self.served}", storage=self.storage, config=self.config, peer=peer)
        yield registry
        registry.stop()

    def collect(self) -> None:
        """Their garbage collection, offline."""
        config = write_peer_config(Registry(self.path("collect"), storage=self.storage, config=self.config, peer=True))
        done = subprocess.run(
            [self.tools["docker-registry"], "garbage-collect", config],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=peer_environment(),
        )
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-2000:])

    def stored_blobs(self) -> set[str]:
        """Every digest whose data is on disk."""
        base = os.path.join(self.root, "docker", "registry", "v2", "blobs")
        return {
            f"{algorithm}:{hex_}"
            for algorithm in os.listdir(base)
            for part in os.listdir(os.path.join(base, algorithm))
            for hex_ in os.listdir(os.path.join(base, algorithm, part))
        }

    def tags(self, registry: Registry, name: str) -> list[str]:
        return sorted(registry.request("GET", f"/v2/{name}/tags/list").json["tags"] or [])

    def catalog(self, registry: Registry) -> list[str]:
        found: list[str] = registry.request("GET", "/v2/_catalog").json["repositories"]
        return found

    def all_of(self, *descriptors: Descriptor) -> set[str]:
        return {digest for one in descriptors for digest in self.images.layout.reachable(one["digest"])}

    def test_image_and_index_by_ours(self) -> None:
        """An image, an index with untagged children, referrers: before and after a collection."""
        with self.ours() as registry:
            self.push(registry, "lab/app", "app", self.images.app)
            self.push(registry, "lab/index", "multi", self.images.multi)
            for artifact in (self.images.sbom, self.images.signature):
                self.push(registry, "lab/app", artifact["digest"], artifact)
        with self.theirs() as registry:
            self.assert_everything(registry)
        before = self.stored_blobs()
        self.assertEqual(
            before, self.all_of(self.images.app, self.images.multi, self.images.sbom, self.images.signature)
        )
        self.collect()
        self.assertEqual(self.stored_blobs(), before)
        with self.theirs() as registry:
            self.assert_everything(registry)
        with self.ours() as registry:
            self.assert_everything(registry)

    def assert_everything(self, registry: Registry) -> None:
        self.assertEqual(self.catalog(registry), ["lab/app", "lab/index"])
        self.assertEqual(self.tags(registry, "lab/app"), ["app"])
        self.assert_served(registry, "lab/app", "app", self.images.app)
        self.assert_served(registry, "lab/index", "multi", self.images.multi)
        for artifact in (self.images.sbom, self.images.signature):
            self.assert_served(registry, "lab/app", artifact["digest"], artifact)
        self.assert_referrers(registry, "lab/app", self.images.app["digest"], self.both_artifacts())

    def test_written_by_theirs(self) -> None:
        """Theirs writes, ours reads and goes on, theirs reads it all; referrers that theirs stored are found."""
        with self.theirs() as registry:
            self.push(registry, "lab/app", "app", self.images.app)
            self.push(registry, "lab/index", "multi", self.images.multi)
            self.push(registry, "lab/app", self.images.sbom["digest"], self.images.sbom)
        with self.ours() as registry:
            self.assertEqual(self.catalog(registry), ["lab/app", "lab/index"])
            self.assert_served(registry, "lab/app", "app", self.images.app)
            self.assert_served(registry, "lab/index", "multi", self.images.multi)
            self.push(registry, "lab/app", self.images.signature["digest"], self.images.signature)
            self.assert_everything(registry)
        with self.theirs() as registry:
            self.assert_everything(registry)
        with self.ours() as registry:
            self.assert_everything(registry)

    def test_bare_repositories(self) -> None:
        """A repository of an index alone and one that was emptied harm nobody's collection."""
        empty = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
        with self.ours() as registry:
            put = registry.request("PUT", "/v2/lab/bare/manifests/empty", empty, Content_Type=INDEX)
            self.assertEqual(put.status, 201, put.body)
            self.push(registry, "lab/emptied", "app", self.images.app)
            gone = registry.request("DELETE", f"/v2/lab/emptied/manifests/{self.images.app['digest']}")
            self.assertEqual(gone.status, 202, gone.body)
            self.push(registry, "lab/last", "other", self.images.other)
        self.collect()
        self.assertEqual(self.stored_blobs(), self.all_of(self.images.other) | {digest_of(empty)})
        with self.theirs() as registry:
            self.assertEqual(registry.manifest("lab/bare", "empty").body, empty)
            self.assertIn("lab/bare", self.catalog(registry))
            self.assert_served(registry, "lab/last", "other", self.images.other)
        with self.ours() as registry:
            self.assertEqual(registry.manifest("lab/bare", "empty").body, empty)
            self.assertEqual(registry.manifest("lab/emptied", "app").status, 404)

    def test_moved_and_deleted(self) -> None:
        """Tags moved twice and deleted, a manifest deleted: theirs sees it, and frees what nothing names."""
        second = make_images(self.path("images"), seed=5)
        with self.ours() as registry:
            for descriptor in (self.images.app, self.images.other, second.app):
                self.push(registry, "lab/app", "moving", descriptor)
            self.push(registry, "lab/app", "gone", self.images.other)
            self.assertEqual(registry.request("DELETE", "/v2/lab/app/manifests/gone").status, 202)
            deleted = registry.request("DELETE", f"/v2/lab/app/manifests/{self.images.other['digest']}")
            self.assertEqual(deleted.status, 202)
        with self.theirs() as registry:
            self.assertEqual(self.tags(registry, "lab/app"), ["moving"])
            self.assertEqual(digest_of(registry.manifest("lab/app", "moving").body), second.app["digest"])
            self.assertEqual(registry.manifest("lab/app", self.images.other["digest"]).status, 404)
            self.assertEqual(registry.manifest("lab/app", self.images.app["digest"]).status, 200)
        self.collect()
        self.assertEqual(self.stored_blobs(), self.all_of(self.images.app, second.app))
        with self.theirs() as registry:
            gone = registry.request("DELETE", f"/v2/lab/app/manifests/{second.app['digest']}")
            self.assertEqual(gone.status, 202)
        with self.ours() as registry:
            self.assertEqual(self.tags(registry, "lab/app"), [])
            self.assertEqual(registry.manifest("lab/app", "moving").status, 404)
            self.assertEqual(registry.manifest("lab/app", second.app["digest"]).status, 404)

    def test_our_upload_in_progress(self) -> None:
        """A session of ours in progress and a cancelled one leave theirs in peace; ours goes on with it after."""
        content = os.urandom(300_000)
        with self.ours() as registry:
            self.push(registry, "lab/app", "app", self.images.app)
            cancelled = registry.request("POST", "/v2/lab/app/blobs/uploads/").headers["location"]
            self.assertEqual(registry.request("DELETE", cancelled).status, 204)
            session = registry.request("POST", "/v2/lab/app/blobs/uploads/").headers["location"]
            sent = registry.request("PATCH", session, content[:200_000])
            self.assertEqual((sent.status, sent.headers["range"]), (202, "0-199999"))
            session = sent.headers["location"]
        with self.theirs() as registry:
            self.assert_served(registry, "lab/app", "app", self.images.app)
            self.assertEqual(self.catalog(registry), ["lab/app"])
        self.collect()
        with self.ours() as registry:
            self.assert_served(registry, "lab/app", "app", self.images.app)
            self.assertEqual(registry.request("GET", session).headers["range"], "0-199999")
            joint = "&" if "?" in session else "?"
            done = registry.request("PUT", f"{session}{joint}digest={digest_of(content)}", content[200_000:])
            self.assertEqual(done.status, 201, done.body)
            self.assertEqual(registry.request("GET", f"/v2/lab/app/blobs/{digest_of(content)}").body, content)

    def test_their_upload_in_progress(self) -> None:
        """A session that theirs left open is not served, and its repository still is."""
        with self.theirs() as registry:
            self.push(registry, "lab/app", "app", self.images.app)
            session = registry.request("POST", "/v2/lab/app/blobs/uploads/")
            location = session.headers["location"].removeprefix(registry.url)
            self.assertEqual(registry.request("PATCH", location, b"half").status, 202)
        with self.ours() as registry:
            self.assertEqual(self.catalog(registry), ["lab/app"])
            self.assert_served(registry, "lab/app", "app", self.images.app)
            self.assertIn(registry.request("GET", location).status, (204, 404))

    def test_mounted(self) -> None:
        """A mounted layer outlives the image it came with, theirs and their collection included."""
        layers = list(self.images.layout.reachable(self.images.app["digest"]))[1:]
        body = self.images.layout.read(self.images.app["digest"])
        with self.ours() as registry:
            self.push(registry, "lab/first", "app", self.images.app)
            for digest in layers:
                mount = f"/v2/lab/second/blobs/uploads/?mount={digest}&from=lab/first"
                self.assertEqual(registry.request("POST", mount).status, 201)
            media_type = self.images.app["mediaType"]
            put = registry.request("PUT", "/v2/lab/second/manifests/app", body, Content_Type=media_type)
            self.assertEqual(put.status, 201)
            gone = registry.request("DELETE", f"/v2/lab/first/manifests/{self.images.app['digest']}")
            self.assertEqual(gone.status, 202)
        self.collect()
        with self.theirs() as registry:
            self.assert_served(registry, "lab/second", "app", self.images.app)
        with self.ours() as registry:
            self.assert_served(registry, "lab/second", "app", self.images.app)

    def test_sha512(self) -> None:
        """Ours stores sha512 as such, and theirs keeps it; ours reads what theirs keeps under sha256."""
        layer, alias = b"layer by sha512", b"known by two digests"
        with self.ours() as registry:
            self.push(registry, "lab/app", "app", self.images.app)
            self.assertEqual(registry.upload("lab/app", layer, sha512_of(layer)).status, 201)
            app = self.images.layout.read(self.images.app["digest"])
            manifest = app.replace(b'"layers":[', b'"layers":[' + encode(self.plain_layer(layer)) + b",")
            path = f"/v2/lab/app/manifests/{sha512_of(manifest)}"
            put = registry.request("PUT", path, manifest, Content_Type=self.images.app["mediaType"])
            self.assertEqual(put.status, 201, put.body)
        self.collect()
        for turn in (self.theirs, self.ours):
            with turn() as registry:
                stored = registry.manifest("lab/app", sha512_of(manifest))
                self.assertEqual((stored.status, stored.body), (200, manifest))
                blob = registry.request("GET", f"/v2/lab/app/blobs/{sha512_of(layer)}")
                self.assertEqual((blob.status, blob.body), (200, layer))
                self.assert_served(registry, "lab/app", "app", self.images.app)
        with self.theirs() as registry:
            self.assertEqual(registry.upload("lab/app", alias, sha512_of(alias)).status, 201)
        with self.ours() as registry:
            for digest in (sha512_of(alias), digest_of(alias)):
                blob = registry.request("GET", f"/v2/lab/app/blobs/{digest}")
                self.assertEqual((blob.status, blob.body), (200, alias), digest)

    def plain_layer(self, data: bytes) -> Descriptor:
        return {"mediaType": "text/plain", "digest": sha512_of(data), "size": len(data)}

    def test_v1_images_in_the_root(self) -> None:
        """V1's images and our own files beside V2's tree: theirs and their collection see and touch none."""
        client = tools.find("v1client")
        with self.ours() as registry:
            self.push(registry, "lab/app", "app", self.images.app)
            subprocess.run([client, "-url", registry.url], check=True, capture_output=True, timeout=60)
        files = self.files_of_ours()
        self.assertIn("images", {name.split("/")[0] for name in files})
        with self.theirs() as registry:
            self.assertEqual(self.catalog(registry), ["lab/app"])
            self.assert_served(registry, "lab/app", "app", self.images.app)
        self.collect()
        self.assertEqual(self.files_of_ours(), files)
        with self.ours() as registry:
            self.assert_served(registry, "lab/app", "app", self.images.app)
            self.assertEqual(sorted(registry.request("GET", "/v1/repositories/lab/v1/tags").json), ["base", "latest"])

    def files_of_ours(self) -> set[str]:
        """Every file below the root outside V2's tree."""
        return {
            os.path.relpath(os.path.join(folder, name), self.root)
            for top in sorted(set(os.listdir(self.root)) - {"docker"})
            for folder, _, names in os.walk(os.path.join(self.root, top))
            for name in names
        }


class SharedBucketTests(SharedRootTests):
    """The same in a bucket, whose objects VersityGW keeps as files of a folder."""

    needs = ("docker-registry", "versitygw")

    def setUp(self) -> None:
        super().setUp()
        if importlib.util.find_spec("boto3") is None:
            raise tools.missing("boto3 is not installed")
        server = S3Server(self.path("s3"))
        self.addCleanup(server.stop)
        server.make_bucket("bucket")
        self.storage, self.config = "some/root", server.config("bucket")
        self.root = str(server.data / "bucket" / self.storage)
