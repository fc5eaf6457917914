"""The part of an index, played by a registry that has none: it keeps lists of images and hands out tokens."""

from __future__ import annotations

from klein import Klein
from twisted.internet.interfaces import IAddress
from werkzeug.exceptions import NotFound

from txregistry.auth.tokens import random_token
from txregistry.model.v1.names import V1Repository
from txregistry.web.messages import header, nothing
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import BODY_LIMIT, Routes, raw, route, value


class Index(Routes):
    """`/v1/repositories/<repository>` and the list of its images."""

    def register(self, app: Klein) -> None:
        """Add the routes of the index; where that is elsewhere, only the DELETE, which is none of its own."""
        base = "/v1/repositories/<path:repository>"
        if not self.options.standalone:
            for rule in (base, f"{base}/"):
                route(app, rule, {"DELETE": self.delete})
                # For all else there is no such path, whoever asks.
                app.route(rule, methods=["GET", "PUT", "POST"], endpoint=f"no {rule}", strict_slashes=True)(_absent)
            return
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
        guard = request.guard
        token = random_token(repository, access) if guard is None else guard.token(request.grant, repository, access)
        request.setHeader("X-Docker-Token", token)
        request.setHeader("WWW-Authenticate", token)
        request.setHeader("X-Docker-Endpoints", ",".join(self.options.endpoints) or _host(request))


def _absent(_request: RegistryRequest, **_parts: str) -> bytes:
    raise NotFound


def _host(request: RegistryRequest) -> str:
    """The host and port as the client wrote them; where it wrote none (HTTP/1.0), the address that it reached."""
    told = None if request.origin is None else request.origin.host
    written = told or header(request, "Host")
    if written:
        return written
    address: IAddress = request.getHost()
    return f"{getattr(address, 'host', 'localhost')}:{getattr(address, 'port', 80)}"
