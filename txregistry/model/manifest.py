"""Manifests: what a registry must know of one, read from its bytes without changing them.

Two readers: `parse_manifest` for one that is pushed, strict and with a JSON pointer to whatever is wrong, and
`media_type_of` for one that is stored, which only tells the type under which it is served.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from txregistry.errors import ManifestInvalid
from txregistry.model.descriptor import Descriptor, descriptor_at, field_error, string_map, text_field
from txregistry.model.digest import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
#: Docker's first manifests with their signature: never accepted any more, served where a store has them.
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
#: The types that CNCF distribution can parse; it stops its garbage collection at any other.
KNOWN_TYPES = frozenset({OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST})

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\Z")
#: Layers and configs, which the indexes of BuildKit's caches list in place of manifests.
_BLOB_TYPE = re.compile(r"\.layer\.|\.rootfs\.|\.config\.|\.tar\b|\.container\.image\.|\.cacheconfig\.|octet-stream")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index that was accepted.

    `data` are the bytes as pushed and `media_type` the `Content-Type` under which they are served.
    `distribution_readable` tells whether CNCF distribution can parse it, so that it may lie in a store shared with it.
    `artifact_type` follows the referrers rule: the manifest's own, else the media type of an image's config.
    Of an unknown type whatever looks like a descriptor is listed (so that no sweep takes it), but nothing is demanded.
    """

    data: bytes
    media_type: str
    distribution_readable: bool
    is_index: bool
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Digest | None
    annotations: Mapping[str, str]
    artifact_type: str | None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that a repository must have before this manifest: config and layers that are nowhere else.

        The indexes of build caches list blobs among their manifests; those are here, and not among the children.
        """
        if not self.distribution_readable:
            return ()
        config = () if self.config is None else (self.config,)
        listed = tuple(entry for entry in self.manifests if _BLOB_TYPE.search(entry.media_type))
        return config + tuple(blob for blob in self.layers + listed if not blob.may_be_elsewhere)

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests that a repository must have before this index."""
        if not self.distribution_readable:
            return ()
        return tuple(entry for entry in self.manifests if not _BLOB_TYPE.search(entry.media_type))

    def referrer_descriptor(self, digest: Digest) -> dict[str, object]:
        """The entry for this manifest in the list of its subject's referrers (OCI distribution spec, end-12a)."""
        entry: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(digest),
            "size": len(self.data),
        }
        if self.artifact_type:
            entry["artifactType"] = self.artifact_type
        if self.annotations:
            entry["annotations"] = dict(self.annotations)
        return entry


def parse_manifest(data: bytes, content_type: str | None, *, unknown_types: bool = False) -> Manifest:
    """Read a manifest that is being pushed (OCI distribution spec, end-7a).

    `content_type` is the request header, whose parameters do not count. It must equal the type that the payload
    tells, for that is the type under which any reader of the store will serve it. ManifestInvalid has as detail a
    `pointer` to the offending field, the `reason`, and what was `found`.
    """
    document = _load(data)
    declared = text_field(document, "mediaType", "")
    media_type = _checked_type(document, declared, content_type, unknown_types)
    known = media_type in KNOWN_TYPES
    if known and not _is_version(document, 2):
        raise field_error("/schemaVersion", "must be 2", document.get("schemaVersion"))
    is_index = media_type in INDEX_TYPES
    if known:
        _refuse_two_in_one(document, is_index)
        config, layers, manifests = _contents(document, is_index)
        subject = None if document.get("subject") is None else descriptor_at(document["subject"], "/subject").digest
        annotations = string_map(document, "annotations", "")
        artifact_type = text_field(document, "artifactType", "")
    else:
        config, layers, manifests, subject = _lenient_contents(document)
        annotations = _or_empty(document, "annotations")
        artifact_type = document["artifactType"] if isinstance(document.get("artifactType"), str) else None
    if not artifact_type and config is not None:
        artifact_type = config.media_type
    return Manifest(
        data=data,
        media_type=media_type,
        distribution_readable=known,
        is_index=is_index,
        config=config,
        layers=layers,
        manifests=manifests,
        subject=subject,
        annotations=annotations,
        artifact_type=artifact_type or None,
    )


