"""From the name of a storage engine to its driver: the one table of engines.

An engine's module is imported when it is asked for, since most need a library that only an extra installs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from txregistry.storage.pool import Pool

#: The engines that need a library of their own: its name, and the extra that installs it.
LIBRARIES = {"s3": ("boto3", "s3"), "gcs": ("boto3", "s3")}


class EngineError(Exception):
    """The storage engine cannot be used; the text is one line that says why and what would help."""


#: Makes a driver of `storage_path`, the keys of the engine by name, a pool and a clock.
_Opens = Callable[[str | None, Mapping[str, Any], Pool, Any], Any]


def _local(path: str | None, _keys: Mapping[str, Any], pool: Pool, reactor: Any) -> Any:
    from txregistry.storage.local import LocalDriver  # noqa: PLC0415 - as the module's text says

    assert path is not None, "the configuration asks for the path of local storage"
    return LocalDriver(path, pool, reactor)


def _s3(engine: str) -> _Opens:
    def opens(path: str | None, keys: Mapping[str, Any], pool: Pool, reactor: Any) -> Any:
        from txregistry.storage.s3.bucket import Bucket  # noqa: PLC0415 - as the module's text says
        from txregistry.storage.s3.driver import S3Driver  # noqa: PLC0415
        from txregistry.storage.s3.options import from_keys  # noqa: PLC0415

        return S3Driver(Bucket(from_keys(engine, path, keys)), pool, reactor)

    return opens


def _elliptics(_path: str | None, keys: Mapping[str, Any], pool: Pool, reactor: Any) -> Any:
    from txregistry.storage.elliptics.options import from_keys  # noqa: PLC0415 - as the module's text says

    return from_keys(keys, pool, reactor)


_ENGINES: dict[str, _Opens] = {"local": _local, "s3": _s3("s3"), "gcs": _s3("gcs"), "elliptics": _elliptics}


def require(engine: str) -> None:
    """EngineError unless this version has the engine, and the library that it needs is installed."""
    if engine not in _ENGINES:
        raise EngineError(f"storage: {engine} is not in this version; it has: {', '.join(sorted(_ENGINES))}")
    library, extra = LIBRARIES.get(engine, (None, None))
    if library is not None and find_spec(library) is None:
        raise EngineError(
            f"storage: {engine} needs {library}, which is not installed; pip install 'txregistry[{extra}]' brings it"
        )


def open_driver(
    engine: str, path: str | None, pool: Pool, reactor: Any, keys: Mapping[str, Any] | None = None
) -> Any:
    """The driver of an engine, not yet prepared; EngineError for one that cannot be had.

    `path` is `storage_path`, `keys` are those of the engine by name, with their defaults.
    """
    require(engine)
    return _ENGINES[engine](path, keys or {}, pool, reactor)


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
