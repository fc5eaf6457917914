"""From the name of a storage engine to its driver: the one table of engines.

An engine's module is imported when it is asked for, since most need a library that only an extra installs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txregistry.storage.pool import Pool

#: The engines that need libraries of their own, and the extra that installs them.
EXTRAS = {"s3": "s3"}


class EngineError(Exception):
    """The storage engine cannot be used; the text is one line that says why and what would help."""


def _local(path: str | None, pool: Pool, reactor: Any) -> Any:
    from txregistry.storage.local import LocalDriver  # noqa: PLC0415 - as the module's text says

    assert path is not None, "the configuration asks for the path of local storage"
    return LocalDriver(path, pool, reactor)


_ENGINES: dict[str, Callable[[str | None, Pool, Any], Any]] = {"local": _local}


def require(engine: str) -> None:
    """EngineError unless this version has the engine."""
    if engine not in _ENGINES:
        extra = f" (not with the extra {EXTRAS[engine]!r} either)" if engine in EXTRAS else ""
        raise EngineError(f"storage: {engine} is not in this version{extra}; it has: {', '.join(sorted(_ENGINES))}")


def open_driver(engine: str, path: str | None, pool: Pool, reactor: Any) -> Any:
    """The driver of an engine, not yet prepared. `path` is `storage_path`; EngineError for an engine it has not."""
    require(engine)
    return _ENGINES[engine](path, pool, reactor)
