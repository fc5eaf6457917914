"""A token that is good for a while: kept, renewed ahead of its end, and asked for by one on behalf of all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from txregistry.errors import Unavailable
from txregistry.storage.jobs import Shared

#: A token is renewed so many seconds before its end, or when so much of its life is left, whichever is later.
AHEAD_SECONDS, AHEAD_SHARE = 60.0, 0.2


class Refused(Unavailable):
    """Whoever signs people in was asked, and does not take these credentials; the reason is one line."""


@dataclass(frozen=True, slots=True)
class Session:
    """What signing in gave: a token for `life` seconds, and the addresses of the services in Keystone's form."""

    token: str = field(repr=False)
    life: float
    catalog: tuple[Mapping[str, Any], ...] = ()
    url: str = ""  # of the one service that there is, without a catalog
    project: str = ""  # the id of the project that the token is for


class Tokens:
    """The session in use; `sign_in` makes one, `seconds` is a clock that nobody sets."""

    def __init__(self, sign_in: Callable[[], Coroutine[Any, Any, Session]], seconds: Callable[[], float]) -> None:
        self._sign_in, self._seconds = sign_in, seconds
        self._session: Session | None = None
        self._renew_at = self._end = 0.0
        self._renewal = Shared(self._renew)

    async def session(self) -> Session:
        """The session in use. Refused, or Unavailable when nobody can be asked and there is none that still holds."""
        if self._session is not None and self._seconds() < self._renew_at:
            return self._session
        try:
            return await self._renewal.ask()
        except Refused:
            raise
        except Unavailable:
            if self._session is not None and self._seconds() < self._end:
                return self._session
            raise

    def refused(self, token: str) -> None:
        """A service did not take this token: the next one who asks signs in anew."""
        if self._session is not None and self._session.token == token:
            self._session = None

    async def _renew(self) -> Session:
        began = self._seconds()
        session = self._session = await self._sign_in()
        self._end = began + session.life
        self._renew_at = self._end - min(AHEAD_SECONDS, AHEAD_SHARE * session.life)
        return session
