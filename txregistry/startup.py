"""What a process does as it starts to serve, and how a start that cannot work ends."""

from __future__ import annotations

import os
import resource
from typing import NoReturn

from twisted.logger import Logger

_log = Logger()


class StartFailed(Exception):
    """The server cannot start; the text is one line."""


def allow_many_files() -> None:
    """Raise the process's limit of open files to what it may have: each connection is one, and each blob it pulls."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def end_start(line: str, *, daemon: bool) -> NoReturn:
    """End the start with one line: on the terminal, or in a daemon's log and to the twistd that waits for it."""
    if not daemon:
        # sys.stderr leads into the log by now.
        os.write(2, f"txregistry: {line}\n".encode(errors="backslashreplace"))
        raise SystemExit(1)
    _log.critical("{line}", line=line)
    raise StartFailed(line)
