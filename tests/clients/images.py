"""Images made here, with no network: the same bytes each time, in the forms that clients read.

A `Layout` is an OCI image layout on disk. `make_images` fills one with what each client is asked to move: an
image of three layers, an index of two platforms, and two artifacts that refer to the image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import tarfile
from dataclasses import dataclass
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST)
SBOM = "application/vnd.txregistry.test.sbom"
SIGNATURE = "application/vnd.txregistry.test.signature"
REF_NAME = "org.opencontainers.image.ref.name"

Descriptor = dict[str, Any]


def digest_of(data: bytes) -> str:
    """The sha256 digest of `data` in the form of the specification."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha512_of(data: bytes) -> str:
    """The sha512 digest of `data` in the form of the specification."""
    return "sha512:" + hashlib.sha512(data).hexdigest()


def encode(document: Any) -> bytes:
    """`document` as JSON."""
    return json.dumps(document, separators=(",", ":")).encode()


def make_tar(files: dict[str, bytes]) -> bytes:
    """An uncompressed tar of `files`, the same for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def make_layers(seed: int) -> list[bytes]:
    """Three tars: one of 1.5 MB that does not compress, one of 300 kB, one of a few bytes; `seed` fills them."""
    source = random.Random(seed)
    return [
        make_tar({"data.bin": source.randbytes(1_500_000)}),
        make_tar({"text.txt": source.randbytes(30).hex().encode() * 5_000, "small.bin": source.randbytes(900)}),
        make_tar({"last.txt": b"layer %d\n" % seed}),
    ]


class Layout:
    """An OCI image layout at `path`; each `add_...` answers with a descriptor."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._entries: list[Descriptor] = []

    def blob_path(self, digest: str) -> str:
        algorithm, hex_ = digest.split(":")
        return os.path.join(self.path, "blobs", algorithm, hex_)

    def read(self, digest: str) -> bytes:
        with open(self.blob_path(digest), "rb") as file:
            return file.read()

    def add(self, data: bytes, media_type: str) -> Descriptor:
        digest = digest_of(data)
        os.makedirs(os.path.dirname(self.blob_path(digest)), exist_ok=True)
        with open(self.blob_path(digest), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_image(self, architecture: str, layers: list[bytes]) -> Descriptor:
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/hello"], "Labels": {"made-by": "the lab"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add(encode(config), CONFIG),
            "layers": [self.add(gzip.compress(layer, mtime=0), LAYER) for layer in layers],
        }
        platform = {"architecture": architecture, "os": "linux"}
        return {**self.add(encode(manifest), MANIFEST), "platform": platform}

    def add_index(self, manifests: list[Descriptor]) -> Descriptor:
        return self.add(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}), INDEX)

    def add_artifact(self, subject: Descriptor, artifact_type: str, content: bytes) -> Descriptor:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": self.add(b"{}", EMPTY),
            "layers": [self.add(content, "text/plain")],
            "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
        }
        return self.add(encode(manifest), MANIFEST)

    def save(self, **tags: Descriptor) -> None:
        """Write `index.json` with these tags, in addition to those written before."""
        for tag, descriptor in tags.items():
            self._entries.append({**descriptor, "annotations": {REF_NAME: tag}})
        with open(os.path.join(self.path, "oci-layout"), "wb") as file:
            file.write(b'{"imageLayoutVersion":"1.0.0"}')
        with open(os.path.join(self.path, "index.json"), "wb") as file:
            file.write(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": self._entries}))

    def tagged(self) -> list[Descriptor]:
        """The descriptors in `index.json` as it is on disk."""
        with open(os.path.join(self.path, "index.json"), "rb") as file:
            found: list[Descriptor] = json.load(file)["manifests"]
        return found

    def reachable(self, digest: str) -> dict[str, str]:
        """Every digest that the manifest `digest` needs, itself first, with its media type."""
        document = json.loads(self.read(digest))
        found = {digest: document["mediaType"]}
        for child in document.get("manifests", []):
            found.update(self.reachable(child["digest"]))
        for blob in [document["config"], *document["layers"]] if "config" in document else []:
            found[blob["digest"]] = blob["mediaType"]
        return found

    def archive(self, path: str) -> str:
        """The whole layout as a tar at `path`."""
        with tarfile.open(path, "w") as tar:
            for name in sorted(os.listdir(self.path)):
                tar.add(os.path.join(self.path, name), name)
        return path

    def only(self, path: str, descriptor: Descriptor, tag: str = "only") -> Layout:
        """A layout at `path` that holds `descriptor` and what it needs, and nothing else."""
        other = Layout(path)
        for digest, media_type in self.reachable(descriptor["digest"]).items():
            other.add(self.read(digest), media_type)
        other.save(**{tag: descriptor})
        return other


@dataclass
class Images:
    """What `make_images` made; each descriptor is tagged in the layout with its name here."""

    layout: Layout
    app: Descriptor
    other: Descriptor
    multi: Descriptor
    sbom: Descriptor
    signature: Descriptor


def make_images(path: str, seed: int = 1) -> Images:
    """A layout at `path` with an image, an index of two platforms, and two artifacts that refer to the image."""
    layout = Layout(path)
    layers = make_layers(seed)
    app = layout.add_image("amd64", layers)
    # The other platform shares the big layer.
    other = layout.add_image("arm64", [layers[0], *make_layers(seed + 1)[1:]])
    made = Images(
        layout,
        app,
        other,
        layout.add_index([app, other]),
        layout.add_artifact(app, SBOM, b"made of %d\n" % seed),
        layout.add_artifact(app, SIGNATURE, b"signed by %d\n" % seed),
    )
    layout.save(app=app, multi=made.multi, sbom=made.sbom, signature=made.signature)
    return made


def write_docker_archive(path: str, name: str, seed: int = 1) -> str:
    """An image of three layers in the form of `docker save`, called `name` there, at `path`."""
    layers = make_layers(seed)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": f"layer {n}"} for n in range(3)],
    }
    config_name = hashlib.sha256(encode(config)).hexdigest() + ".json"
    files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers)}
    table = [{"Config": config_name, "RepoTags": [name], "Layers": list(files)}]
    with open(path, "wb") as file:
        file.write(make_tar({**files, config_name: encode(config), "manifest.json": encode(table)}))
    return path
