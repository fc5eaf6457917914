"""Referrers: what is known about a manifest, signatures and SBOMs among it."""

from __future__ import annotations

from klein import Klein

from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.model.paging import next_link
from txregistry.web.messages import answer_json, query
from txregistry.web.request import RegistryRequest
from txregistry.web.v2.base import Routes, route

_INDEX = "application/vnd.oci.image.index.v1+json"
#: A page ends before it outgrows what clients take as a manifest.
_PAGE_BYTES = 3 * 1024 * 1024


class Referrers(Routes):
    """`/v2/<name>/referrers/<digest>`."""

    def register(self, app: Klein) -> None:
        """Add the referrers."""
        route(app, "/v2/<path:name>/referrers/<digest>", ["GET", "HEAD"], self.list)

    async def list(self, request: RegistryRequest, name: str, digest: str) -> bytes:
        """List the manifests whose subject is this digest, as an image index (end-12a, end-12b)."""
        repository = RepositoryName.parse(name)
        subject = Digest.parse(digest)
        filters: list[tuple[str, str]] = []
        artifact_type = query(request, "artifactType")
        if artifact_type is not None:
            # A media type has no spaces: one is a plus that a client did not encode.
            artifact_type = artifact_type.replace(" ", "+")
            request.setHeader("OCI-Filters-Applied", "artifactType")
            filters.append(("artifactType", artifact_type))
        last = query(request, "last") or ""
        page, more = await self.registry.referrers.page(repository, subject, _PAGE_BYTES, artifact_type, last)
        if more:
            url = self.location(f"/v2/{repository}/referrers/{subject}")
            request.setHeader("Link", next_link(url, [*filters, ("last", page[-1]["digest"])]))
        body = answer_json(request, 200, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": page})
        request.setHeader("Content-Type", _INDEX)
        return body
