"""Uploads: a blob on its way in."""

from __future__ import annotations

from klein import Klein

from txregistry.core.uploads import Chunk, check_id
from txregistry.errors import DigestInvalid, NameInvalid
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.model.ranges import parse_content_range, upload_range
from txregistry.web.messages import header, nothing, query
from txregistry.web.request import RegistryRequest
from txregistry.web.v2.base import Routes, route


class Uploads(Routes):
    """`/v2/<name>/blobs/uploads/` and the sessions below it."""

    def register(self, app: Klein) -> None:
        """Add the routes of uploads."""
        route(app, "/v2/<path:name>/blobs/uploads/", ["POST"], self.start)
        rule = "/v2/<path:name>/blobs/uploads/<uuid>"
        route(app, rule, ["GET", "HEAD"], self.status)
        route(app, rule, ["PATCH"], self.append)
        route(app, rule, ["PUT"], self.finish)
        route(app, rule, ["DELETE"], self.cancel)

    async def start(self, request: RegistryRequest, name: str) -> bytes:
        """Begin a session (end-4a, end-4c), take a whole blob (end-4b), or mount one (end-11)."""
        repository = RepositoryName.parse(name)
        mount = query(request, "mount")
        if mount is not None and await self._mount(repository, mount, query(request, "from")):
            return self._created(request, repository, Digest.parse(mount))
        digest = query(request, "digest")
        if digest is not None:
            parsed = Digest.parse(digest)
            await self.registry.uploads.monolithic(repository, request.body, parsed)
            return self._created(request, repository, parsed)
        algorithm = query(request, "digest-algorithm")
        uuid = await self.registry.uploads.start(repository, *([algorithm] if algorithm is not None else []))
        return self._accepted(request, repository, uuid, 0)

    async def status(self, request: RegistryRequest, name: str, uuid: str) -> bytes:
        """Tell where a session goes on (end-13)."""
        repository = RepositoryName.parse(name)
        offset = await self.registry.uploads.offset(repository, uuid)
        return self._accepted(request, repository, uuid, offset, status=204)

    async def append(self, request: RegistryRequest, name: str, uuid: str) -> bytes:
        """Take a chunk (end-5)."""
        repository = RepositoryName.parse(name)
        check_id(uuid)
        self._point_at(request, repository, uuid)
        offset = await self.registry.uploads.append(repository, uuid, request.body, _chunk(request))
        return self._accepted(request, repository, uuid, offset)

    async def finish(self, request: RegistryRequest, name: str, uuid: str) -> bytes:
        """Take the last chunk, or none, and commit (end-6)."""
        repository = RepositoryName.parse(name)
        check_id(uuid)
        digest = query(request, "digest")
        if digest is None:
            raise DigestInvalid("the closing PUT needs ?digest=<algorithm>:<hex>")
        parsed = Digest.parse(digest)
        self._point_at(request, repository, uuid)
        await self.registry.uploads.finish(repository, uuid, request.body, _chunk(request), parsed)
        return self._created(request, repository, parsed)

    async def cancel(self, request: RegistryRequest, name: str, uuid: str) -> bytes:
        """End a session without a blob (end-14)."""
        await self.registry.uploads.cancel(RepositoryName.parse(name), uuid)
        return nothing(request, 204)

    async def _mount(self, repository: RepositoryName, mount: str, source: str | None) -> bool:
        """A mount that cannot be done begins an ordinary upload, whatever is wrong with its parameters."""
        try:
            digest = Digest.parse(mount)
            origin = RepositoryName.parse(source) if source else None
        except (DigestInvalid, NameInvalid):
            return False
        return await self.registry.blobs.mount(repository, origin, digest)

    def _point_at(self, request: RegistryRequest, name: RepositoryName, uuid: str) -> None:
        """A refusal, too, says where the session is, so that the client can go on with it."""
        request.setHeader("Location", self.location(f"/v2/{name}/blobs/uploads/{uuid}"))

    def _accepted(
        self, request: RegistryRequest, name: RepositoryName, uuid: str, offset: int, status: int = 202
    ) -> bytes:
        self._point_at(request, name, uuid)
        request.setHeader("Range", upload_range(offset))
        request.setHeader("Docker-Upload-UUID", uuid)
        return nothing(request, status)

    def _created(self, request: RegistryRequest, name: RepositoryName, digest: Digest) -> bytes:
        request.setHeader("Location", self.location(f"/v2/{name}/blobs/{digest}"))
        request.setHeader("Docker-Content-Digest", str(digest))
        return nothing(request, 201)


def _chunk(request: RegistryRequest) -> Chunk | None:
    value = header(request, "Content-Range")
    return None if value is None else parse_content_range(value)
