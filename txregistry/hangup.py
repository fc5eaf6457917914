"""SIGHUP, which twistd leaves alone: without a handler it ends the process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def on_hangup(reactor: Any, call: Callable[[], object]) -> Callable[[], None]:
    """Call `call` in the reactor's turn at each SIGHUP from now on; the result puts back what was there before."""

    def handle(_number: int, _frame: object) -> None:
        reactor.callFromThread(call)

    before = signal.signal(signal.SIGHUP, handle)

    def restore() -> None:
        signal.signal(signal.SIGHUP, before)

    return restore
