"""What tells the time to the engines."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The part of a clock that an engine needs; a reactor has it, and so have commands that run without one."""

    def seconds(self) -> float:
        """Seconds of the epoch."""
        ...
