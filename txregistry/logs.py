"""The operator's log: how much of it is kept.

Where it goes is twistd's business (`--logfile`, `--syslog`); the key `loglevel` says from which level on.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import (
    FilteringLogObserver,
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
