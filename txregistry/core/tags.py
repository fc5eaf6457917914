"""Tags: names that can be moved from one manifest to another."""

from __future__ import annotations

from txregistry.core.links import entries, read_link, write_link
from txregistry.core.repositories import Repositories
from txregistry.errors import ManifestUnknown, TagInvalid
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName, Tag
from txregistry.storage import layout


class Tags:
    """The tags of all repositories."""

    def __init__(self, driver: IStorageDriver, repositories: Repositories) -> None:
        self._driver = driver
        self._repositories = repositories

    async def resolve(self, name: RepositoryName, tag: Tag) -> Digest:
        """The manifest that a tag names now; ManifestUnknown or NameUnknown."""
        digest = await read_link(self._driver, layout.tag_current(name, tag))
        if digest is None:
            await self._repositories.require(name)
            raise ManifestUnknown({"name": str(name), "tag": str(tag)})
        return digest

    async def point(self, name: RepositoryName, tag: Tag, digest: Digest) -> None:
        """Make a tag, or move it. Its history first: a crash in between leaves the tag as it was."""
        await write_link(self._driver, layout.tag_history(name, tag, digest), digest)
        await write_link(self._driver, layout.tag_current(name, tag), digest)

    async def delete(self, name: RepositoryName, tag: Tag) -> None:
        """Remove a tag with its history; the manifest stays. ManifestUnknown or NameUnknown."""
        await self.resolve(name, tag)
        await self._driver.remove(layout.tag(name, tag))

    async def names(self, name: RepositoryName, after: str = "", limit: int | None = None) -> list[str]:
        """Up to `limit` tags greater than `after`, in byte order; NameUnknown.

        A directory in which no tag points anywhere (a crash may leave one) is no tag.
        """
        children = await entries(self._driver, layout.tags(name))
        if not children:
            await self._repositories.require(name)
        found: list[str] = []
        for child in sorted(child for child, directory in children if directory and child > after):
            if limit is not None and len(found) >= limit:
                break
            if (tag := _as_tag(child)) and await read_link(self._driver, layout.tag_current(name, tag)):
                found.append(child)
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
