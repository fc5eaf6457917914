"""The small documents of a V1 repository: what tags point at, and what is known of the client that pushed `latest`."""

from __future__ import annotations

import json
import re

from txregistry.errors import V1Error
from txregistry.model.v1.names import ImageId

#: Only from the beginning of a word on, or a long one without a slash would take the square of its length.
_PRODUCT = re.compile(r"(?<![^\s/])([^\s/]++)/([^\s/]+)")
#: User-Agent token -> key of the document, and whether its value is lower-cased.
_KEYS = {
    "docker": ("docker_version", False),
    "go": ("docker_go_version", False),
    "arch": ("arch", True),
    "kernel": ("kernel", True),
    "os": ("os", True),
}
#: The document of a repository that has none.
UNKNOWN_CLIENT: dict[str, object] = {
    "arch": "amd64",
    "docker_go_version": None,
    "docker_version": None,
    "kernel": None,
    "last_update": None,
    "os": "linux",
}


def parse_user_agent(text: str) -> dict[str, str]:
    """The `name/value` pairs of a User-Agent; of a name that comes twice the last."""
    return dict(_PRODUCT.findall(text))


def describe_client(user_agent: str, now: float) -> bytes:
    """What `json` of a repository holds after `latest` was set; `now` in seconds of the epoch."""
    document: dict[str, object] = {"last_update": int(now)}
    for name, value in parse_user_agent(user_agent).items():
        if name in _KEYS:
            key, lower = _KEYS[name]
            document[key] = value.lower() if lower else value
    return json.dumps(document).encode("ascii")


def parse_tag_value(data: bytes) -> ImageId:
    """The image that a tag is to name: the body of `PUT .../tags/<tag>`, a JSON string; V1Error, V1NotFound."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, str) or not value:
        raise V1Error(message="Invalid data")
    return ImageId.parse(value)


def decode_tag(data: bytes) -> ImageId:
    """The image that a stored tag names; V1NotFound for what is no id."""
    return ImageId.parse(data.decode("utf-8", "replace").strip())
