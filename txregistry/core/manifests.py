"""Manifests: small documents that name blobs or other manifests, stored byte for byte as they came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from twisted.logger import Logger

from txregistry.concurrency import Shields
from txregistry.core.blobs import Blobs
from txregistry.core.links import cached, is_revision, link_now, read_link, remove_if_there, write_link
from txregistry.core.policy import Policy
from txregistry.core.proofs import Proof, proving
from txregistry.core.referrers import Referrers
from txregistry.core.repositories import Repositories
from txregistry.core.tags import Tags
from txregistry.errors import (
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NotFound,
    TooLarge,
    Unavailable,
)
from txregistry.interfaces import IPool, IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.manifest import KNOWN_TYPES, Manifest, media_type_of, parse_manifest
from txregistry.model.names import Reference, RepositoryName, Tag
from txregistry.storage import layout

#: A blob without meaning. Linked where a repository has no blob of its own, as distribution's collector passes over
#: a repository without `_layers`, and then deletes what it holds.
_EMPTY_JSON = b"{}"
#: Largest manifest that is read and looked through on the reactor's thread, in bytes.
_AT_ONCE = 256 * 1024
#: How often a manifest is linked again that somebody deletes at the same moment.
_ATTEMPTS = 5
#: How many missing blobs and manifests a refusal names; behind the last of them nobody looks for more.
_NAMED = 100

T = TypeVar("T")

_log = Logger()


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it is served: its digest, its media type without parameters, its bytes."""

    digest: Digest
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push made: the manifest's digest, its subject if it has one."""

    digest: Digest
    subject: Digest | None


