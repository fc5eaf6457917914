"""Whether the store works, found out by using it."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004  # not the builtin, which nobody raises here
from twisted.internet.interfaces import IReactorTime

from txregistry.errors import StorageError
from txregistry.interfaces import IStorageDriver
from txregistry.storage import layout

#: How long a check may take, in seconds.
_PATIENCE = 10.0


class Status:
    """The checks that `_status` reports."""

    def __init__(self, driver: IStorageDriver, clock: IReactorTime) -> None:
        self._driver = driver
        self._clock = clock

    async def storage(self) -> str | None:
        """Write, read and remove a small object; None if that went well, else what did not."""
        try:
            return await Deferred.fromCoroutine(self._probe()).addTimeout(_PATIENCE, self._clock)
        except TimeoutError:
            return f"no answer within {_PATIENCE:g} s"
        except StorageError as error:
            return f"{type(error).__name__}: {error.reason}".rstrip(": ")

    async def _probe(self) -> str | None:
        name = uuid4().hex
        path, written = layout.probe(name), name.encode("ascii")
        await self._driver.put(path, written)
        found, _ = await self._driver.read(path, len(written))
        await self._driver.remove(path)
        return None if found == written else "Set value is different from what was received"
