"""From the keys of the configuration to what the driver is made with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from txregistry.storage.elliptics.driver import EllipticsDriver
from txregistry.storage.elliptics.session import Options
from txregistry.storage.elliptics.wire import DIALECTS, IPV4

#: The names of the levels of `elliptics_verbosity`, in order.
LEVELS = ("data", "error", "info", "notice", "debug")


def log_to(path: str, verbosity: int) -> Callable[[int, str], None]:
    """A log that appends the lines up to a level to a file, which is opened for each, so that it can be renamed."""

    def log(level: int, line: str) -> None:
        if level > verbosity:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
        # A log that cannot be written must not stop the storage.
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(f"{stamp} {LEVELS[level]}: {line}\n")

    return log


def from_keys(keys: Mapping[str, Any], pool: Any, clock: Any) -> EllipticsDriver:
    """The driver that the keys describe.

    The numbers of threads are read and have no effect: sockets are served by the threads of the registry's pool.
    """
    family = keys.get("elliptics_addr_family")
    nodes = tuple(
        (host, port, family if family is not None and node_family == IPV4 else node_family)
        for host, port, node_family in keys["elliptics_nodes"]
    )
    version = keys.get("elliptics_version")
    flags = keys.get("elliptics_node_flags") or ()
    options = Options(
        nodes,
        namespace=keys["elliptics_namespace"],
        timeout=float(keys["elliptics_wait_timeout"]),
        check=float(keys["elliptics_check_timeout"]),
        dialects=tuple(dialect for dialect in DIALECTS if version in (None, dialect.name)),
        checksums="no_csum" not in flags,
        discover="no_route_list" not in flags,
        log=log_to(keys["elliptics_logfile"], keys["elliptics_verbosity"]),
    )
    groups = tuple(dict.fromkeys(keys["elliptics_groups"]))
    return EllipticsDriver(options, groups, pool, clock, keys.get("elliptics_write_quorum"), clock)
