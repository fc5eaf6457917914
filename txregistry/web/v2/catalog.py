"""The list of repositories."""

from __future__ import annotations

from klein import Klein

from txregistry.web.messages import answer_json
from txregistry.web.request import RegistryRequest
from txregistry.web.v2.base import Routes, route
from txregistry.web.v2.paging import paged

#: Names in a page when the client does not ask for a number.
_DEFAULT = 1000


class Catalog(Routes):
    """`/v2/_catalog`; not in the specification, but every client that lists repositories asks it."""

    def register(self, app: Klein) -> None:
        """Add the catalog."""
        route(app, "/v2/_catalog", ["GET", "HEAD"], self.list)

    async def list(self, request: RegistryRequest) -> bytes:
        """List repositories in byte order of their whole names."""
        names = await paged(request, self.location("/v2/_catalog"), self.registry.repositories.names, _DEFAULT)
        return answer_json(request, 200, {"repositories": names})
