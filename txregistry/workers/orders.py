"""What the parent of workers tells them, and the words between the two."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from twisted.logger import Logger

from txregistry import config
from txregistry.listen import ListenError, parse, read_pem
from txregistry.tap import settings_of

#: What a report begins with that is one.
MARK = b"\x1e"
#: The words of reports: it serves, it cannot (with why), the first lines are told, an event of the log.
READY, FAILED, TOLD, LOG = b"ready", b"failed", b"told", b"log"
#: The words for a worker: tell the first lines; serve what is connected and nobody else.
TELL, RETIRE = b"tell\n", b"retire\n"

_log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker has to know: the same for all but for `slot` and `sockets`, a descriptor for each endpoint.

    `options` are those of the command line. `source` and `files` are the configuration file (None: there is none) and
    the contents, in Latin-1, of what the parent has read when it was perhaps still root. `secret_key` is for settings
    without one.
    """

    options: dict[str, Any]
    cwd: str
    source: str | None
    files: dict[str, str]
    secret_key: str
    daemon: bool
    slot: int = 0
    sockets: tuple[int, ...] = ()

    def line(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Orders:
        """From such a line."""
        return cls(**json.loads(line))

    @property
    def snapshot(self) -> config.Snapshot:
        """The configuration file."""
        return config.Snapshot(self.source, self.contents[self.source] if self.source else b"")

    @property
    def contents(self) -> Mapping[str, bytes]:
        """The files by path."""
        return {path: text.encode("latin-1") for path, text in self.files.items()}


def take(orders: Orders, environ: Mapping[str, str]) -> Orders:
    """The orders with the files as they are now; ConfigError or ListenError if these cannot be used.

    What was readable as root and is no longer stays as it was read then. Where to listen stays as well: the sockets are
    open.
    """
    try:
        snapshot = config.take(orders.options["config"], environ, orders.cwd)
    except config.ConfigError:
        if orders.source is None or os.access(orders.source, os.R_OK):
            raise
        _log.warn("{source} cannot be read any more; it stays as it was at the start", source=orders.source)
        snapshot = orders.snapshot
    settings = settings_of(orders.options, environ, orders.cwd, snapshot)
    return replace(orders, source=snapshot.source, files=files_of(settings, snapshot, orders.files))


def files_of(
    settings: config.Settings, snapshot: config.Snapshot, before: Mapping[str, str]
) -> dict[str, str]:
    """What workers may not be allowed to read: the configuration file, and certificates and keys; in Latin-1 by path.

    Those in `before` need not be readable any more. ListenError for a file of TLS that never was.
    """
    files = {snapshot.source: snapshot.text.decode("latin-1")} if snapshot.source else {}
    named = {"privileged key": settings.privileged_key}
    if any(parse(text).needs_certificate for text in settings.listen):
        named["certificate"] = settings.tls_certificate
        named["key"] = settings.tls_key
        named["client authority"] = settings.tls_client_ca
    for what, path in named.items():
        if path is None:
            continue
        try:
            files[path] = read_pem(path, what).decode("latin-1")
        except ListenError as error:
            if path in before:
                _log.warn("{error}; it stays as it was read before", error=error)
                files[path] = before[path]
            elif path != settings.privileged_key:  # of that a worker knows better what to say
                raise
    return files
