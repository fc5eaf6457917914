"""Sessions: what a client was allowed once, signed, so that it need not be verified for each of its requests.

A sealed session is a cookie, or the signature of a token that we hand out. Whoever has the key, another worker or this
one after a restart, can open it; nothing is kept here.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass

from txregistry.errors import V1Error
from txregistry.model.v1.names import V1Repository

#: The name of the cookie.
COOKIE = "v1_session"
#: Seconds after which an unused session ends, and after which a used one is renewed.
LIFE, RENEW = 3600, 300
#: Seconds by which the clocks of two nodes may differ.
_SKEW = 60
#: Longest sealed session that is looked at, in characters.
_LIMIT = 2048

_ATTRIBUTES = "Path=/v1/; HttpOnly; SameSite=Strict"
CLEAR = f"{COOKIE}=; Max-Age=0; {_ATTRIBUTES}"


@dataclass(frozen=True, slots=True)
class Session:
    """What was allowed, and when, in seconds of the epoch; `user` is the name of an account, if one was asked for."""

    repository: V1Repository
    access: str | None
    issued: int
    user: str | None = None


class Sessions:
    """Seals and opens sessions with a key; those of another `purpose` do not open."""

    def __init__(self, secret_key: str, purpose: str, now: Callable[[], float]) -> None:
        self._key = hmac.digest(secret_key.encode("utf-8"), b"txregistry " + purpose.encode("ascii"), "sha256")
        self._now = now

    def new(self, repository: V1Repository, access: str | None, user: str | None = None) -> Session:
        """A session that begins now."""
        return Session(repository, access, int(self._now()), user)

    def seal(self, session: Session) -> str:
        """The session as text of letters, digits, `_`, `-` and one `.`."""
        repository = session.repository
        content = [repository.namespace, repository.name, session.access, session.issued, session.user]
        body = _encode(json.dumps(content, separators=(",", ":")).encode("ascii"))
        return f"{body}.{self._sign(body)}"

    def open(self, sealed: str) -> Session | None:
        """A sealed session that is still alive; None for any other text."""
        body, _, signature = sealed.partition(".")
        if len(sealed) > _LIMIT or not sealed.isascii() or not hmac.compare_digest(signature, self._sign(body)):
            return None
        try:
            namespace, name, access, issued, user = json.loads(_decode(body))
            repository = V1Repository(namespace, name)
        except (ValueError, TypeError, V1Error):
            return None  # signed by us, but by another version
        age = self._now() - issued
        return Session(repository, access, issued, user) if -_SKEW <= age <= LIFE else None

    def renewed(self, session: Session) -> Session | None:
        """The session with a new life, if it is time for that."""
        if self._now() - session.issued < RENEW:
            return None
        return self.new(session.repository, session.access, session.user)

    def cookie(self, session: Session, secure: bool) -> str:
        """A `Set-Cookie` value."""
        return f"{COOKIE}={self.seal(session)}; {_ATTRIBUTES}{'; Secure' if secure else ''}"

    def _sign(self, body: str) -> str:
        return _encode(hmac.digest(self._key, body.encode("ascii"), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("not base64") from None
