"""Blobs: bytes stored once under their digest, and linked into each repository that has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from txregistry.core.links import cached, link_now, read_link, remove_if_there, write_link
from txregistry.core.proofs import Proof, proving
from txregistry.core.repositories import Repositories
from txregistry.errors import BlobUnknown, NotFound
from txregistry.interfaces import IReader, IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.storage import layout


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob of a repository: the digest it was asked for, the digest it is stored under, its size in bytes."""

    digest: Digest
    stored: Digest
    size: int

    @property
    def path(self) -> str:
        """Where its bytes lie in the store."""
        return layout.blob_data(self.stored)


class Blobs:
    """The blobs of all repositories."""

    def __init__(self, driver: IStorageDriver, repositories: Repositories) -> None:
        self._driver = driver
        self._cached = cached(driver)
        self._repositories = repositories

    async def find(self, name: RepositoryName, digest: Digest) -> BlobInfo | None:
        """A blob of this repository, or None.

        A link may name another digest than its own: distribution stores a sha512 blob under its sha256.
        """
        return await self._find(self._driver, name, digest)

    async def _find(self, driver: IStorageDriver, name: RepositoryName, digest: Digest) -> BlobInfo | None:
        target = await read_link(driver, layout.layer_link(name, digest))
        if target is None:
            return None
        try:
            stat = await self._driver.stat(layout.blob_data(target))
        except NotFound:
            return None
        return None if stat.is_directory else BlobInfo(digest, target, stat.size)

    async def stat(self, name: RepositoryName, digest: Digest) -> BlobInfo:
        """A blob of this repository; BlobUnknown or NameUnknown."""
        info = await self._find(self._cached, name, digest)
        if info is None:
            raise await self._unknown(name, digest)
        return info

    def proof(self, name: RepositoryName, digest: Digest) -> Proof | None:
        """That the repository has a blob still, which it has; None if the driver cannot tell.

        It never holds for one that is stored under another digest than its own.
        """
        driver = proving(self._driver)
        there = (layout.layer_link(name, digest), layout.blob_data(digest))
        return None if driver is None else Proof(driver, there=there)

    def read_now(self, name: RepositoryName, digest: Digest, limit: int) -> bytes | None:
        """A blob of this repository at once, if that is possible and it is not larger; None leaves it to `open`."""
        driver = proving(self._driver)
        if driver is None or link_now(driver, layout.layer_link(name, digest)) != digest:
            return None
        return driver.read_now(layout.blob_data(digest), limit)

    async def open(self, name: RepositoryName, digest: Digest) -> IReader:
        """A blob's bytes, for the caller to close; BlobUnknown or NameUnknown."""
        target = await read_link(self._cached, layout.layer_link(name, digest))
        if target is None:
            raise await self._unknown(name, digest)
        try:
            return await self._driver.open(layout.blob_data(target))
        except NotFound:
            raise await self._unknown(name, digest) from None

    async def link(self, name: RepositoryName, digest: Digest) -> None:
        """Make a stored blob part of a repository."""
        await write_link(self._driver, layout.layer_link(name, digest), digest)

    async def mount(self, name: RepositoryName, source: RepositoryName | None, digest: Digest) -> bool:
        """Link a blob that another repository has; whether it could be done.

        Without a source any stored blob will do.
        """
        if source is not None:
            info = await self.find(source, digest)
            if info is None:
                return False
            stored = info.stored
        else:
            stored = digest
        try:
            await self._driver.settle(layout.blob_data(stored))
        except NotFound:
            return False
        await write_link(self._driver, layout.layer_link(name, digest), stored)
        return True

    async def delete(self, name: RepositoryName, digest: Digest) -> None:
        """Take a blob out of this repository; its bytes stay for others. BlobUnknown or NameUnknown."""
        if await self.find(name, digest) is None:
            raise await self._unknown(name, digest)
        await remove_if_there(self._driver, layout.layer_link(name, digest))

    async def missing(
        self, name: RepositoryName, digests: Iterable[Digest], limit: int | None = None
    ) -> list[Digest]:
        """Those of the blobs that the repository lacks; the others are made sure to survive a power cut.

        Behind the `limit`th that is missing nobody looks for more.
        """
        lacking: list[Digest] = []
        for digest in digests:
            if limit is not None and len(lacking) >= limit:
                break
            if not await self._settle(name, digest):
                lacking.append(digest)
        return lacking

    async def _settle(self, name: RepositoryName, digest: Digest) -> bool:
        """Make a blob's bytes and link durable; whether it is there."""
        info = await self.find(name, digest)
        if info is None:
            return False
        try:
            await self._driver.settle(layout.blob_data(info.stored))
            await self._driver.settle(layout.layer_link(name, digest))
        except NotFound:  # deleted since it was found
            return False
        return True

    async def _unknown(self, name: RepositoryName, digest: Digest) -> BlobUnknown:
        await self._repositories.require(name)
        return BlobUnknown({"name": str(name), "digest": str(digest)})
