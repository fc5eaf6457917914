"""Tags of a repository."""

from __future__ import annotations

from klein import Klein

from txregistry.model.v1.names import V1Repository, V1Tag
from txregistry.model.v1.repository import parse_tag_value
from txregistry.web.hot import keep
from txregistry.web.messages import header
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import BODY_LIMIT, Routes, route, value


class Tags(Routes):
    """`/v1/repositories/<repository>/tags` and each tag below it."""

    def register(self, app: Klein) -> None:
        """Add the routes of tags."""
        base = "/v1/repositories/<path:repository>/tags"
        route(app, base, {"GET": self.list, "DELETE": self.delete_all})
        route(app, f"{base}/<tag>", {"GET": self.get, "PUT": self.put, "DELETE": self.delete})
        route(app, f"{base}/<tag>/json", {"GET": self.client})

    async def list(self, request: RegistryRequest, repository: str) -> bytes:
        """List the tags with the images that they name."""
        return value(request, await self.v1.repositories.tags(V1Repository.parse(repository)))

    async def delete_all(self, request: RegistryRequest, repository: str) -> bytes:
        """Remove the repository, as old servers did here; images stay."""
        await self.v1.repositories.delete(V1Repository.parse(repository))
        return value(request, True)

    async def get(self, request: RegistryRequest, repository: str, tag: str) -> bytes:
        """Tell which image a tag names."""
        parsed, named = V1Repository.parse(repository), V1Tag.parse(tag)
        image = await self.v1.repositories.tag(parsed, named)
        body = value(request, image.text)
        keep(request, self.v1.repositories.proof(parsed, named, image), body, v1=True)
        return body

    async def put(self, request: RegistryRequest, repository: str, tag: str) -> bytes:
        """Let a tag name an image."""
        parsed, new = V1Repository.parse(repository), V1Tag.parse_new(tag)
        image = parse_tag_value(await request.body.read(BODY_LIMIT))
        await self.v1.repositories.set_tag(parsed, new, image, header(request, "User-Agent") or "")
        return value(request, True)

    async def delete(self, request: RegistryRequest, repository: str, tag: str) -> bytes:
        """Remove a tag; one that is not there is as good as removed."""
        await self.v1.repositories.delete_tag(V1Repository.parse(repository), V1Tag.parse(tag))
        return value(request, True)

    async def client(self, request: RegistryRequest, repository: str, tag: str) -> bytes:
        """Tell with which client a tag was set."""
        return value(request, await self.v1.repositories.client(V1Repository.parse(repository), V1Tag.parse(tag)))
