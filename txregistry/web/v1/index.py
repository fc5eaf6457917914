"""The part of an index, played by a registry that has none: it keeps lists of images and hands out tokens."""

from __future__ import annotations

import secrets
import string

from klein import Klein
from twisted.internet.interfaces import IAddress

from txregistry.model.v1.names import V1Repository
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import BODY_LIMIT, Routes, header, nothing, raw, route, value

_ALPHABET = string.ascii_uppercase + string.digits


class Index(Routes):
    """`/v1/repositories/<repository>` and the list of its images."""

    def register(self, app: Klein) -> None:
        """Add the routes of the index."""
        base = "/v1/repositories/<path:repository>"
        for rule in (base, f"{base}/"):
            route(app, rule, {"PUT": self.put, "DELETE": self.delete})
        route(app, f"{base}/images", {"GET": self.images, "PUT": self.put_images, "DELETE": self.delete_images})
        route(app, f"{base}/auth", {"PUT": self.authorize})

    async def put(self, request: RegistryRequest, repository: str) -> bytes:
        """Take the list of images that a client is about to push, and let it push them."""
        await self._take(request, repository)
        return value(request, "")

    async def put_images(self, request: RegistryRequest, repository: str) -> bytes:
        """Take the list of images that a client has pushed."""
        await self._take(request, repository)
        return nothing(request, 204)

    async def _take(self, request: RegistryRequest, repository: str) -> None:
        parsed = V1Repository.parse(repository)
        await self.v1.repositories.push_images(parsed, await request.body.read(BODY_LIMIT))
        self._allow(request, parsed, "write")

    async def images(self, request: RegistryRequest, repository: str) -> bytes:
        """Send the list of images, and let the client pull them."""
        parsed = V1Repository.parse(repository)
        data = await self.v1.repositories.images(parsed)
        self._allow(request, parsed, "read")
        return raw(request, data)

    def delete_images(self, request: RegistryRequest, repository: str) -> bytes:
        """Let the client delete the repository; nothing changes here."""
        self._allow(request, V1Repository.parse(repository), "delete")
        return nothing(request, 204)

    async def delete(self, request: RegistryRequest, repository: str) -> bytes:
        """Remove a repository with its tags; images stay."""
        await self.v1.repositories.delete(V1Repository.parse(repository))
        return value(request, True)

    def authorize(self, request: RegistryRequest, repository: str) -> bytes:
        """Say that whatever was asked is allowed."""
        V1Repository.parse(repository)
        return value(request, "OK")

    def _allow(self, request: RegistryRequest, repository: V1Repository, access: str) -> None:
        """Tell where the registry is and hand out a token for it, without which docker does not go on."""
        signature = "".join(secrets.choice(_ALPHABET) for _ in range(16))
        token = f'Token signature={signature},repository="{repository}",access={access}'
        request.setHeader("X-Docker-Token", token)
        request.setHeader("WWW-Authenticate", token)
        request.setHeader("X-Docker-Endpoints", ",".join(self.options.endpoints) or _host(request))


def _host(request: RegistryRequest) -> str:
    """The host and port as the client wrote them; where it wrote none (HTTP/1.0), the address that it reached."""
    written = header(request, "Host")
    if written:
        return written
    address: IAddress = request.getHost()
    return f"{getattr(address, 'host', 'localhost')}:{getattr(address, 'port', 80)}"
