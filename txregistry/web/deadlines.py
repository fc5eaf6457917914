"""When the time of connections is over: one timer for all that wait equally long."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: So many connections end in one turn of the reactor, each with an answer perhaps, before others have theirs.
TURN = 50


class Timed(Protocol):
    """A connection; its time is over `timeOut` seconds after its last `begin`, if that is so many as others have."""

    timeOut: float | None

    def timeoutConnection(self) -> None:
        """Its time is over."""


class Deadlines:
    """Connections in the order in which they began to wait, and so in that in which their time is over.

    All wait for the same `seconds`. Thousands that do take no timer each, and one that begins anew changes its place in
    the order, which costs less than a timer's reset. One whose `timeOut` has become another is not minded any more.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._since: OrderedDict[Timed, float] = OrderedDict()
        self._call: IDelayedCall | None = None

    def begin(self, connection: Timed) -> None:
        """Its time begins now."""
        self._since[connection] = self._clock.seconds()
        self._since.move_to_end(connection)
        if self._call is None:
            self._call = self._clock.callLater(self.seconds, self._look)

    def forget(self, connection: Timed) -> None:
        """It is gone."""
        self._since.pop(connection, None)
        if not self._since and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = self._clock.seconds()
        over: list[Timed] = []
        while self._since:
            connection, since = next(iter(self._since.items()))
            left = since + self.seconds - now
            if left > 0 or len(over) == TURN:
                self._call = self._clock.callLater(max(left, 0), self._look)
                break
            del self._since[connection]
            if connection.timeOut == self.seconds:
                over.append(connection)
        for connection in over:
            connection.timeOut = None
            connection.timeoutConnection()
