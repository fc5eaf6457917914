"""Manifests: push, pull, delete, by tag and by digest."""

from __future__ import annotations

from collections.abc import Awaitable

from klein import Klein

from txregistry.core.manifests import StoredManifest
from txregistry.core.registry import Registry
from txregistry.errors import BodyTooLarge, DigestInvalid, ManifestTooLarge
from txregistry.model.conditional import entity_tag, none_match
from txregistry.model.digest import Digest
from txregistry.model.names import Reference, RepositoryName, Tag, parse_reference
from txregistry.web.budget import Budget
from txregistry.web.hot import keep
from txregistry.web.messages import header, nothing, queries
from txregistry.web.request import RegistryRequest
from txregistry.web.v2.base import Routes, route


class Manifests(Routes):
    """`/v2/<name>/manifests/<tag or digest>`."""

    def __init__(self, registry: Registry, external_url: str) -> None:
        super().__init__(registry, external_url)
        self._bodies = Budget()

    def register(self, app: Klein) -> None:
        """Add the routes of manifests."""
        rule = "/v2/<path:name>/manifests/<reference>"
        route(app, rule, ["GET", "HEAD"], self.get)
        route(app, rule, ["PUT"], self.put)
        route(app, rule, ["DELETE"], self.delete)

    def get(self, request: RegistryRequest, name: str, reference: str) -> bytes | Awaitable[bytes]:
        """Send a manifest as it was pushed (end-3).

        `Accept` never changes the answer: a pull by digest must not, and a client that cannot use what a tag names
        says so better than a 404 would.
        """
        repository, wanted = RepositoryName.parse(name), parse_reference(reference)
        manifest = self.registry.manifests.get_now(repository, wanted)
        if manifest is None:
            return self._get(request, repository, wanted)
        return self._answer(request, repository, wanted, manifest)

    async def _get(self, request: RegistryRequest, name: RepositoryName, wanted: Reference) -> bytes:
        """The same of one that has to be waited for."""
        return self._answer(request, name, wanted, await self.registry.manifests.get(name, wanted))

    def _answer(
        self, request: RegistryRequest, name: RepositoryName, wanted: Reference, manifest: StoredManifest
    ) -> bytes:
        request.setHeader("Docker-Content-Digest", str(manifest.digest))
        request.setHeader("ETag", entity_tag(manifest.digest))
        if none_match(header(request, "If-None-Match"), manifest.digest):
            return nothing(request, 304)
        request.setHeader("Content-Type", manifest.media_type)
        request.setHeader("Content-Length", str(len(manifest.data)))
        keep(request, self.registry.manifests.proof(name, wanted, manifest), manifest.data)
        return manifest.data

    async def put(self, request: RegistryRequest, name: str, reference: str) -> bytes:
        """Take a manifest, and point a tag or `?tag=`s at it (end-7a, end-7b)."""
        repository = RepositoryName.parse(name)
        target = parse_reference(reference)
        tags = [Tag.parse(text) for text in queries(request, "tag")]
        if tags and isinstance(target, Tag):
            raise DigestInvalid("?tag= goes with a manifest that is pushed by its digest")
        limit = self.registry.policy.manifest_limit
        content_type = header(request, "Content-Type")
        try:
            async with self._bodies.body(request, limit) as data:
                pushed = await self.registry.manifests.put(repository, target, data, content_type, tags)
        except BodyTooLarge:
            raise ManifestTooLarge(f"at most {limit} bytes") from None
        request.setHeader("Location", self.location(f"/v2/{repository}/manifests/{pushed.digest}"))
        request.setHeader("Docker-Content-Digest", str(pushed.digest))
        if pushed.subject is not None:
            request.setHeader("OCI-Subject", str(pushed.subject))
        for tag in tags:
            request.responseHeaders.addRawHeader("OCI-Tag", str(tag))
        return nothing(request, 201)

    async def delete(self, request: RegistryRequest, name: str, reference: str) -> bytes:
        """Remove a tag alone, or a manifest with all its tags (end-9)."""
        self.require_delete()
        repository = RepositoryName.parse(name)
        target = parse_reference(reference)
        if isinstance(target, Digest):
            await self.registry.manifests.delete(repository, target)
        else:
            await self.registry.tags.delete(repository, target)
        return nothing(request, 202)
