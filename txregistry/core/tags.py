"""Tags: names that can be moved from one manifest to another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import DeferredLock

from txregistry.concurrency import start
from txregistry.core.links import cached, entries, is_revision, link_to, read_link, remove_if_there, write_all
from txregistry.core.repositories import Repositories
from txregistry.errors import ManifestUnknown, TagInvalid
from txregistry.interfaces import ILooksBelow, IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName, Tag
from txregistry.storage import layout

#: Each lock is shared by the tags whose names fall on it.
_LOCKS = 256


class Tags:
    """The tags of all repositories."""

    def __init__(self, driver: IStorageDriver, repositories: Repositories) -> None:
        self._driver = driver
        self._cached = cached(driver)
        self._repositories = repositories
        self._locks = tuple(DeferredLock() for _ in range(_LOCKS))

    async def resolve(self, name: RepositoryName, tag: Tag) -> Digest:
        """The manifest that a tag names now; ManifestUnknown or NameUnknown."""
        return await self._resolve(self._cached, name, tag)

    async def _resolve(self, driver: IStorageDriver, name: RepositoryName, tag: Tag) -> Digest:
        digest = await read_link(driver, layout.tag_current(name, tag))
        if digest is None:
            await self._repositories.require(name)
            raise ManifestUnknown({"name": str(name), "tag": str(tag)})
        return digest

    async def point(self, name: RepositoryName, tag: Tag, digest: Digest) -> None:
        """Make a tag, or move it. Its history first: a crash in between leaves the tag as it was."""
        paths = layout.tag_history(name, tag, digest), layout.tag_current(name, tag)
        links = [link_to(path, digest) for path in paths]
        await self._alone(name, tag, lambda: write_all(self._driver, links))

    async def drop(self, name: RepositoryName, tag: Tag, digest: Digest, orphaned: bool) -> None:
        """Remove a tag, unless it names another manifest by now; an `orphaned` one, unless its manifest is there again.

        Between the look and the removal no request of this process can move the tag.
        """
        await self._alone(name, tag, lambda: self._drop(name, tag, digest, orphaned))

    async def _drop(self, name: RepositoryName, tag: Tag, digest: Digest, orphaned: bool) -> None:
        if await read_link(self._driver, layout.tag_current(name, tag)) != digest:
            return
        if orphaned and await is_revision(self._driver, name, digest):
            return
        await remove_if_there(self._driver, layout.tag(name, tag))

    async def _alone(self, name: RepositoryName, tag: Tag, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something with a tag while nobody else in this process does."""
        await self._locks[hash((name, tag)) % _LOCKS].run(lambda: start(action()))

    async def delete(self, name: RepositoryName, tag: Tag) -> None:
        """Remove a tag with its history; the manifest stays. ManifestUnknown or NameUnknown."""
        await self._resolve(self._driver, name, tag)
        await remove_if_there(self._driver, layout.tag(name, tag))

    async def names(self, name: RepositoryName, after: str = "", limit: int | None = None) -> list[str]:
        """Up to `limit` tags greater than `after`, in byte order; NameUnknown.

        A directory in which no tag points anywhere (a crash may leave one) is no tag.
        """
        if ILooksBelow.providedBy(self._driver):
            return await self._names_at_once(self._driver, name, after, limit)
        children = await entries(self._driver, layout.tags(name))
        if not children:
            await self._repositories.require(name)
        found: list[str] = []
        for child in sorted(child for child, directory in children if directory and child > after):
            if limit is not None and len(found) >= limit:
                break
            if (tag := _as_tag(child)) and await read_link(self._cached, layout.tag_current(name, tag)):
                found.append(child)
        return found

    async def _names_at_once(
        self, driver: ILooksBelow, name: RepositoryName, after: str, limit: int | None
    ) -> list[str]:
        """The same without a look into each link."""
        found: list[str] = []
        wanted = sys.maxsize if limit is None else limit
        while len(found) < wanted:
            count = wanted - len(found)
            more = await driver.children_with(layout.tags(name), layout.CURRENT_LINK, after, count)
            found += filter(_as_tag, more)
            if len(more) < count:
                break
            after = more[-1]
        if not found:
            await self._repositories.require(name)
        return found

    async def pointing_at(self, name: RepositoryName, digest: Digest) -> list[Tag]:
        """The tags that name this manifest now."""
        children = await entries(self._driver, layout.tags(name))
        tags = [tag for child, directory in children if directory and (tag := _as_tag(child))]
        return [tag for tag in tags if await read_link(self._driver, layout.tag_current(name, tag)) == digest]


def _as_tag(text: str) -> Tag | None:
    """Other software may have left entries that are no tags."""
    try:
        return Tag.parse(text)
    except TagInvalid:
        return None
