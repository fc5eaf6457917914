"""What commands share that read a store themselves: its driver without threads, and a bar on the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TextIO, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from txregistry.concurrency import start
from txregistry.core.adoption import Fault
from txregistry.interfaces import IStorageDriver
from txregistry.storage.factory import open_driver

T = TypeVar("T")

_BAR = 30


class StoreError(Exception):
    """A store that cannot be read; the text is one line."""


class _InPlace:
    """Runs each job at once: a command may block."""

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        result: Deferred[T] = execute(function, *args)
        return result

    run_small = run


class _Wall:
    """The clock on the wall."""

    def seconds(self) -> float:
        return time.time()


def open_store(engine: str, path: str | None, keys: Mapping[str, Any] | None = None) -> IStorageDriver:
    """The driver of an engine, which does all its work in place; not prepared, so that nothing is written."""
    driver: IStorageDriver = open_driver(engine, path, _InPlace(), _Wall(), keys)  # type: ignore[arg-type]  # as much of a Pool as drivers use
    return driver


def open_root(root: str) -> IStorageDriver:
    """The driver of a folder that some registry wrote; StoreError unless it looks like one."""
    path = os.path.abspath(root)
    if not os.path.isdir(path):
        raise StoreError(f"{root}: is not a folder")
    if not any(os.path.isdir(os.path.join(path, *part.split("/"))) for part in _PARTS):
        raise StoreError(f"{root}: holds nothing of a registry: neither {', '.join(_PARTS[:-1])} nor {_PARTS[-1]}")
    return open_store("local", path)


_PARTS = ("images", "repositories", "docker/registry/v2")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of work over such a driver; StoreError for an engine that needs a running server."""
    outcome: list[Any] = []
    start(coroutine).addBoth(outcome.append)
    if not outcome:
        raise StoreError("this storage engine cannot be read by a command")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


class Report:
    """Prints what is found as it is found, counts it, and shows on a terminal how far the work has come."""

    def __init__(self, out: TextIO, bar: TextIO, verb: str = "") -> None:
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.made = 0
        self._out = out
        self._verb = verb
        self._bar = bar if bar.isatty() else None
        self._total = self._done = 0
        self._shown = ""

    def expect(self, count: int) -> None:
        """So many more steps are to come."""
        self._total += count
        self._show()

    def step(self) -> None:
        """One is done."""
        self._done += 1
        self._show()

    def saw(self, noun: str) -> None:
        """Something was looked at."""
        self.counts[noun] += 1

    def fault(self, fault: Fault) -> None:
        """Something is broken."""
        self.faults[fault.kind] += 1
        self.line(f"{fault.path}: {fault.kind}{': ' if fault.detail else ''}{fault.detail}")

    def repaired(self, path: str) -> None:
        """A file that was missing is made, or would be."""
        self.made += 1
        self.line(f"{path}: {self._verb}")

    def line(self, text: str) -> None:
        """Print a line, whatever bytes the names of files had."""
        self.clear()
        self._out.write(text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\n", "\\n") + "\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._bar is not None and self._shown:
            self._bar.write("\r\x1b[K")
            self._bar.flush()
            self._shown = ""

    def _show(self) -> None:
        if self._bar is None or not self._total:
            return
        share = self._done / self._total
        text = f"[{'#' * int(_BAR * share):{_BAR}}] {int(100 * share):3}%"
        if text != self._shown:
            # A number beside it would have to be written at each step.
            self._bar.write(f"\r{text} of {self._total}")
            self._bar.flush()
            self._shown = text


def fail(text: str) -> int:
    """Say on one line why a command ends; its exit status."""
    sys.stderr.write(f"txregistry: {text}\n".encode("utf-8", "backslashreplace").decode("utf-8"))
    return 1
