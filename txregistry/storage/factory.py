"""From the name of a storage engine to its driver: the one table of engines.

An engine's module is imported when it is asked for, since most need a library that only an extra installs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
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


def require_cache(key: str = "cache_lru") -> None:
    """EngineError about this key unless what speaks with Redis is installed."""
    if find_spec("txredisapi") is None:
        raise EngineError(f"{key}: needs txredisapi, which is not installed; the extra 'redis' brings it")


def with_cache(
    driver: Any, redis: tuple[str, int, int, str | None], store: Sequence[str], root: str, reactor: Any
) -> Any:
    """A driver with a Redis beside it, not yet prepared.

    `redis` is host, port, number of the database and password. `store` tells the store from every other: its engine,
    bucket or host, and root. `root` is `storage_path` as the configuration has it, empty without one.
    """
    from txregistry.storage.cache_keys import CacheKeys, Lives  # noqa: PLC0415 - few installations have a Redis
    from txregistry.storage.cached import CachedDriver  # noqa: PLC0415
    from txregistry.storage.redis_cache import Address, RedisCache, RedisLink  # noqa: PLC0415

    require_cache()
    address, lives = Address(*redis), Lives()
    keys = CacheKeys(store, root, lives)
    cache = RedisCache(
        lambda size: RedisLink(address, size, reactor),
        reactor,
        f"{address.host}:{address.port}",
        longest=lives.long,
        guard=lives.guard,
        lifeless=keys.originals,
    )
    return CachedDriver(driver, cache, keys, reactor)


def open_diff_queue(redis: tuple[str, int, int, str | None], reactor: Any) -> Any:
    """The queue of diffs in a Redis: host, port, number of the database and password."""
    from txregistry.storage.redis_cache import Address, RedisLink  # noqa: PLC0415 - few installations have a Redis
    from txregistry.storage.redis_queue import RedisQueue  # noqa: PLC0415

    require_cache("cache")
    address = Address(*redis)
    return RedisQueue(lambda: RedisLink(address, 1, reactor))
