"""A token that is good for a while: kept, renewed ahead of its end, and asked for by one on behalf of all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txregistry.concurrency import start
from txregistry.errors import Unavailable

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
        self._waiting: list[Deferred[Session]] | None = None

    async def session(self) -> Session:
        """The session in use. Refused, or Unavailable when nobody can be asked and there is none that still holds."""
        if self._session is not None and self._seconds() < self._renew_at:
            return self._session
        try:
            return await self._renewed()
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

    def _renewed(self) -> Deferred[Session]:
        waiter: Deferred[Session] = Deferred()
        if self._waiting is not None:
            self._waiting.append(waiter)
            return waiter
        self._waiting = [waiter]
        began = self._seconds()
        # Whoever asked first may leave, without an end to it for the others.
        start(self._sign_in()).addBoth(self._asked, began)
        return waiter

    def _asked(self, result: Session | Failure, began: float) -> None:
        if isinstance(result, Session):
            self._session, self._end = result, began + result.life
            self._renew_at = self._end - min(AHEAD_SECONDS, AHEAD_SHARE * result.life)
        waiting, self._waiting = self._waiting or [], None
        for waiter in waiting:
            if waiter.called:  # it was cancelled
                continue
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(result)