class Manifests:
    """The manifests of all repositories."""

    def __init__(
        self,
        driver: IStorageDriver,
        policy: Policy,
        shields: Shields,
        repositories: Repositories,
        blobs: Blobs,
        tags: Tags,
        referrers: Referrers,
        pool: IPool | None = None,
    ) -> None:
        self._driver = driver
        self._cached = cached(driver)
        self._policy = policy
        self._shields = shields
        self._repositories = repositories
        self._blobs = blobs
        self._tags = tags
        self._referrers = referrers
        self._pool = pool

    async def get(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """A manifest by tag or digest; ManifestUnknown or NameUnknown."""
        digest = await self._tags.resolve(name, reference) if isinstance(reference, Tag) else reference
        stored = await self._stored_as(name, digest)
        try:
            if stored is None:
                raise NotFound(str(digest))
            data, _ = await self._cached.read(layout.blob_data(stored), self._policy.manifest_limit)
        except NotFound:
            raise await self._unknown(name, reference) from None
        except TooLarge:
            _log.warn("{name}: {digest} is larger than a manifest may be", name=name, digest=digest)
            raise await self._unknown(name, reference) from None
        media_type, wrong = None, None
        try:
            media_type = await self._work(data, media_type_of, data)
        except ManifestInvalid as error:
            wrong = error
        if media_type not in KNOWN_TYPES and stored == digest:
            media_type = await self._foreign_type(name, digest) or media_type
        if media_type is None:
            _log.warn("{name}: {digest} is not a manifest: {error}", name=name, digest=digest, error=wrong)
            raise await self._unknown(name, reference)
        return StoredManifest(digest, media_type, data)

    def get_now(self, name: RepositoryName, reference: Reference) -> StoredManifest | None:
        """The same at once, of what is small and lies where this server puts it; None leaves it to `get`."""
        driver = proving(self._driver)
        if driver is None:
            return None
        digest = reference if isinstance(reference, Digest) else link_now(driver, layout.tag_current(name, reference))
        if digest is None or not driver.exists_now(layout.revision_link(name, digest)):
            return None
        data = driver.read_now(layout.blob_data(digest), min(_AT_ONCE, self._policy.manifest_limit))
        if data is None:
            return None
        try:
            media_type = media_type_of(data)
        except ManifestInvalid:
            return None
        # Any other type may be written beside the manifest.
        return StoredManifest(digest, media_type, data) if media_type in KNOWN_TYPES else None

    def proof(self, name: RepositoryName, reference: Reference, found: StoredManifest) -> Proof | None:
        """That a manifest is what this reference names still; None if the driver cannot tell, or not of this one."""
        driver = proving(self._driver)
        if driver is None or found.media_type not in KNOWN_TYPES:
            return None
        # The bytes of what is linked are not looked for: nobody takes them away before the link.
        there = (layout.revision_link(name, found.digest),)
        if isinstance(reference, Digest):
            return Proof(driver, there=there)
        return Proof(driver, ((layout.tag_current(name, reference), str(found.digest).encode("ascii")),), there)

    async def put(
        self,
        name: RepositoryName,
        reference: Reference,
        data: bytes,
        content_type: str | None,
        extra_tags: Sequence[Tag] = (),
    ) -> Pushed:
        """Store a manifest and point tags at it, all of it durable when it returns.

        ManifestInvalid, ManifestBlobUnknown, DigestInvalid; nothing is stored then.
        """
        unknown_types = self._policy.accept_unknown_media_types
        manifest = await self._work(data, lambda: parse_manifest(data, content_type, unknown_types=unknown_types))
        if isinstance(reference, Digest):
            digest = reference
            if not await self._work(data, digest.matches, data):
                found = str(Digest.of(data, digest.algorithm))
                raise DigestInvalid({"digest": str(digest), "found": found, "reason": "not that of the manifest sent"})
            tags = list(extra_tags)
        else:
            digest = await self._work(data, Digest.of, data)
            tags = [reference, *extra_tags]
        if not self._policy.accept_missing_blobs:
            await self._require_parts(name, manifest)
        await self._shields.shield(self._write(name, digest, manifest, tags))
        return Pushed(digest, manifest.subject)

    async def delete(self, name: RepositoryName, digest: Digest) -> None:
        """Remove a manifest with all tags that name it; ManifestUnknown or NameUnknown."""
        if not await is_revision(self._driver, name, digest):
            raise await self._unknown(name, digest)
        await self._shields.shield(self._unlink(name, digest))

    async def _work(self, data: bytes, function: Callable[..., T], *args: object) -> T:
        """The result of a function that works its way through `data`: in a thread if that takes long."""
        if self._pool is None or len(data) <= _AT_ONCE:
            return function(*args)
        return cast(T, await self._pool.run(function, *args))

    async def _write(self, name: RepositoryName, digest: Digest, manifest: Manifest, tags: Sequence[Tag]) -> None:
        """Store and tag; again if a delete of this digest ran in between and removed what was just linked."""
        for _ in range(_ATTEMPTS):
            await self._store(name, digest, manifest)
            for tag in tags:
                await self._tags.point(name, tag, digest)
            if await self._stands(name, digest, tags):
                return
        raise Unavailable(layout.revision_link(name, digest), "deleted by somebody else, again and again")

    async def _unlink(self, name: RepositoryName, digest: Digest) -> None:
        """Tags first: a crash in between leaves no tag that points nowhere.

        Then those that a push pointed here meanwhile, which has ended or will store its manifest again; if it has done
        so already, the manifest and its tags are its own.
        """
        await self._untag(name, digest, orphaned=False)
        for path in (layout.revision_link(name, digest), layout.foreign_revision(name, digest)):
            await remove_if_there(self._driver, path)
        await self._untag(name, digest, orphaned=True)

    async def _untag(self, name: RepositoryName, digest: Digest, orphaned: bool) -> None:
        for tag in await self._tags.pointing_at(name, digest):
            await self._tags.drop(name, tag, digest, orphaned)

    async def _require_parts(self, name: RepositoryName, manifest: Manifest) -> None:
        blobs = list(dict.fromkeys(descriptor.digest for descriptor in manifest.blobs))
        missing = await self._blobs.missing(name, blobs, _NAMED)
        for child in dict.fromkeys(descriptor.digest for descriptor in manifest.children):
            if len(missing) >= _NAMED:
                break
            if await is_revision(self._driver, name, child):
                await self._settle(name, child)
            else:
                missing.append(child)
        if missing:
            raise ManifestBlobUnknown([str(digest) for digest in missing])

    async def _settle(self, name: RepositoryName, digest: Digest) -> None:
        """An index is acknowledged with its children: they have to survive with it."""
        for path in (layout.blob_data(digest), layout.revision_link(name, digest)):
            try:
                await self._driver.settle(path)
            except NotFound:
                continue

    async def _store(self, name: RepositoryName, digest: Digest, manifest: Manifest) -> None:
        """Bytes, referrers, revision: whatever comes later rests on what came before."""
        await self._driver.put(layout.blob_data(digest), manifest.data)
        await self._referrers.add(name, digest, manifest)
        await self._ensure_layers(name)
        if manifest.distribution_readable:
            await write_link(self._driver, layout.revision_link(name, digest), digest)
        else:
            await self._driver.put(layout.foreign_revision(name, digest), manifest.media_type.encode("utf-8"))

    async def _ensure_layers(self, name: RepositoryName) -> None:
        page = await self._driver.list(layout.layers(name), None, 1)
        if not page.entries:
            digest = Digest.of(_EMPTY_JSON)
            await self._driver.put(layout.blob_data(digest), _EMPTY_JSON)
            await self._blobs.link(name, digest)

    async def _stands(self, name: RepositoryName, digest: Digest, tags: Sequence[Tag]) -> bool:
        """Whether the manifest is still linked; a tag may have been moved on by now, but not be gone."""
        if not await is_revision(self._driver, name, digest):
            return False
        for tag in tags:
            if await read_link(self._driver, layout.tag_current(name, tag)) is None:
                return False
        return True

    async def _stored_as(self, name: RepositoryName, digest: Digest) -> Digest | None:
        """The digest under which a revision's bytes lie; a link may name another than its own."""
        target = await read_link(self._cached, layout.revision_link(name, digest))
        if target is None and await self._foreign_type(name, digest):
            target = digest
        if target is None and not (await self._driver.list(layout.revisions(name, digest.algorithm), None, 1)).entries:
            # Stores written by distribution before 2.1 have no revisions, but manifests among the layers. Where there
            # are revisions, what is none has been deleted, though its bytes may be a blob as well.
            target = await read_link(self._cached, layout.layer_link(name, digest))
        return target

    async def _foreign_type(self, name: RepositoryName, digest: Digest) -> str | None:
        try:
            data, _ = await self._driver.read(layout.foreign_revision(name, digest), 1024)
        except NotFound:
            return None
        return data.decode("utf-8")

    async def _unknown(self, name: RepositoryName, reference: Reference) -> ManifestUnknown:
        await self._repositories.require(name)
        return ManifestUnknown({"name": str(name), "reference": str(reference)})
