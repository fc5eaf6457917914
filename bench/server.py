"""`python -m bench.server FILE TWISTD-ARGUMENTS`: twistd, with a probe of the reactor's turns.

A line of FILE is the time at which one turn of the reactor ended, and how many seconds the turn took: from the return
of `epoll_wait` to the next call. Turns below `WORTH_NOTING` are not noted. Nothing wakes up for it, and of what is
measured besides it costs half a microsecond a turn.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

#: Seconds of a turn below which it is not noted.
WORTH_NOTING = 0.005


class Probe:
    """Stands in for the poller of the reactor."""

    def __init__(self, poller: Any, note: Callable[[float], object]) -> None:
        self._poll, self._note = poller.poll, note
        self.register, self.modify, self.unregister = poller.register, poller.modify, poller.unregister
        self.close, self.fileno = poller.close, poller.fileno
        # Before the first poll come the imports.
        self._since = float("inf")

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Note the turn that ends here, then wait."""
        busy = time.perf_counter() - self._since
        if busy > WORTH_NOTING:
            self._note(busy)
        events: list[tuple[int, int]] = self._poll(timeout, most)
        self._since = time.perf_counter()
        return events


def main() -> None:
    """Run twistd with the probe."""
    path = sys.argv.pop(1)
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    # The reactor has no public way to be asked this.
    poller: Any = reactor
    poller._poller = Probe(poller._poller, lambda busy: os.write(file, f"{time.time():.3f} {busy:.6f}\n".encode()))
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
