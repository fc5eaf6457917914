"""Manifests: pushed, pulled, refused, deleted."""

from __future__ import annotations

import json

from tests.web.v2.base import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    V2TestCase,
    descriptor,
    image,
    index,
    sha256,
)
from txregistry.core.policy import Policy
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.storage import layout


class Pull(V2TestCase):
    def test_by_tag_and_by_digest(self) -> None:
        manifest = self.push_image("a/b", "v1")
        for reference in ("v1", sha256(manifest)):
            get = self.ask("GET", f"/v2/a/b/manifests/{reference}")
            head = self.ask("HEAD", f"/v2/a/b/manifests/{reference}")
            self.assertEqual((get.code, get.body, head.code, head.body), (200, manifest, 200, b""))
            for response in (get, head):
                self.assertEqual(response.headers.getRawHeaders("Content-Type"), [OCI_MANIFEST])
                self.assertEqual(response.header("Content-Length"), str(len(manifest)))
                self.assertEqual(response.header("Docker-Content-Digest"), sha256(manifest))

    def test_accept_never_changes_the_answer(self) -> None:
        manifest = self.push_image("a", "t")
        for accept in ("*/*", DOCKER_MANIFEST, "text/html;q=0.5", f"{OCI_INDEX}, {OCI_MANIFEST}"):
            self.assertEqual(self.ask("GET", "/v2/a/manifests/t", {"Accept": accept}).body, manifest)
        several = [("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)]
        self.assertEqual(self.ask("GET", "/v2/a/manifests/t", several).body, manifest)

    def test_not_modified(self) -> None:
        digest = sha256(self.push_image("a", "t"))
        for tag in (f'"{digest}"', digest):
            self.assertEqual(self.ask("GET", "/v2/a/manifests/t", {"If-None-Match": tag}).code, 304)

    def test_what_is_not_there(self) -> None:
        self.push_image("a", "t")
        detail = self.refused(self.ask("GET", "/v2/a/manifests/u"), 404, "MANIFEST_UNKNOWN")
        self.assertEqual(detail, {"name": "a", "tag": "u"})
        self.refused(self.ask("GET", f"/v2/a/manifests/{sha256(b'x')}"), 404, "MANIFEST_UNKNOWN")
        self.refused(self.ask("GET", "/v2/b/manifests/t"), 404, "NAME_UNKNOWN")
        self.refused(self.ask("GET", "/v2/a/manifests/sha256:baddigeststring"), 400, "DIGEST_INVALID")
        for tag in ("-x", "x" * 129, ".x", "a%20b"):
            self.refused(self.ask("GET", f"/v2/a/manifests/{tag}"), 400, "TAG_INVALID")

    def test_a_layer_is_no_manifest(self) -> None:
        self.push_blob("a", b"layer")
        self.refused(self.ask("GET", f"/v2/a/manifests/{sha256(b'layer')}"), 404, "MANIFEST_UNKNOWN")


class Push(V2TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.push_blob("a", b"{}")
        self.push_blob("a", b"layer")

    def pull(self, reference: str) -> tuple[bytes, str | None]:
        response = self.ask("GET", f"/v2/a/manifests/{reference}")
        return response.body, response.header("Content-Type")

    def test_by_digest_makes_no_tag(self) -> None:
        manifest = image()
        response = self.push("a", sha256(manifest), manifest)
        self.assertEqual((response.code, response.header("Location")), (201, f"/v2/a/manifests/{sha256(manifest)}"))
        self.assertEqual(response.header("Docker-Content-Digest"), sha256(manifest))
        self.assertEqual(self.ask("GET", "/v2/a/tags/list").json(), {"name": "a", "tags": []})

    def test_odd_bytes_come_back_exactly(self) -> None:
        manifest = b"\n " + image(x={"custom": [1, None, "\u00e9"]}).replace(b", ", b" ,\t") + b"\n"
        self.assertEqual(self.push("a", "t", manifest).code, 201)
        self.assertEqual(self.pull("t"), (manifest, OCI_MANIFEST))

    def test_every_type_is_served_as_it_was_pushed(self) -> None:
        manifest = image()
        self.push("a", "image", manifest)
        docker = image().replace(OCI_MANIFEST.encode(), DOCKER_MANIFEST.encode())
        docker_list = index([manifest]).replace(OCI_INDEX.encode(), DOCKER_LIST.encode())
        untyped = json.dumps({"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": []}).encode()
        for data, media_type in ((docker, DOCKER_MANIFEST), (docker_list, DOCKER_LIST), (untyped, OCI_MANIFEST),
                                 (index(), OCI_INDEX), (index([manifest], artifactType="x/y"), OCI_INDEX)):  # fmt: skip
            self.assertEqual(self.push("a", "t", data, f"{media_type}; charset=utf-8").code, 201)
            self.assertEqual(self.pull("t"), (data, media_type))

    def test_chunked_and_large(self) -> None:
        manifest = image(annotations={f"n{number}": "x" * 10_000 for number in range(390)})
        pieces = [manifest[at : at + 100_000] for at in range(0, len(manifest), 100_000)]
        response = self.ask("PUT", "/v2/a/manifests/t", {"Content-Type": OCI_MANIFEST}, chunks=pieces)
        self.assertEqual(response.code, 201)
        self.assertEqual(self.pull("t"), (manifest, OCI_MANIFEST))

    def test_too_large(self) -> None:
        manifest = image(annotations={"x": "x" * (4 << 20)})
        for how in ({"body": manifest}, {"chunks": [manifest]}):
            response = self.ask("PUT", "/v2/a/manifests/t", {"Content-Type": OCI_MANIFEST}, **how)
            self.refused(response, 413, "MANIFEST_INVALID")

    def test_another_digest_than_that_of_the_bytes(self) -> None:
        manifest = image()
        detail = self.refused(self.push("a", sha256(manifest), manifest + b"  "), 400, "DIGEST_INVALID")
        self.assertEqual(detail["found"], sha256(manifest + b"  "))
        self.refused(self.ask("GET", f"/v2/a/manifests/{sha256(manifest)}"), 404, "MANIFEST_UNKNOWN")

    def test_what_is_no_manifest(self) -> None:
        for data in (b"", b"[]", b"{", b"\xff", b'{"schemaVersion": 1}', b"[" * 100_000):
            self.refused(self.push("a", "t", data), 400, "MANIFEST_INVALID")

    def test_the_offending_field_is_named(self) -> None:
        manifest = image().replace(b"sha256:", b"md5:", 1)
        detail = self.refused(self.push("a", "t", manifest), 400, "MANIFEST_INVALID")
        self.assertEqual(detail["pointer"], "/config/digest")

    def test_a_content_type_that_is_not_that_of_the_bytes(self) -> None:
        self.refused(self.push("a", "t", image(), OCI_INDEX), 400, "MANIFEST_INVALID")
        self.refused(self.push("a", "t", image(), "application/x-custom"), 400, "MANIFEST_INVALID")

    def test_no_content_type(self) -> None:
        self.assertEqual(self.ask("PUT", "/v2/a/manifests/t", body=image()).code, 201)
        untyped = json.dumps({"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": []}).encode()
        self.refused(self.ask("PUT", "/v2/a/manifests/t", body=untyped), 400, "MANIFEST_INVALID")

    def test_missing_parts_are_all_named(self) -> None:
        manifest = image(layers=[b"layer", b"one", b"two"])
        detail = self.refused(self.push("a", "t", manifest), 400, "MANIFEST_BLOB_UNKNOWN")
        self.assertEqual(detail["missing"], [sha256(b"one"), sha256(b"two")])
        detail = self.refused(self.push("a", "t", index([image()]), OCI_INDEX), 400, "MANIFEST_BLOB_UNKNOWN")
        self.assertEqual(detail["missing"], [sha256(image())])

    def test_many_missing_parts_are_not_all_looked_for(self) -> None:
        names = [str(number).encode() for number in range(300)]
        for manifest, media_type in ((image(layers=names), OCI_MANIFEST), (index(names), OCI_INDEX)):
            detail = self.refused(self.push("a", "t", manifest, media_type), 400, "MANIFEST_BLOB_UNKNOWN")
            self.assertEqual(detail["missing"], [sha256(name) for name in names[:100]])

    def test_a_blob_that_is_deleted_meanwhile_is_missing(self) -> None:
        settle, delete = self.memory.driver.settle, self.memory.driver.remove

        def deleted_first(path: str) -> object:
            if path == layout.layer_link(RepositoryName("a"), Digest.of(b"layer")):
                self.successResultOf(delete(path))
            return settle(path)

        self.patch(self.memory.driver, "settle", deleted_first)
        detail = self.refused(self.push("a", "t", image()), 400, "MANIFEST_BLOB_UNKNOWN")
        self.assertEqual(detail["missing"], [sha256(b"layer")])

    def test_layers_that_are_elsewhere(self) -> None:
        foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        document = json.loads(image())
        document["layers"].append(descriptor(b"x", foreign, urls=["https://example.com/x"]))
        self.assertEqual(self.push("a", "t", json.dumps(document).encode()).code, 201)

    def test_the_plain_tag_of_a_digest_is_sha256(self) -> None:
        manifest = image()
        digest = str(Digest.of(manifest, "sha512"))
        self.assertEqual(self.push("a", digest, manifest, query="?tag=x&tag=y").code, 201)
        for reference in ("x", "y", digest):
            response = self.ask("GET", f"/v2/a/manifests/{reference}")
            self.assertEqual((response.header("Docker-Content-Digest"), response.body), (digest, manifest))

    def test_tags_in_the_query(self) -> None:
        manifest = image()
        tags = [f"t{number}" for number in range(12)]
        query = "?" + "&".join(f"tag={tag}" for tag in tags)
        response = self.push("a", sha256(manifest), manifest, query=query)
        self.assertEqual(response.headers.getRawHeaders("OCI-Tag"), tags)
        self.assertEqual(self.ask("GET", "/v2/a/tags/list").json()["tags"], sorted(tags))

    def test_one_bad_tag_moves_none(self) -> None:
        manifest = image()
        self.refused(self.push("a", sha256(manifest), manifest, query="?tag=x&tag=-"), 400, "TAG_INVALID")
        self.assertEqual(self.ask("GET", "/v2/a/tags/list").json()["tags"], [])

    def test_a_tag_moves(self) -> None:
        first, second = image(), image(annotations={"n": "2"})
        self.push("a", "t", first)
        self.push("a", "t", second)
        self.assertEqual(self.pull("t")[0], second)
        self.assertEqual(self.pull(sha256(first))[0], first)

    def test_a_repository_with_nothing_but_an_index_has_layers_too(self) -> None:
        """Distribution's collector would pass over it otherwise, and delete what it holds."""
        self.push("b", "t", index(), OCI_INDEX)
        self.assertTrue([path for path in self.paths() if "/repositories/b/_layers/" in path])


class Lenient(V2TestCase):
    policy = Policy(accept_missing_blobs=True, accept_unknown_media_types=True)

    def test_missing_blobs(self) -> None:
        self.assertEqual(self.push("a", "t", image(layers=[b"x"])).code, 201)
        self.assertEqual(self.push("a", "i", index([b"x"]), OCI_INDEX).code, 201)

    def test_unknown_types_stay_out_of_the_sight_of_distribution(self) -> None:
        custom = "application/vnd.example.custom.v1+json"
        manifest = json.dumps({"schemaVersion": 2, "mediaType": custom}).encode()
        self.assertEqual(self.push("a", "t", manifest, custom).code, 201)
        response = self.ask("GET", "/v2/a/manifests/t")
        self.assertEqual((response.body, response.header("Content-Type")), (manifest, custom))
        self.assertFalse([path for path in self.paths() if "/_manifests/revisions/" in path])
        self.assertEqual(self.ask("DELETE", f"/v2/a/manifests/{sha256(manifest)}").code, 202)
        self.assertEqual(self.ask("GET", "/v2/a/manifests/t").code, 404)


class Delete(V2TestCase):
    def test_a_tag_alone(self) -> None:
        manifest = self.push_image("a", "t")
        self.push("a", "u", manifest)
        self.assertEqual(self.ask("DELETE", "/v2/a/manifests/t").code, 202)
        self.assertEqual(self.ask("GET", "/v2/a/manifests/t").code, 404)
        self.refused(self.ask("DELETE", "/v2/a/manifests/t"), 404, "MANIFEST_UNKNOWN")
        for reference in ("u", sha256(manifest)):
            self.assertEqual(self.ask("GET", f"/v2/a/manifests/{reference}").body, manifest)

    def test_a_manifest_with_its_tags(self) -> None:
        manifest = self.push_image("a", "t")
        other = self.push_image("a", "u", layer=b"other")
        self.push("a", "v", manifest)
        self.push("a", "moved", manifest)
        self.push("a", "moved", other)
        url = f"/v2/a/manifests/{sha256(manifest)}"
        self.assertEqual(self.ask("DELETE", url).code, 202)
        for target in (url, "/v2/a/manifests/t", "/v2/a/manifests/v"):
            self.assertEqual(self.ask("GET", target).code, 404)
        self.refused(self.ask("DELETE", url), 404, "MANIFEST_UNKNOWN")
        self.assertEqual(self.ask("GET", "/v2/a/tags/list").json()["tags"], ["moved", "u"])

    def test_pushed_again(self) -> None:
        manifest = self.push_image("a", "t")
        self.ask("DELETE", f"/v2/a/manifests/{sha256(manifest)}")
        self.assertEqual(self.push("a", "t", manifest).code, 201)
        self.assertEqual(self.ask("GET", "/v2/a/manifests/t").body, manifest)

    def test_by_two_at_once(self) -> None:
        """Whoever comes second finds done what was asked."""
        self.push_image("a", "t")
        remove = self.memory.driver.remove

        def twice(path: str) -> object:
            self.successResultOf(remove(path))
            return remove(path)

        self.patch(self.memory.driver, "remove", twice)
        for target in ("manifests/t", f"blobs/{sha256(b'layer')}"):
            self.assertEqual(self.ask("DELETE", f"/v2/a/{target}").code, 202)
            self.assertEqual(self.ask("GET", f"/v2/a/{target}").code, 404)

    def test_bytes_that_are_a_blob_as_well(self) -> None:
        manifest = self.push_image("a", "t")
        self.push_image("a", "u", layer=b"other")
        self.push_blob("a", manifest)
        url = f"/v2/a/manifests/{sha256(manifest)}"
        self.assertEqual(self.ask("DELETE", url).code, 202)
        self.refused(self.ask("GET", url), 404, "MANIFEST_UNKNOWN")

    def test_of_nothing(self) -> None:
        self.refused(self.ask("DELETE", "/v2/a/manifests/t"), 404, "NAME_UNKNOWN")
        self.refused(self.ask("DELETE", f"/v2/a/manifests/{sha256(b'x')}"), 404, "NAME_UNKNOWN")


class Early(V2TestCase):
    def test_a_store_without_revisions(self) -> None:
        """Distribution before 2.1 linked manifests among the layers."""
        manifest = image()
        self.push_blob("a", manifest)
        self.assertEqual(self.ask("GET", f"/v2/a/manifests/{sha256(manifest)}").body, manifest)


class Damaged(V2TestCase):
    """A store with damage in it is served as far as it is whole, without an internal error."""

    def test_links(self) -> None:
        manifest = self.push_image("a", "t")
        current = "docker/registry/v2/repositories/a/_manifests/tags/t/current/link"
        for text in (b"", b"sha256:xyz", b"\xff\xfe", b"x" * 10_000, sha256(b"gone").encode()):
            self.successResultOf(self.memory.driver.put(current, text))
            self.assertEqual(self.ask("GET", "/v2/a/manifests/t").code, 404)
        self.successResultOf(self.memory.driver.put(current, sha256(manifest).encode() + b"\n"))
        self.assertEqual(self.ask("GET", "/v2/a/manifests/t").body, manifest)

    def test_altered_manifests(self) -> None:
        digest = Digest.of(self.push_image("a", "t"))
        path = f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
        for data in (b"", b"not JSON", b"{}"):
            self.successResultOf(self.memory.driver.put(path, data))
            self.refused(self.ask("GET", "/v2/a/manifests/t"), 404, "MANIFEST_UNKNOWN")
