"""From the name of a storage engine to its driver: the one table of engines.

An engine's module is imported when it is asked for, since most need a library that only an extra installs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from txregistry.storage.pool import Pool

#: The engines that need a library of their own: its name, and the extra that installs it.
LIBRARIES = {
    "s3": ("boto3", "s3"),
    "gcs": ("boto3", "s3"),
    "swift": ("treq", "openstack"),
    "glance": ("treq", "openstack"),
}


class EngineError(Exception):
    """The storage engine cannot be used; the text is one line that says why and what would help."""


#: Makes a driver of `storage_path`, the keys of the engine by name, a pool and a clock.
_Opens = Callable[[str | None, Mapping[str, Any], Pool, Any], Any]


def _local(path: str | None, keys: Mapping[str, Any], pool: Pool, reactor: Any) -> Any:
    from txregistry.storage.disk import Disk, UnsyncedDisk  # noqa: PLC0415 - as the module's text says
    from txregistry.storage.local import LocalDriver  # noqa: PLC0415

    assert path is not None, "the configuration asks for the path of local storage"
    return LocalDriver(path, pool, reactor, Disk() if keys.get("fsync", True) else UnsyncedDisk())


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


def _swift(path: str | None, keys: Mapping[str, Any], pool: Pool, reactor: Any) -> Any:
    from txregistry.storage.openstack.blocking import BlockingHttp  # noqa: PLC0415 - as the module's text says
    from txregistry.storage.openstack.treq_http import TreqHttp  # noqa: PLC0415
    from txregistry.storage.swift.connection import Connection  # noqa: PLC0415
    from txregistry.storage.swift.container import Container  # noqa: PLC0415
    from txregistry.storage.swift.driver import SwiftDriver  # noqa: PLC0415
    from txregistry.storage.swift.options import from_keys  # noqa: PLC0415

    options = from_keys(path, keys)
    runs = hasattr(reactor, "connectTCP")  # commands may have no more than a clock
    http = TreqHttp(reactor, options.cacert) if runs else BlockingHttp(options.cacert)
    return SwiftDriver(Container(Connection(options, http)), pool, reactor)


def _glance(path: str | None, keys: Mapping[str, Any], pool: Pool, reactor: Any) -> Any:
    from txregistry.storage.glance.driver import GlanceDriver  # noqa: PLC0415 - as the module's text says
    from txregistry.storage.glance.options import from_keys  # noqa: PLC0415
    from txregistry.storage.glance.store import InPlace, look_at_start  # noqa: PLC0415
    from txregistry.storage.openstack.blocking import BlockingHttp  # noqa: PLC0415
    from txregistry.storage.openstack.treq_http import TreqHttp  # noqa: PLC0415

    options, engine = from_keys(keys), str(keys["storage_alternate"])
    alternate = open_driver(engine, path, pool, reactor, keys)

    def look() -> None:
        in_place: Any = InPlace(reactor.seconds)
        look_at_start(options, BlockingHttp(options.cacert), open_driver(engine, path, in_place, in_place, keys))

    runs = hasattr(reactor, "connectTCP")  # commands may have no more than a clock
    http = TreqHttp(reactor, options.cacert) if runs else BlockingHttp(options.cacert)
    return GlanceDriver(alternate, options.client(http), pool, reactor, look=look)


_ENGINES: dict[str, _Opens] = {
    "local": _local,
    "s3": _s3("s3"),
    "gcs": _s3("gcs"),
    "elliptics": _elliptics,
    "glance": _glance,
    "swift": _swift,
}


def place_of(engine: str, path: str | None, keys: Mapping[str, Any], alternate: str | None = None) -> str:
    """Where a storage is, for people; the arguments are those of `open_driver`, and Glance's alternate."""
    if engine != "glance" or alternate is None:
        return _place(engine, path, keys)
    glance = keys.get("os_glance_url") or f"what {keys.get('os_auth_url')} has in its catalog"
    return f"{glance}, with {_place(alternate, path, keys)} ({alternate}) as its alternate"


def _place(engine: str, path: str | None, keys: Mapping[str, Any]) -> str:
    if engine == "elliptics":
        return f"groups {', '.join(map(str, keys['elliptics_groups']))}"
    below = f", keys below {path}" if path else ""
    for key in ("boto_bucket", "swift_container"):
        if engine != "local" and keys.get(key):
            return f"{key.partition('_')[2]} {keys[key]}{below}"
    return str(path)


def require(engine: str, alternate: str | None = None) -> None:
    """EngineError unless this version has the engine, and the library that it needs is installed; and its alternate."""
    if alternate is not None:
        require(alternate)
    if engine not in _ENGINES:
        raise EngineError(f"storage: {engine} is not in this version; it has: {', '.join(sorted(_ENGINES))}")
    library, extra = LIBRARIES.get(engine, (None, None))
    if library is not None and find_spec(library) is None:
        raise EngineError(
            f"storage: {engine} needs {library}, which is not installed; pip install 'txregistry[{extra}]' brings it"
        )


def open_driver(engine: str, path: str | None, pool: Pool, reactor: Any, keys: Mapping[str, Any] | None = None) -> Any:
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
