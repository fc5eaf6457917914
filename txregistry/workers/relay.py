"""Log events on their way from a worker to its parent: one line of JSON each.

What an event was made of stays behind, its text is told. Of a failure go over the frames and the names and messages of
the exception and its causes, which is what the log and the mails show.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

#: Causes of an exception that are told.
_CAUSES = 3


def encode(event: dict[str, Any]) -> str:
    """An event as JSON, in ASCII and without a newline."""
    level = event.get("log_level")
    sent: dict[str, Any] = {
        "time": event.get("log_time"),
        "level": (level or LogLevel.info).name,
        "namespace": event.get("log_namespace"),
        "text": formatEvent(event),
    }
    for name in ("method", "uri"):
        if isinstance(event.get(name), bytes):
            sent[name] = event[name].decode("latin-1")
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        sent["frames"] = [list(frame[:3]) for frame in failure.frames]
        sent["errors"] = _errors(failure)
    return json.dumps(sent)


def decode(line: str | bytes) -> dict[str, Any]:
    """The event of such a line; ValueError or KeyError for another one."""
    sent = json.loads(line)
    event: dict[str, Any] = {
        "log_time": sent["time"],
        "log_level": LogLevel.levelWithName(sent["level"]),
        "log_namespace": sent["namespace"],
        "log_format": "{text}",
        "text": sent["text"],
    }
    event.update({name: sent[name].encode("latin-1") for name in ("method", "uri") if name in sent})
    if "errors" in sent:
        event["log_failure"] = _failure(sent["frames"], sent["errors"])
    return event


def _errors(failure: Failure) -> list[tuple[str, str, str]]:
    """Module, name and message of an exception and of its causes."""
    told: list[tuple[str, str, str]] = []
    error: BaseException | None = failure.value
    while error is not None and len(told) <= _CAUSES:
        kind = type(error)
        told.append((kind.__module__, kind.__qualname__, safe_str(error)))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


def _failure(frames: list[list[Any]], errors: list[list[str]]) -> Failure:
    made: list[BaseException] = []
    for module, name, text in errors:
        kind = type(name.rpartition(".")[2], (Exception,), {"__module__": module, "__qualname__": name})
        made.append(kind(text))
    for error, cause in pairwise(made):
        error.__cause__ = cause
    failure = Failure(made[0])
    failure.frames = [(name, file, line, (), ()) for name, file, line in frames]
    return failure
