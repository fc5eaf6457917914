"""Small objects of a V1 store, where nothing being there is an ordinary answer."""

from __future__ import annotations

from twisted.logger import Logger

from txregistry.errors import NotFound, TooLarge
from txregistry.interfaces import IStorageDriver, Version

#: Most bytes of a document that are read; image JSON and lists of images are far smaller.
DOCUMENT_LIMIT = 16 * 1024 * 1024
#: Most bytes read of what holds an id, a checksum or less.
TEXT_LIMIT = 64 * 1024

_log = Logger()


async def load(driver: IStorageDriver, path: str, limit: int) -> tuple[bytes, Version] | None:
    """A small object and its version, or None; one that is larger than `limit` is logged and counts as missing."""
    try:
        return await driver.read(path, limit)
    except NotFound:
        return None
    except TooLarge:
        _log.warn("larger than {limit} bytes, treated as missing: {path}", limit=limit, path=path)
        return None


async def read(driver: IStorageDriver, path: str, limit: int = DOCUMENT_LIMIT) -> bytes | None:
    """A small object, or None."""
    loaded = await load(driver, path, limit)
    return None if loaded is None else loaded[0]


async def exists(driver: IStorageDriver, path: str) -> bool:
    """Whether there is an object or a directory."""
    try:
        await driver.stat(path)
    except NotFound:
        return False
    return True


async def size(driver: IStorageDriver, path: str) -> int | None:
    """The size of an object in bytes, or None."""
    try:
        stat = await driver.stat(path)
    except NotFound:
        return None
    return None if stat.is_directory else stat.size


async def write(driver: IStorageDriver, path: str, data: bytes) -> None:
    """Write a small object unless it holds these bytes already."""
    if await read(driver, path, DOCUMENT_LIMIT) == data:
        try:
            await driver.settle(path)
        except NotFound:
            await driver.put(path, data)
    else:
        await driver.put(path, data)


async def remove(driver: IStorageDriver, path: str) -> None:
    """Remove an object, or a directory with all below it, if it is there."""
    try:
        await driver.remove(path)
    except NotFound:
        return
