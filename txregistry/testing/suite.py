"""What a driver's tests say of it, and the helpers that the driver suite is written with."""

# mypy: disallow-untyped-calls=False
# trial's assertions have no types.

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from txregistry.errors import StorageError
from txregistry.interfaces import IReader, IStorageDriver

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base
else:
    _Base = object

E = TypeVar("E", bound=StorageError)

#: Three MiB in which no two places look alike.
LARGE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3 << 15))


class SuiteHooks(_Base):
    """How to make a driver, for a subclass to say; and helpers for tests."""

    def make_driver(self) -> IStorageDriver:
        """A driver on a new, empty store."""
        raise AssertionError("a subclass says how")

    def sibling(self, driver: IStorageDriver) -> IStorageDriver:
        """Another driver on the same store, as another process would have."""
        raise AssertionError("a subclass says how")

    async def stall(self, driver: IStorageDriver, path: str) -> None:
        """Let the partial object at `path` look as one whose holder has moved no byte for six seconds."""
        raise AssertionError("a subclass says how")

    async def fill(self, driver: IStorageDriver, prefix: str, names: list[str]) -> None:
        """Put many small objects; a subclass may know a faster way."""
        for name in names:
            await driver.put(f"{prefix}/{name}", b"1")

    async def fails(self, kind: type[E], awaitable: Awaitable[object]) -> E:
        """The error with which something must fail."""
        try:
            result = await awaitable
        except kind as error:
            return error
        raise self.failureException(f"{kind.__name__} expected, not {result!r}")

    async def contents(self, driver: IStorageDriver, path: str) -> bytes:
        """All the bytes of an object, in chunks."""
        reader = await driver.open(path)
        try:
            return await self.range(reader, 0, reader.size)
        finally:
            reader.close()

    async def range(self, reader: IReader, begin: int, end: int) -> bytes:
        """The bytes of a range."""
        pieces = [piece async for piece in reader.chunks(begin, end)]
        for piece in pieces:
            self.assertTrue(0 < len(piece) <= 1 << 20, len(piece))
        return b"".join(pieces)

    async def all_names(self, driver: IStorageDriver, prefix: str, limit: int) -> list[str]:
        """The names of all pages, in the engine's order."""
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await driver.list(prefix, cursor, limit)
            self.assertLessEqual(len(page.entries), limit)
            names += [entry.name for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                return names
