"""Referrers: which manifests of a repository have a given subject.

The answer is derived and kept under `_txregistry/index/`: one small object for each manifest with a subject, written
before the manifest's revision link. Another server may have written to the same store, or the index may have been
deleted, so each answer first looks at revisions that the repository's record does not name yet. Entries are never
removed with their manifest; one without a revision is passed over, and speaks again when the manifest is pushed again.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import Logger

from txregistry.core.links import entries, is_revision
from txregistry.errors import ManifestInvalid, NoSpace, NotFound, ReadOnly, TooLarge, Unavailable
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import ALGORITHMS, Digest
from txregistry.model.manifest import Manifest, media_type_of, parse_manifest
from txregistry.model.names import RepositoryName
from txregistry.storage import layout

#: An entry repeats the annotations of a manifest, and so is never larger than one.
_ENTRY_LIMIT = 8 * 1024 * 1024
#: A record holds 72 bytes for each manifest of a repository.
_RECORD_LIMIT = 256 * 1024 * 1024

_log = Logger()

Descriptor = dict[str, Any]


class Referrers:
    """The referrers of all repositories."""

    def __init__(self, driver: IStorageDriver, manifest_limit: int) -> None:
        self._driver = driver
        self._manifest_limit = manifest_limit

    async def add(self, name: RepositoryName, digest: Digest, manifest: Manifest) -> None:
        """Note a manifest with a subject; to be done before its revision link is written."""
        if manifest.subject is not None:
            descriptor = json.dumps(manifest.referrer_descriptor(digest)).encode()
            await self._driver.put(layout.referrer(name, manifest.subject, digest), descriptor)

    async def page(
        self, name: RepositoryName, subject: Digest, room: int, artifact_type: str | None = None, after: str = ""
    ) -> tuple[list[Descriptor], bool]:
        """Descriptors of the manifests with this subject and artifact type, by digest, and whether there are more.

        They begin behind the digest `after` and have `room` bytes of JSON, the first as many as it needs; no more are
        read, since each may be as large as a manifest. None in an unknown repository.
        """
        revisions = await self._revisions(name)
        await self._index(name, revisions)
        found: list[Descriptor] = []
        for digest in await self._entries(name, subject, after):
            if digest not in revisions or not await is_revision(self._driver, name, digest):
                continue
            data = await self._entry(name, subject, digest)
            descriptor: Descriptor = json.loads(data)
            if artifact_type is not None and descriptor.get("artifactType") != artifact_type:
                continue
            room -= len(data)
            if found and room < 0:
                return found, True
            found.append(descriptor)
        return found, False

    async def _entries(self, name: RepositoryName, subject: Digest, after: str) -> list[Digest]:
        children = await entries(self._driver, layout.referrers(name, subject))
        digests = sorted(Digest.parse(child.replace("-", ":", 1)) for child, _ in children)
        return [digest for digest in digests if str(digest) > after]

    async def _entry(self, name: RepositoryName, subject: Digest, digest: Digest) -> bytes:
        path = layout.referrer(name, subject, digest)
        try:
            return (await self._driver.read(path, _ENTRY_LIMIT))[0]
        except NotFound:
            raise Unavailable(path, "the index was removed just now; the next request makes it again") from None

    async def _revisions(self, name: RepositoryName) -> set[Digest]:
        """All that may be revisions: on disk the directory of a deleted one stays, empty."""
        found = set()
        for algorithm, length in ALGORITHMS.items():
            for directory in (layout.revisions(name, algorithm), layout.foreign_revisions(name, algorithm)):
                for child, _ in await entries(self._driver, directory):
                    if len(child) == length:
                        found.add(Digest(algorithm, child))
        return found

    async def _index(self, name: RepositoryName, revisions: set[Digest]) -> None:
        """Bring the entries up to date with the revisions that the record lacks."""
        path = layout.referrers_record(name)
        try:
            data, _ = await self._driver.read(path, _RECORD_LIMIT)
            known = {Digest.parse(line) for line in data.decode("ascii").split()}
        except NotFound:
            known = set()
        if revisions <= known:
            return
        looked_at = {digest for digest in revisions - known if await self._index_one(name, digest)}
        lines = "\n".join(sorted(str(digest) for digest in (known & revisions) | looked_at))
        try:
            await self._driver.put(path, lines.encode("ascii"))
        except (NoSpace, ReadOnly) as error:
            # The answer needs no record: the next one looks at the same manifests again.
            _log.warn("{name}: what was indexed could not be noted: {error}", name=name, error=error)

    async def _index_one(self, name: RepositoryName, digest: Digest) -> bool:
        """Make the entry of one manifest if it needs one; whether the manifest was there to be looked at."""
        try:
            data, _ = await self._driver.read(layout.blob_data(digest), self._manifest_limit)
            manifest = parse_manifest(data, media_type_of(data), unknown_types=True)
            if manifest.subject is not None and not await self._has_entry(name, manifest.subject, digest):
                await self.add(name, digest, manifest)
        except NotFound:
            return False
        except (ManifestInvalid, TooLarge) as error:
            _log.warn("{name}: {digest} cannot be a referrer: {error}", name=name, digest=digest, error=error)
        return True

    async def _has_entry(self, name: RepositoryName, subject: Digest, digest: Digest) -> bool:
        """Whether the entry is there, made durable since the record is about to rest on it."""
        try:
            await self._driver.settle(layout.referrer(name, subject, digest))
        except NotFound:
            return False
        return True
