"""What a V2 URL names: repositories, tags, and references that are either a tag or a digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from txregistry.errors import NameInvalid, TagInvalid
from txregistry.model.digest import Digest

#: Longest repository name in characters; what other registries and most clients allow.
NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_ONE_COMPONENT = re.compile(rf"{_COMPONENT}\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """The name of a repository (OCI distribution spec, "Pulling manifests")."""

    text: str

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Read a name; NameInvalid tells the rule that it breaks."""
        if len(text) > NAME_LIMIT:
            raise NameInvalid({"name": text[:NAME_LIMIT], "reason": f"longer than {NAME_LIMIT} characters"})
        if not _NAME.match(text):
            reason = "components of lower-case letters and digits, joined by '.', '_', '__' or dashes, between slashes"
            raise NameInvalid({"name": text, "reason": reason})
        return cls(text)

    def __str__(self) -> str:
        return self.text


def is_component(text: str) -> bool:
    """Whether text can stand between the slashes of a repository's name."""
    return _ONE_COMPONENT.match(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A tag: 1 to 128 of letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Read a tag; TagInvalid when the grammar does not allow it."""
        if not _TAG.match(text):
            reason = "1 to 128 of letters, digits, '_', '.', '-', not beginning with '.' or '-'"
            raise TagInvalid({"tag": text[:200], "reason": reason})
        return cls(text)

    def __str__(self) -> str:
        return self.text


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Read what names a manifest: with a colon it is a digest, otherwise a tag."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)
