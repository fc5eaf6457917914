"""The operator's log, and the log of requests.

Where the first goes is twistd's business (`--logfile`, `--syslog`); the key `loglevel` says from which level on. The
key `access_log` says where the second goes.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    globalLogPublisher,
)

#: Python's names for levels, as the key `loglevel` has them, and Twisted's.
LEVELS: dict[str, Any] = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "warning": LogLevel.warn,
    "error": LogLevel.error,
    "fatal": LogLevel.critical,
    "critical": LogLevel.critical,
}


def keep_from(loglevel: str, publisher: LogPublisher = globalLogPublisher) -> None:
    """Let only events of this level and above reach those who observe the log now; KeyError for an unknown level.

    twistd makes its observer by itself and offers no place for a filter, so each observer is replaced by a filtered
    one. `_observers` is a private name of Twisted; tests/test_logs.py fails if it goes.
    """
    wanted = LogLevelFilterPredicate(defaultLogLevel=LEVELS[loglevel.lower()])
    for observer in list(publisher._observers):
        publisher.removeObserver(observer)
        publisher.addObserver(FilteringLogObserver(observer, [wanted]))


class AccessLog:
    """The lines of the access log, each written at once: to a file, to the standard output, or into the log.

    `target` is a path or "-". The file is opened at the first line, or by `open`, and always appended to, so that it
    may be truncated meanwhile. `daemon` says that there is no standard output; the log takes those lines instead.
    """

    _log = Logger()

    def __init__(self, target: str, *, daemon: bool = False) -> None:
        self._target = target
        self._daemon = daemon
        self._file: int | None = None
        self._failing = False

    def open(self) -> None:
        """Open the file now; OSError if it cannot be."""
        if self._file is None and not self._into_log:
            if self._target == "-":
                # sys.stdout leads into twistd's log by now, which would put its own time before each line.
                self._file = os.dup(1)
            else:
                self._file = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, lines: str) -> None:
        """Write lines, each with its newline. A full disk is told once and does no other harm."""
        if self._into_log:
            for line in lines.splitlines():
                self._log.info("{line}", line=line)
            return
        try:
            self.open()
            assert self._file is not None
            os.write(self._file, lines.encode("ascii", "backslashreplace"))
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._log.error("cannot write the access log {path}: {error}", path=self._target, error=error)
            self._failing = True

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def _into_log(self) -> bool:
        return self._daemon and self._target == "-"
