"""The list of a repository's tags."""

from __future__ import annotations

from klein import Klein

from txregistry.model.names import RepositoryName
from txregistry.web.messages import answer_json
from txregistry.web.request import RegistryRequest
from txregistry.web.v2.base import Routes, route
from txregistry.web.v2.paging import paged


class Tags(Routes):
    """`/v2/<name>/tags/list`."""

    def register(self, app: Klein) -> None:
        """Add the list of tags."""
        route(app, "/v2/<path:name>/tags/list", ["GET", "HEAD"], self.list)

    async def list(self, request: RegistryRequest, name: str) -> bytes:
        """List tags in byte order (end-8a, end-8b)."""
        repository = RepositoryName.parse(name)

        async def names(after: str, limit: int | None) -> list[str]:
            return await self.registry.tags.names(repository, after, limit)

        tags = await paged(request, self.location(f"/v2/{repository}/tags/list"), names)
        return answer_json(request, 200, {"name": str(repository), "tags": tags})
