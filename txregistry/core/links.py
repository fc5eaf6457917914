"""Links: small objects whose text is a digest. With them a repository says which blobs and manifests are its own."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from txregistry.errors import DigestInvalid, NotFound, TooLarge
from txregistry.interfaces import ICaches, ICommitsWith, IGroups, IPartial, IProvesFresh, IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.storage import layout

#: Longer than the digest text of any known algorithm, with room for stray white space.
_LINK_LIMIT = 512
#: Children in a page of a listing: for each page the local driver reads the whole directory anew.
_PAGE = 10_000

_log = Logger()


def cached(driver: IStorageDriver) -> IStorageDriver:
    """The driver for what only serves: its `read` may be a moment behind. Whoever decides by what it reads must not."""
    return ICaches(driver).cached if ICaches.providedBy(driver) else driver


async def read_link(driver: IStorageDriver, path: str) -> Digest | None:
    """The digest that a link names; None without one, and for one whose text is damaged (which is logged)."""
    try:
        data, _ = await driver.read(path, _LINK_LIMIT)
        return Digest.parse(data.decode("ascii").strip())
    except NotFound:
        return None
    except (DigestInvalid, UnicodeDecodeError, TooLarge):
        _log.warn("damaged link, treated as missing: {path}", path=path)
        return None


def link_now(driver: IProvesFresh, path: str) -> Digest | None:
    """The digest that a link names at this moment; None if it cannot be told at once, or names none."""
    try:
        return Digest.parse((driver.read_now(path, _LINK_LIMIT) or b"").decode("ascii").strip())
    except (DigestInvalid, UnicodeDecodeError):
        return None


def link_to(path: str, digest: Digest) -> tuple[str, bytes]:
    """A link as an object: distribution wants neither newline nor upper case."""
    return path, str(digest).encode("ascii")


async def write_link(driver: IStorageDriver, path: str, digest: Digest) -> None:
    """Make a link, or point it elsewhere."""
    await driver.put(*link_to(path, digest))


async def write_all(driver: IStorageDriver, objects: Sequence[tuple[str, bytes]]) -> None:
    """Write small objects, given as (path, data), in this order; together where that costs less.

    Then a power cut may leave a later one without those before it.
    """
    if IGroups.providedBy(driver):
        await driver.put_all(objects)
        return
    for path, data in objects:
        await driver.put(path, data)


async def commit_linked(driver: IStorageDriver, partial: IPartial, path: str, link: str, digest: Digest) -> None:
    """Commit a partial object to `path`, then make a link that rests on it."""
    if ICommitsWith.providedBy(partial):
        await partial.commit_with(path, [link_to(link, digest)])
    else:
        await partial.commit(path)
        await write_link(driver, link, digest)


async def remove_if_there(driver: IStorageDriver, path: str) -> None:
    """Remove an object or directory that somebody else may have removed already."""
    try:
        await driver.remove(path)
    except NotFound:
        return


async def entries(driver: IStorageDriver, path: str) -> list[tuple[str, bool]]:
    """All children of a directory as (name, whether it is a directory), in the engine's order."""
    found: list[tuple[str, bool]] = []
    cursor: str | None = None
    while True:
        page = await driver.list(path, cursor, _PAGE)
        found.extend(page.entries)
        if page.cursor is None:
            return found
        cursor = page.cursor


async def is_revision(driver: IStorageDriver, name: RepositoryName, digest: Digest) -> bool:
    """Whether this manifest belongs to the repository."""
    for path in (layout.revision_link(name, digest), layout.foreign_revision(name, digest)):
        try:
            await driver.stat(path)
        except NotFound:
            continue
        return True
    return False
