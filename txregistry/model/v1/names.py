"""What a V1 URL names: repositories, images and tags.

Stores from many years are served, so names are read in any shape that is safe as a path; new ones follow a grammar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_plus

from txregistry.errors import V1Error, V1NotFound

#: The namespace of a repository that is named without one.
DEFAULT_NAMESPACE = "library"
#: Longest file name in bytes.
NAME_LIMIT = 255
#: Longest tag that can be set, in characters.
TAG_LIMIT = 128

_NEW_ID = re.compile(r"(?:[a-z0-9]{16}|[a-f0-9]{64})\Z")
_NEW_TAG = re.compile(rf"[A-Za-z0-9_.-]{{1,{TAG_LIMIT}}}\Z")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]")


@dataclass(frozen=True, slots=True, order=True)
class V1Repository:
    """A V1 repository: `namespace` as in the URL, `name` quoted, as its directory is called."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, path: str) -> V1Repository:
        """Read what a URL has after `/v1/repositories/`, percent-decoded.

        Without a slash the namespace is `library`; whatever follows the first slash is the name, further slashes
        included. V1Error for what cannot be a directory.
        """
        namespace, slash, rest = path.rstrip("/").partition("/")
        if not slash:
            namespace, rest = DEFAULT_NAMESPACE, namespace
        try:
            # Python's quoting leaves `~` alone since 3.7; the directories on disk were named when it did not.
            name = quote_plus(rest, safe="").replace("~", "%7E")
        except UnicodeEncodeError:
            raise _invalid_repository(path) from None
        if not (_is_safe(namespace) and _is_safe(name)):
            raise _invalid_repository(path)
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class ImageId:
    """The id of a V1 image."""

    text: str

    @classmethod
    def parse(cls, text: str) -> ImageId:
        """Read the id of an image that may be there, in any shape; V1NotFound for what cannot be a directory."""
        if not _is_safe(text):
            raise V1NotFound(message="Image not found")
        return cls(text)

    @classmethod
    def parse_new(cls, text: str) -> ImageId:
        """Read the id of an image that is pushed: 16 of `[a-z0-9]` or 64 of `[a-f0-9]`; V1Error otherwise."""
        if not _NEW_ID.match(text):
            detail = {"id": text[:200], "reason": "16 letters and digits, or 64 hexadecimal digits, in lower case"}
            raise V1Error(detail, message="Invalid image id")
        return cls(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class V1Tag:
    """A tag of a V1 repository."""

    text: str

    @classmethod
    def parse(cls, text: str) -> V1Tag:
        """Read a tag that may be there, in any shape; V1NotFound for what cannot be in a file's name."""
        if not _is_safe(f"tag_{text}") or not text:
            raise V1NotFound(message="Tag not found")
        return cls(text)

    @classmethod
    def parse_new(cls, text: str) -> V1Tag:
        """Read a tag that is to be set: 1 to 128 of letters, digits, `_`, `.`, `-`; V1Error otherwise."""
        if not _NEW_TAG.match(text):
            detail = {"tag": text[:200], "reason": f"1 to {TAG_LIMIT} of letters, digits, '_', '.', '-'"}
            raise V1Error(detail, message="Invalid tag name")
        return cls(text)

    def __str__(self) -> str:
        return self.text


def _is_safe(text: str) -> bool:
    """Whether this is one component of a path, and a storage engine takes it."""
    if text in ("", ".", "..") or _UNSAFE.search(text):
        return False
    try:
        return len(text.encode("utf-8")) <= NAME_LIMIT
    except UnicodeEncodeError:
        return False


def _invalid_repository(path: str) -> V1Error:
    return V1Error({"repository": ascii(path[:200])}, message="Invalid repository name")
