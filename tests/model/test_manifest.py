"""Manifests: what is accepted, what is refused and how the refusal names the place."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import ManifestInvalid
from txregistry.model.digest import Digest
from txregistry.model.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    KNOWN_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    media_type_of,
    parse_manifest,
)

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
ARTIFACT_TYPE = "application/vnd.oci.artifact.manifest.v1+json"
DIGEST = str(Digest.of(b"content"))


def blob(media_type=LAYER_TYPE, data=b"content", **more):
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def image(media_type: object = OCI_MANIFEST, **more):
    return {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": blob(CONFIG_TYPE, b"config"),
        "layers": [blob(data=b"one"), blob(data=b"two")],
        **more,
    }


def index(media_type: object = OCI_INDEX, **more):
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    children = [blob(OCI_MANIFEST, b"a", platform=platform), blob(OCI_INDEX, b"b")]
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": children, **more}


def dumps(document):
    return json.dumps(document).encode()


class AcceptedTests(SynchronousTestCase):
    def test_image(self):
        data = b" \n" + dumps(image()) + b"\n"
        manifest = parse_manifest(data, OCI_MANIFEST)
        self.assertEqual(manifest.data, data)
        self.assertEqual(manifest.media_type, OCI_MANIFEST)
        self.assertTrue(manifest.distribution_readable)
        self.assertFalse(manifest.is_index)
        self.assertEqual([b.digest for b in manifest.blobs], [Digest.of(b) for b in (b"config", b"one", b"two")])
        self.assertEqual([layer.pointer for layer in manifest.layers], ["/layers/0", "/layers/1"])
        self.assertEqual(manifest.children, ())
        self.assertIsNone(manifest.subject)
        self.assertEqual(manifest.artifact_type, CONFIG_TYPE)

    def test_index(self):
        manifest = parse_manifest(dumps(index()), OCI_INDEX)
        self.assertTrue(manifest.is_index)
        self.assertEqual([child.digest for child in manifest.children], [Digest.of(b"a"), Digest.of(b"b")])
        self.assertEqual(manifest.children[0].platform, {"os": "linux", "architecture": "arm64", "variant": "v8"})
        self.assertEqual(manifest.blobs, ())
        self.assertIsNone(manifest.artifact_type)

    def test_docker(self):
        self.assertFalse(parse_manifest(dumps(image(DOCKER_MANIFEST)), DOCKER_MANIFEST).is_index)
        self.assertTrue(parse_manifest(dumps(index(DOCKER_LIST)), DOCKER_LIST).is_index)

    def test_type_and_header(self):
        for document, header, wanted in [
            (image(), OCI_MANIFEST + "; charset=utf-8", OCI_MANIFEST),
            (image(), f" {OCI_MANIFEST} ;x", OCI_MANIFEST),
            (image(), OCI_MANIFEST.upper(), OCI_MANIFEST),
            (image(), None, OCI_MANIFEST),
            (image(), "", OCI_MANIFEST),
            (image(DOCKER_MANIFEST), None, DOCKER_MANIFEST),
            (image(None), OCI_MANIFEST, OCI_MANIFEST),
            (image(""), OCI_MANIFEST, OCI_MANIFEST),
            (index(None), OCI_INDEX, OCI_INDEX),
            ({"schemaVersion": 2, "manifests": []}, OCI_INDEX, OCI_INDEX),
        ]:
            with self.subTest((document.get("mediaType"), header)):
                self.assertEqual(parse_manifest(dumps(document), header).media_type, wanted)

    def test_oddities_of_good_clients(self):
        for document, header in [
            (image(layers=[]), OCI_MANIFEST),
            (image(layers=None), OCI_MANIFEST),
            (image(subject=None, annotations=None, artifactType=""), OCI_MANIFEST),
            (image(unknown={"deep": [1, 2.5, True]}), OCI_MANIFEST),
            (image(config={**blob(CONFIG_TYPE, b"{}"), "data": "e30="}), OCI_MANIFEST),
            (image(config={"digest": DIGEST, "size": 0}), OCI_MANIFEST),
            (image(config=blob("application/vnd.oci.empty.v1+json")), OCI_MANIFEST),
            (image(layers=[{**blob(), "digest": str(Digest.of(b"", "sha512"))}]), OCI_MANIFEST),
            (index(manifests=[]), OCI_INDEX),
            (index(manifests=None), OCI_INDEX),
            (index(config=None), OCI_INDEX),
        ]:
            with self.subTest(document):
                parse_manifest(dumps(document), header)

    def test_duplicate_keys_last_wins(self):
        data = b'{"schemaVersion": 1, "schemaVersion": 2, "manifests": []}'
        self.assertTrue(parse_manifest(data, OCI_INDEX).is_index)

    def test_layers_that_may_be_elsewhere(self):
        for layer in (
            blob("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            blob("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            blob(urls=["https://example.com/layer"]),
        ):
            manifest = parse_manifest(dumps(image(layers=[layer, blob(data=b"here", urls=[])])), OCI_MANIFEST)
            self.assertEqual([b.digest for b in manifest.blobs], [Digest.of(b"config"), Digest.of(b"here")])
            self.assertEqual(len(manifest.layers), 2)

    def test_build_cache(self):
        """BuildKit's caches are indexes of layers, with the cache's config at the end."""
        config = blob("application/vnd.buildkit.cacheconfig.v0", b"c")
        entries = [blob(LAYER_TYPE, b"l"), config, blob("x/unknown", b"u")]
        manifest = parse_manifest(dumps(index(manifests=entries)), OCI_INDEX)
        self.assertEqual([b.digest for b in manifest.blobs], [Digest.of(b"l"), Digest.of(b"c")])
        self.assertEqual([c.digest for c in manifest.children], [Digest.of(b"u")])


class ReferrerTests(SynchronousTestCase):
    def test_artifact_type(self):
        for document, wanted in [
            (image(), CONFIG_TYPE),
            (image(artifactType=""), CONFIG_TYPE),
            (image(artifactType="a/b"), "a/b"),
            (index(), None),
            (index(artifactType="a/b"), "a/b"),
            (index(artifactType=""), None),
        ]:
            self.assertEqual(parse_manifest(dumps(document), None).artifact_type, wanted)

    def test_descriptor(self):
        data = dumps(image(subject=blob(OCI_MANIFEST, b"subject"), annotations={"a": "b"}, artifactType="a/b"))
        manifest = parse_manifest(data, OCI_MANIFEST)
        self.assertEqual(manifest.subject, Digest.of(b"subject"))
        self.assertEqual(
            manifest.referrer_descriptor(Digest.of(data)),
            {
                "mediaType": OCI_MANIFEST,
                "digest": str(Digest.of(data)),
                "size": len(data),
                "artifactType": "a/b",
                "annotations": {"a": "b"},
            },
        )

    def test_descriptor_without_what_is_not_there(self):
        data = dumps(index(subject=blob(OCI_MANIFEST)))
        found = parse_manifest(data, OCI_INDEX).referrer_descriptor(Digest.of(data, "sha512"))
        self.assertEqual(set(found), {"mediaType", "digest", "size"})
        self.assertEqual(found["digest"], str(Digest.of(data, "sha512")))


class RefusedTests(SynchronousTestCase):
    def refused(self, data, header=OCI_MANIFEST, **options):
        error = self.assertRaises(ManifestInvalid, parse_manifest, data, header, **options)
        json.dumps(error.detail)
        return error.detail

    def test_not_a_document(self):
        for data, reason in [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xef\xbb\xbf{}", "not JSON"),
            (b'{"schemaVersion": NaN}', "not JSON"),
            (b'{"size": ' + b"9" * 5000 + b"}", "not JSON"),
            (b'{"a": "\xff"}', "not UTF-8"),
            ("{}".encode("utf-16"), "not UTF-8"),
            (b"[" * 200_000, "nested too deeply"),
            (b'{"a":' * 200_000, "nested too deeply"),
            (b"[]", "must be a JSON object"),
            (b"null", "must be a JSON object"),
            (b'"text"', "must be a JSON object"),
            (b"7", "must be a JSON object"),
        ]:
            with self.subTest(data[:20]):
                detail = self.refused(data)
                self.assertEqual(detail["pointer"], "")
                self.assertIn(reason, detail["reason"])

    def test_type(self):
        for document, header, part in [
            (image(), OCI_INDEX, OCI_INDEX),
            (image(DOCKER_MANIFEST), OCI_MANIFEST, DOCKER_MANIFEST),
            (image(None), DOCKER_MANIFEST, OCI_MANIFEST),
            (index(None), DOCKER_LIST, OCI_INDEX),
            (index(None), OCI_MANIFEST, OCI_INDEX),
            (image(), "application/json", "application/json"),
            (image(None), None, "neither"),
            (image(""), " ; charset=utf-8", "neither"),
            (image("a/b"), "a/b", "unknown"),
            (image("a/b"), None, "unknown"),
            (image(ARTIFACT_TYPE), ARTIFACT_TYPE, "unknown"),
            (image("no type"), None, "not a media type"),
            (image("a/b\r\nX-Evil: yes"), None, "not a media type"),
            (image(7), None, "must be a string"),
            (image(None), "a/b", OCI_MANIFEST),
        ]:
            with self.subTest((document["mediaType"], header)):
                detail = self.refused(dumps(document), header)
                self.assertEqual(detail["pointer"], "/mediaType")
                self.assertIn(part, detail["reason"])

    def test_mismatch_names_both(self):
        reason = self.refused(dumps(image()), OCI_INDEX)["reason"]
        self.assertIn(OCI_INDEX, reason)
        self.assertIn(OCI_MANIFEST, reason)

    def test_schema_version(self):
        for version in (1, 3, None, "2", 2.0, True):
            for media_type in (OCI_MANIFEST, None):
                with self.subTest((version, media_type)):
                    detail = self.refused(dumps(image(media_type, schemaVersion=version)))
                    self.assertEqual(detail["pointer"], "/schemaVersion")
        old = self.refused(dumps({"schemaVersion": 1, "signatures": []}), DOCKER_SCHEMA1)
        self.assertIn("schema version 1", old["reason"])

    def test_fields(self):
        short = "sha256:abc"
        bad_sizes: list[object] = [-1, 1.0, "1", True, None, 2**63, 10**4000, [], {}]
        for document, pointer in [
            (image(config=None), "/config"),
            (image(config=[]), "/config"),
            (image(config={"size": 1}), "/config/digest"),
            (image(config={"size": 1, "digest": 7}), "/config/digest"),
            (image(config={"size": 1, "digest": short}), "/config/digest"),
            (image(config={"digest": DIGEST}), "/config/size"),
            (image(layers={}), "/layers"),
            (image(layers=[blob(), 7]), "/layers/1"),
            (image(layers=[blob(), {**blob(), "digest": short}]), "/layers/1/digest"),
            (image(layers=[{**blob(), "digest": "md5:d41d8cd98f00b204e9800998ecf8427e"}]), "/layers/0/digest"),
            (image(layers=[{**blob(), "digest": DIGEST.upper()}]), "/layers/0/digest"),
            *[(image(layers=[{**blob(), "size": size}]), "/layers/0/size") for size in bad_sizes],
            (image(layers=[{**blob(), "mediaType": 7}]), "/layers/0/mediaType"),
            (image(layers=[blob(urls="https://example.com")]), "/layers/0/urls"),
            (image(layers=[blob(urls=[7])]), "/layers/0/urls"),
            (image(layers=[blob(annotations={"a": 7})]), "/layers/0/annotations/a"),
            (image(layers=[blob(artifactType=7)]), "/layers/0/artifactType"),
            (image(layers=[{**blob(), "data": "not base64!"}]), "/layers/0/data"),
            (image(layers=[{**blob(), "data": "\u00e9"}]), "/layers/0/data"),
            (image(layers=[{**blob(), "data": 7}]), "/layers/0/data"),
            (image(annotations=[]), "/annotations"),
            (image(annotations={"a/b~c": None}), "/annotations/a~1b~0c"),
            (image(artifactType=7), "/artifactType"),
            (image(subject={}), "/subject/digest"),
            (image(subject="x"), "/subject"),
            (image(manifests=[]), "/manifests"),
            (index(config={}), "/config"),
            (index(layers=[]), "/layers"),
            (index(manifests={}), "/manifests"),
            (index(manifests=[blob(platform=[])]), "/manifests/0/platform"),
            (index(manifests=[blob(platform={"os": 7})]), "/manifests/0/platform/os"),
            (index(manifests=[blob(platform={"os.features": "x"})]), "/manifests/0/platform/os.features"),
        ]:
            with self.subTest(pointer):
                detail = self.refused(dumps(document), document["mediaType"])
                self.assertEqual(detail["pointer"], pointer)
                self.assertTrue(detail["reason"])

    def test_found_is_short(self):
        detail = self.refused(dumps(image(config={"size": 1, "digest": "x" * 5000})))
        self.assertEqual(detail["found"], "x" * 200)

    def test_found_is_json(self):
        """A number may be beyond what JSON can say of it again."""
        for number in (b"1e999", b"-1e999", b"9" * 4000):
            detail = self.refused(b'{"schemaVersion": %s}' % number)
            self.assertEqual((detail["pointer"], detail["found"]), ("/schemaVersion", "a very large number"))


class UnknownTypeTests(SynchronousTestCase):
    def parse(self, document, header=None):
        return parse_manifest(dumps(document), header, unknown_types=True)

    def test_artifact(self):
        document = {
            "mediaType": ARTIFACT_TYPE,
            "artifactType": "a/b",
            "blobs": [blob(), 7],
            "subject": blob(OCI_MANIFEST, b"subject"),
            "annotations": {"a": "b"},
        }
        manifest = self.parse(document, ARTIFACT_TYPE)
        self.assertFalse(manifest.distribution_readable)
        self.assertEqual(manifest.subject, Digest.of(b"subject"))
        self.assertEqual(manifest.artifact_type, "a/b")
        self.assertEqual(manifest.annotations, {"a": "b"})
        self.assertEqual([layer.digest for layer in manifest.layers], [Digest.of(b"content")])
        self.assertEqual(manifest.blobs, ())

    def test_nothing_is_demanded(self):
        manifest = self.parse({"mediaType": "a/b", "config": 1, "layers": 2, "annotations": 3, "artifactType": 4})
        self.assertEqual((manifest.config, manifest.layers, manifest.artifact_type), (None, (), None))

    def test_type_must_be_in_the_payload(self):
        old = image(schemaVersion=1)
        for document, header in [({}, "a/b"), (image(None), "a/b"), (image("a/b"), "c/d"), (old, "a/b")]:
            with self.subTest((document.get("mediaType"), header)):
                self.assertRaises(ManifestInvalid, self.parse, document, header)

    def test_known_types_stay_strict(self):
        self.assertRaises(ManifestInvalid, self.parse, image(config=None))


class MediaTypeOfTests(SynchronousTestCase):
    def test_table(self):
        for document, wanted in [
            *[({"schemaVersion": 2, "mediaType": known}, known) for known in sorted(KNOWN_TYPES)],
            ({"schemaVersion": 2}, OCI_MANIFEST),
            ({"schemaVersion": 2, "mediaType": None, "manifests": []}, OCI_INDEX),
            ({"schemaVersion": 2, "manifests": [], "config": {}}, OCI_INDEX),
            ({"schemaVersion": 1, "signatures": []}, DOCKER_SCHEMA1),
            ({"schemaVersion": 1, "mediaType": "x/y"}, DOCKER_SCHEMA1),
            ({"mediaType": ARTIFACT_TYPE}, ARTIFACT_TYPE),
        ]:
            with self.subTest(document):
                self.assertEqual(media_type_of(dumps(document)), wanted)

    def test_bad_utf8_in_a_stored_one(self):
        self.assertEqual(media_type_of(b'{"schemaVersion": 2, "x": "\xff"}'), OCI_MANIFEST)

    def test_tells_none(self):
        for data in (
            b"",
            b"{}",
            b"[]",
            b"[" * 200_000,
            b'{"schemaVersion": 3}',
            b'{"schemaVersion": 2, "mediaType": "x\\ny/z"}',
            b'{"schemaVersion": 2, "mediaType": ["x/y"]}',
        ):
            with self.subTest(data[:20]):
                self.assertRaises(ManifestInvalid, media_type_of, data)


FIELDS = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType", "blobs",
     "digest", "size", "urls", "platform", "data", "os", "x/~y"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from([2, 1, DIGEST, "a/b", *sorted(KNOWN_TYPES)])
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=12,
)
DOCUMENTS = st.builds(
    lambda start, changes: {**start, **changes},
    st.sampled_from([image(), index(), image(None), {}]),
    st.dictionaries(FIELDS, VALUES, max_size=3),
)


class AnyInputTests(SynchronousTestCase):
    @FEW
    @given(
        DOCUMENTS.map(dumps) | VALUES.map(dumps) | st.binary(max_size=60),
        st.none() | st.sampled_from(["", "a/b", *sorted(KNOWN_TYPES)]),
        st.booleans(),
    )
    def test_manifest_invalid_or_accepted(self, data, header, unknown_types):
        try:
            manifest = parse_manifest(data, header, unknown_types=unknown_types)
        except ManifestInvalid as error:
            json.dumps(error.detail)
            assert isinstance(error.detail, dict)
            self.assertEqual(set(error.detail) - {"found"}, {"pointer", "reason"})
            return
        self.assertEqual(manifest.media_type, media_type_of(data))
        self.assertEqual(manifest.distribution_readable, manifest.media_type in KNOWN_TYPES)
        json.dumps(manifest.referrer_descriptor(Digest.of(data)))
