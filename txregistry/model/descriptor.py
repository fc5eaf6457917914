"""Descriptors: how a manifest points at a blob or at another manifest (OCI image spec, "Content Descriptors").

Every field that some reader decodes into a fixed type is checked here: one manifest with a number in `annotations`
would otherwise stop the garbage collection of a CNCF distribution that shares the store.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from txregistry.errors import DigestInvalid, ManifestInvalid
from txregistry.model.digest import Digest

#: Sizes are signed 64-bit numbers in every other implementation.
SIZE_LIMIT = 2**63 - 1
_ELSEWHERE = ("nondistributable", "foreign")
_PLATFORM_TEXTS = ("architecture", "os", "os.version", "variant")
_PLATFORM_LISTS = ("os.features", "features")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: `size` in bytes, `pointer` the JSON pointer to it in its manifest.

    `media_type` is empty where the manifest does not tell one.
    """

    media_type: str
    digest: Digest
    size: int
    pointer: str
    urls: tuple[str, ...]
    platform: Mapping[str, Any] | None
    annotations: Mapping[str, str]
    artifact_type: str | None

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether clients may fetch this from other places, so that the registry need not have it."""
        return bool(self.urls) or any(word in self.media_type for word in _ELSEWHERE)


def field_error(pointer: str, reason: str, found: object = None) -> ManifestInvalid:
    """The error about one field: `pointer` is a JSON pointer (RFC 6901), `found` is shown cut to 200 characters."""
    detail: dict[str, object] = {"pointer": pointer, "reason": reason}
    if found is not None:
        # A float may be infinite, which JSON cannot say; a number of many digits is no help to anybody.
        small = (isinstance(found, float) and math.isfinite(found)) or (isinstance(found, int) and abs(found) < 2**64)
        detail["found"] = found if small else _shortened(found)
    return ManifestInvalid(detail)


def _shortened(found: object) -> str:
    if isinstance(found, str):
        return found[:200]
    if isinstance(found, dict):
        return "an object"
    if isinstance(found, list):
        return "a list"
    return "a very large number"


def child_pointer(pointer: str, name: str) -> str:
    """The JSON pointer to a member of what `pointer` points at."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def text_field(document: Mapping[str, Any], name: str, pointer: str) -> str | None:
    """An optional string; absent, null and empty are all None."""
    value = document.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise field_error(child_pointer(pointer, name), "must be a string", value)
    return value


def string_map(document: Mapping[str, Any], name: str, pointer: str) -> Mapping[str, str]:
    """An optional object whose members are all strings, such as `annotations`."""
    value = document.get(name)
    if value is None:
        return {}
    here = child_pointer(pointer, name)
    if not isinstance(value, dict):
        raise field_error(here, "must be an object", value)
    for key, text in value.items():
        if not isinstance(text, str):
            raise field_error(child_pointer(here, key[:200]), "must be a string", text)
    return value


def descriptor_at(value: object, pointer: str) -> Descriptor:
    """Read the descriptor that `pointer` points at; ManifestInvalid about its first wrong field."""
    if not isinstance(value, dict):
        raise field_error(pointer, "must be an object", value)
    _check_embedded(value, pointer)
    return Descriptor(
        media_type=text_field(value, "mediaType", pointer) or "",
        digest=_digest(value, pointer),
        size=_size(value, pointer),
        pointer=pointer,
        urls=_strings(value, "urls", pointer),
        platform=_platform(value, pointer),
        annotations=string_map(value, "annotations", pointer),
        artifact_type=text_field(value, "artifactType", pointer),
    )


def _digest(value: Mapping[str, Any], pointer: str) -> Digest:
    text = value.get("digest")
    if not isinstance(text, str):
        reason = "missing" if text is None else "must be a string"
        raise field_error(child_pointer(pointer, "digest"), reason, text)
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        reason = error.detail["reason"] if isinstance(error.detail, dict) else str(error)
        raise field_error(child_pointer(pointer, "digest"), reason, text) from None


def _size(value: Mapping[str, Any], pointer: str) -> int:
    size = value.get("size")
    if type(size) is int and 0 <= size <= SIZE_LIMIT:  # a bool is an int as well
        return size
    here = child_pointer(pointer, "size")
    if size is None:
        raise field_error(here, "missing")
    if type(size) is not int:
        raise field_error(here, "must be a whole number", size)
    raise field_error(here, f"must be from 0 to {SIZE_LIMIT}", size)


def _strings(value: Mapping[str, Any], name: str, pointer: str) -> tuple[str, ...]:
    entries = value.get(name)
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise field_error(child_pointer(pointer, name), "must be a list of strings", entries)
    return tuple(entries)


def _platform(value: Mapping[str, Any], pointer: str) -> Mapping[str, Any] | None:
    platform = value.get("platform")
    if platform is None:
        return None
    here = child_pointer(pointer, "platform")
    if not isinstance(platform, dict):
        raise field_error(here, "must be an object", platform)
    for name in _PLATFORM_TEXTS:
        text_field(platform, name, here)
    for name in _PLATFORM_LISTS:
        _strings(platform, name, here)
    return platform


def _check_embedded(value: Mapping[str, Any], pointer: str) -> None:
    """`data` may embed the content itself, in base64."""
    data = value.get("data")
    if data is None:
        return
    try:
        base64.b64decode(data if isinstance(data, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise field_error(child_pointer(pointer, "data"), "must be base64", data) from None
