"""Repositories: what is known of the client that pushed one, and who may see it."""

from __future__ import annotations

from klein import Klein

from txregistry.errors import V1Error
from txregistry.model.v1.names import V1Repository
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, read_json, route, value


class Repositories(Routes):
    """`/v1/repositories/<repository>/json` and `/properties`."""

    def register(self, app: Klein) -> None:
        """Add the routes."""
        base = "/v1/repositories/<path:repository>"
        route(app, f"{base}/json", {"GET": self.client})
        route(app, f"{base}/properties", {"GET": self.properties, "PUT": self.set_properties})

    async def client(self, request: RegistryRequest, repository: str) -> bytes:
        """Tell with which client `latest` was set."""
        return value(request, await self.v1.repositories.client(V1Repository.parse(repository)))

    async def properties(self, request: RegistryRequest, repository: str) -> bytes:
        """Tell whether a repository is private."""
        private = await self.v1.repositories.is_private(V1Repository.parse(repository))
        return value(request, {"access": "private" if private else "public"})

    async def set_properties(self, request: RegistryRequest, repository: str) -> bytes:
        """Make a repository private or public; any other word changes nothing."""
        parsed = V1Repository.parse(repository)
        document = await read_json(request, "Invalid data")
        if not isinstance(document, dict) or "access" not in document:
            raise V1Error(message="Invalid data")
        access = document["access"]
        if access in ("private", "public"):
            await self.v1.repositories.set_private(parsed, access == "private")
        return value(request, True)
