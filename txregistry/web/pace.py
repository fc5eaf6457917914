"""Whether a client moves its bytes fast enough to be waited for."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Pace:
    """A watch over one direction of one connection: a client that is too slow is given up.

    Counted is the time for which the client was waited for: not for a route, a disk or another server. Each time that
    this comes to `window` seconds, the client must have moved `rate` bytes for each of them, else `give_up` is called.
    So it may pause for that long, and prolongs nothing by a byte now and then. `moved` tells how many bytes it has
    moved so far.
    """

    __slots__ = ("_before", "_call", "_clock", "_give_up", "_moved", "_rate", "_since", "_waited", "_window")

    def __init__(
        self,
        clock: IReactorTime,
        window: float,
        rate: float,
        moved: Callable[[], int],
        give_up: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._window = window
        self._rate = rate
        self._moved = moved
        self._give_up = give_up
        self._before = moved()
        self._waited = 0.0
        self._since: float | None = None
        self._call: IDelayedCall | None = None

    def wait(self) -> None:
        """The client is waited for from now on."""
        if self._since is None:
            self._since = self._clock.seconds()
            if self._call is None:
                self._call = self._clock.callLater(self._window - self._waited, self._look)

    def rest(self) -> None:
        """The client is not waited for any more, until `wait` is called again."""
        if self._since is not None:
            self._waited += self._clock.seconds() - self._since
            self._since = None

    def end(self) -> None:
        """Watch no longer."""
        self._since = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        # The call is not put off at each rest, of which there may be very many; so it may come too early.
        self._call = None
        if self._since is None:
            return
        self.rest()
        if self._waited >= self._window:
            moved = self._moved()
            if moved - self._before < self._rate * self._waited:
                self._give_up()
                return
            self._waited, self._before = 0.0, moved
        self.wait()
