"""Whether the services that the registry rests on work, found out by using them."""

from __future__ import annotations

from typing import Protocol
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.interfaces import IReactorTime

from txregistry.concurrency import start, within
from txregistry.errors import StorageError
from txregistry.interfaces import IStorageDriver
from txregistry.storage import layout

#: What is tried, as it is called in reports.
SERVICES = ("redis", "storage")
#: What is said of a service that is not configured, which is no failure.
UNCONFIGURED = "unconfigured"
#: How long a check may take, in seconds.
_PATIENCE = 10.0
_DIFFERS = "Set value is different from what was received"


class Echoes(Protocol):
    """A server that keeps values for a while."""

    async def echo(self, key: bytes, value: bytes) -> bytes | None:
        """Set a key for some seconds, and read it again; fails with whatever the server has against it."""
        ...


class Status:
    """The checks that `_status` reports."""

    def __init__(self, driver: IStorageDriver, clock: IReactorTime, redis: Echoes | None = None) -> None:
        self._driver = driver
        self._clock = clock
        self._redis = redis

    async def failures(self) -> dict[str, str]:
        """What is wrong with each service that does not work, by its name; within ten seconds."""
        redis = start(self.redis())  # which works while the other waits, and never fails
        storage = await self.storage()
        found = zip(SERVICES, (await redis, storage), strict=True)
        return {name: text for name, text in found if text is not None}

    async def storage(self) -> str | None:
        """Write, read and remove a small object; None if that went well, else what did not."""
        try:
            return await self._checked(start(self._probe_storage()))
        except StorageError as error:
            return f"{type(error).__name__}: {error.reason}".rstrip(": ")

    async def redis(self) -> str | None:
        """Set a value in the Redis that is no cache and read it again; likewise."""
        if self._redis is None:
            return UNCONFIGURED
        try:
            return await self._checked(start(self._probe_redis(self._redis)))
        except CancelledError:
            raise
        except Exception as error:
            # Whatever its client or its server raise is the answer.
            return str(error) or type(error).__name__

    async def _checked(self, probe: Deferred[bool]) -> str | None:
        try:
            return None if await within(probe, _PATIENCE, self._clock) else _DIFFERS
        except TimeoutError:
            return f"no answer within {_PATIENCE:g} s"

    async def _probe_storage(self) -> bool:
        name = uuid4().hex
        path, written = layout.probe(name), name.encode("ascii")
        await self._driver.put(path, written)
        found, _ = await self._driver.read(path, len(written))
        await self._driver.remove(path)
        return found == written

    async def _probe_redis(self, redis: Echoes) -> bool:
        value = uuid4().hex.encode("ascii")
        return await redis.echo(b"txregistry:status:" + value, value) == value