def media_type_of(data: bytes) -> str:
    """The type under which a stored manifest is served, told by its payload alone; ManifestInvalid if it tells none."""
    document = _load(data, errors="replace")
    if _is_version(document, 1):
        return DOCKER_SCHEMA1
    declared = document.get("mediaType")
    if isinstance(declared, str) and _MEDIA_TYPE.match(declared):
        return declared
    if declared:
        raise field_error("/mediaType", "not a media type", declared)
    return _type_by_shape(document)


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def _load(data: bytes, errors: str = "strict") -> dict[str, Any]:
    try:
        # The text and not the bytes: given bytes, the parser would guess UTF-16 and UTF-32 too.
        text = data.decode("utf-8", errors)
        document = _JSON.decode(text)
    except UnicodeDecodeError as error:
        raise field_error("", f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise field_error("", "nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, and numbers with more digits than Python converts
        raise field_error("", f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise field_error("", "must be a JSON object", document)
    return document


def _is_version(document: Mapping[str, Any], version: int) -> bool:
    found = document.get("schemaVersion")
    return type(found) is int and found == version


def _type_by_shape(document: Mapping[str, Any]) -> str:
    if not _is_version(document, 2):
        raise field_error("/schemaVersion", "must be 2", document.get("schemaVersion"))
    return OCI_INDEX if document.get("manifests") is not None else OCI_MANIFEST


def _checked_type(
    document: Mapping[str, Any], declared: str | None, content_type: str | None, unknown_types: bool
) -> str:
    if _is_version(document, 1):
        raise field_error("/schemaVersion", "schema version 1 is no longer accepted; push schema version 2", 1)
    header = (content_type or "").partition(";")[0].strip()
    if not declared and not header:
        raise field_error("/mediaType", "neither a Content-Type header nor a mediaType in the manifest tells its type")
    derived = declared or _type_by_shape(document)
    if header and header.lower() != derived.lower():
        told = "its mediaType is" if declared else "without a mediaType it is"
        raise field_error("/mediaType", f"Content-Type is {header!r:.200}, but {told} {derived!r:.200}", derived)
    if not _MEDIA_TYPE.match(derived):
        raise field_error("/mediaType", "not a media type", derived)
    if derived not in KNOWN_TYPES and not unknown_types:
        raise field_error("/mediaType", f"unknown manifest type; known are {', '.join(sorted(KNOWN_TYPES))}", derived)
    return derived


def _refuse_two_in_one(document: Mapping[str, Any], is_index: bool) -> None:
    """A document that is both an image and an index means different things to different clients."""
    for name in ("config", "layers") if is_index else ("manifests",):
        if document.get(name) is not None:
            kind = "an index" if is_index else "an image manifest"
            raise field_error(f"/{name}", f"{kind} must not have this field", document[name])


def _contents(
    document: Mapping[str, Any], is_index: bool
) -> tuple[Descriptor | None, tuple[Descriptor, ...], tuple[Descriptor, ...]]:
    if is_index:
        return None, (), _descriptors(document, "manifests")
    if document.get("config") is None:
        raise field_error("/config", "missing; an image manifest needs a config")
    return descriptor_at(document["config"], "/config"), _descriptors(document, "layers"), ()


def _descriptors(document: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    entries = document.get(name)
    if entries is None:  # some writers send null for an empty list
        return ()
    if not isinstance(entries, list):
        raise field_error(f"/{name}", "must be a list", entries)
    return tuple(descriptor_at(entry, f"/{name}/{number}") for number, entry in enumerate(entries))


def _lenient_contents(
    document: Mapping[str, Any],
) -> tuple[Descriptor | None, tuple[Descriptor, ...], tuple[Descriptor, ...], Digest | None]:
    def one(value: object, pointer: str) -> Descriptor | None:
        try:
            return descriptor_at(value, pointer)
        except ManifestInvalid:
            return None

    def some(name: str) -> tuple[Descriptor, ...]:
        entries = document.get(name)
        found = (one(entry, f"/{name}/{n}") for n, entry in enumerate(entries if isinstance(entries, list) else ()))
        return tuple(descriptor for descriptor in found if descriptor is not None)

    subject = one(document.get("subject"), "/subject")
    return (
        one(document.get("config"), "/config"),
        some("layers") + some("blobs"),
        some("manifests"),
        None if subject is None else subject.digest,
    )


def _or_empty(document: Mapping[str, Any], name: str) -> Mapping[str, str]:
    try:
        return string_map(document, name, "")
    except ManifestInvalid:
        return {}
