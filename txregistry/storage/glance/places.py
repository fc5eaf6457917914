"""Which objects are images in Glance, by which property each is found there, and what its name follows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

from txregistry.storage import layout

#: The properties of an image that tell whose bytes it holds: the id of a V1 image, the digest of a V2 blob.
IMAGE_ID, DIGEST = "docker_image_id", "docker_digest"

_LAYER = re.compile(rf"{layout.V1_IMAGES}/([^/]+)/layer\Z")
_IMAGE = re.compile(rf"{layout.V1_IMAGES}/([^/]+)(/[^/]+)?\Z")
_BLOB = re.compile(rf"{layout.BLOBS}/([^/]+)/[^/]{{2}}/([^/]+)/data\Z")
_TAG = re.compile(rf"{layout.V1_REPOSITORIES}/([^/]+)/([^/]+)/tag_([^/]+)\Z")
_REPOSITORY = re.compile(rf"{layout.V1_REPOSITORIES}/([^/]+)/([^/]+)\Z")

#: The namespace that is not said, and the longest name of an image.
_SILENT, _NAME_LIMIT = "library", 255


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that Glance may hold: its path, and the property with its value by which it is found there."""

    path: str
    key: str
    value: str


class Places:
    """The paths of a registry."""

    #: All things lie below these.
    roots: tuple[str, ...] = (layout.V1_IMAGES, layout.BLOBS)

    def thing(self, path: str) -> Thing | None:
        """What lies at a path, if that is for Glance."""
        if match := _LAYER.match(path):
            return Thing(path, IMAGE_ID, match[1])
        if match := _BLOB.match(path):
            return Thing(path, DIGEST, f"{match[1]}:{match[2]}")
        return None

    def beside(self, path: str) -> Thing | None:
        """The layer of the V1 image that a path belongs to: what old servers wrote has all its parts in Glance."""
        match = _IMAGE.match(path)
        return None if match is None else self.thing(layout.v1_image(match[1], "layer"))

    def above(self, path: str) -> bool:
        """Whether things may lie below a directory."""
        return not path or any(f"{root}/".startswith(f"{path}/") or path.startswith(f"{root}/") for root in self.roots)


def tag_name(path: str) -> str | None:
    """The name that an image gets by the V1 tag at a path; None for another path, or too long a name."""
    match = _TAG.match(path)
    if match is None:
        return None
    namespace, repository, tag = match[1], unquote_plus(match[2]), match[3]
    name = f"{repository}:{tag}" if namespace == _SILENT else f"{namespace}/{repository}:{tag}"
    return name if len(name) <= _NAME_LIMIT and max(map(ord, name)) <= 0xFFFF else None


def is_repository(path: str) -> bool:
    """Whether a path is the directory of a V1 repository."""
    return _REPOSITORY.match(path) is not None
