"""What is known of a request when it is decided whether it may go on, and what the decision says."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from txregistry.auth.glance import GlanceAccess
from txregistry.errors import Unauthorized
from txregistry.model.v1.names import V1Repository

READING = frozenset({"GET", "HEAD"})


class Kind(Enum):
    """What a request is about."""

    IMAGE = auto()
    REPOSITORY = auto()
    #: What everybody may do in every mode: the ping, logging in, the search.
    OPEN = auto()


@dataclass(frozen=True, slots=True)
class Facts:
    """A request, as the web layer saw it; its body has not been read.

    `method` is in upper case, `path` percent-decoded, without query, with one leading slash. `headers` has names in
    lower case, and the values of a repeated one joined by commas. `address` is the client's, `secure` whether it came
    by TLS. A request about a repository has `repository`, one about an image `image_id`, exactly as in the URL.
    """

    method: str
    path: str
    kind: Kind
    headers: Mapping[str, str] = field(default_factory=dict)
    repository: V1Repository | None = None
    image_id: str | None = None
    address: str = ""
    secure: bool = False

    @property
    def authorization(self) -> str:
        """The Authorization header; empty without."""
        return self.headers.get("authorization", "")

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method in READING

    @property
    def begins_image(self) -> bool:
        """Whether it is the `PUT images/<id>/json` with which the push of an image begins."""
        return self.kind is Kind.IMAGE and self.method == "PUT" and self.path.endswith("/json")

    def cookie(self, name: str) -> str | None:
        """The first cookie of a name."""
        pattern = rf'(?:\A|[;,])\s*{re.escape(name)}="?([^";,]*)'
        match = re.search(pattern, self.headers.get("cookie", ""))
        return None if match is None else match[1].strip()

    def basic(self) -> tuple[str, str] | None:
        """Name and password of Basic credentials; None without, also for those that cannot be read or are empty."""
        return basic(self.authorization)


def basic(authorization: str) -> tuple[str, str] | None:
    """Name and password in an Authorization header; see `Facts.basic`."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon and name else None


class By(Enum):
    """What a request was allowed by: by being open to anybody, by the privileged key, ..., by an account's password."""

    ANYBODY = auto()
    SIGNATURE = auto()
    SESSION = auto()
    TOKEN = auto()
    ACCOUNT = auto()


@dataclass(frozen=True, slots=True)
class Grant:
    """That a request may go on, and what that is bound to.

    `listed` are the ids of the images that the index says the repository has; None if that is not asked.
    `set_cookie` is a whole `Set-Cookie` value for the answer. `user` is the name of an account. `glance` is with what
    rights a storage in Glance is to be asked, if not with the registry's own.
    """

    by: By
    repository: V1Repository | None = None
    access: str | None = None
    user: str | None = None
    listed: tuple[str, ...] | None = None
    set_cookie: str | None = field(default=None, repr=False)
    glance: GlanceAccess | None = None

    @property
    def is_personal(self) -> bool:
        """Whether the answer is for this client alone, so that no shared cache may keep it."""
        return self.by is not By.ANYBODY or self.glance is not None


class Refused(Unauthorized):
    """A request that needs other credentials; `headers` belong into its answer."""

    text = "Requires authorization"

    def __init__(self, challenge: str, clear_cookie: str | None = None) -> None:
        super().__init__()
        self.headers: tuple[tuple[str, str], ...] = (("WWW-Authenticate", challenge),)
        if clear_cookie is not None:
            self.headers += (("Set-Cookie", clear_cookie),)
