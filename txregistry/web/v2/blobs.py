"""Blobs: pull, look, delete."""

from __future__ import annotations

from klein import Klein

from txregistry.core.registry import Registry
from txregistry.errors import RangeInvalid
from txregistry.model.conditional import entity_tag, none_match, range_holds
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.model.ranges import ByteRange, unsatisfied
from txregistry.web.accel import HandsOver
from txregistry.web.hot import keep
from txregistry.web.messages import header, nothing
from txregistry.web.request import RegistryRequest
from txregistry.web.sending import send_range
from txregistry.web.v2.base import Routes, route

#: Largest blob that is sent in one piece, in bytes.
SMALL = 64 * 1024


class Blobs(Routes):
    """`/v2/<name>/blobs/<digest>`; with an `accelerator` that sends them."""

    def __init__(self, registry: Registry, external_url: str, accelerator: HandsOver | None = None) -> None:
        super().__init__(registry, external_url)
        self._accelerator = accelerator

    def register(self, app: Klein) -> None:
        """Add the routes of blobs."""
        rule = "/v2/<path:name>/blobs/<digest>"
        route(app, rule, ["GET", "HEAD"], self.get)
        route(app, rule, ["DELETE"], self.delete)

    async def get(self, request: RegistryRequest, name: str, digest: str) -> bytes:
        """Send a blob or a range of it (end-2)."""
        wanted = Digest.parse(digest)
        repository = RepositoryName.parse(name)
        if request.method == b"HEAD":
            return await self._look(request, repository, wanted)
        if self._accelerator is not None and self._accelerator.serves(request):
            return await self._hand_over(request, self._accelerator, repository, wanted)
        data = self.registry.blobs.read_now(repository, wanted, SMALL) if self._is_plain(request) else None
        if data is not None:
            return self._answer(request, repository, wanted, len(data), data)
        reader = await self.registry.blobs.open(repository, wanted)
        try:
            self._describe(request, wanted)
            if none_match(header(request, "If-None-Match"), wanted):
                return nothing(request, 304)
            request.setHeader("Content-Type", "application/octet-stream")
            part = self._part(request, wanted, reader.size)
            if part is not None:
                request.setResponseCode(206)
                request.setHeader("Content-Range", part.content_range(reader.size))
            start, stop = (part.start, part.stop) if part is not None else (0, reader.size)
            request.setHeader("Content-Length", str(stop - start))
            await send_range(request, reader, start, stop)
            return b""
        finally:
            reader.close()

    async def _look(self, request: RegistryRequest, name: RepositoryName, wanted: Digest) -> bytes:
        """Answer HEAD: without opening anything."""
        info = await self.registry.blobs.stat(name, wanted)
        if none_match(header(request, "If-None-Match"), wanted):
            self._describe(request, wanted)
            return nothing(request, 304)
        return self._answer(request, name, wanted, info.size, None)

    def _is_plain(self, request: RegistryRequest) -> bool:
        """Whether the whole blob is asked for, and its next reader will be sent it by us as well."""
        asked = (header(request, name) for name in ("Range", "If-None-Match"))
        return self._accelerator is None and all(value is None for value in asked)

    def _answer(
        self, request: RegistryRequest, name: RepositoryName, wanted: Digest, size: int, data: bytes | None
    ) -> bytes:
        """The answer with the whole blob, or without one to HEAD."""
        self._describe(request, wanted)
        request.setHeader("Content-Type", "application/octet-stream")
        request.setHeader("Content-Length", str(size))
        keep(request, self.registry.blobs.proof(name, wanted), data)
        return data or b""

    @staticmethod
    def _describe(request: RegistryRequest, wanted: Digest) -> None:
        request.setHeader("Docker-Content-Digest", str(wanted))
        request.setHeader("ETag", entity_tag(wanted))
        request.setHeader("Cache-Control", "max-age=31536000")
        request.setHeader("Accept-Ranges", "bytes")

    async def _hand_over(
        self, request: RegistryRequest, accelerator: HandsOver, name: RepositoryName, wanted: Digest
    ) -> bytes:
        """Let another send it, and look at the conditions of the request itself: it has tags and dates of its own."""
        info = await self.registry.blobs.stat(name, wanted)
        self._describe(request, wanted)
        request.setHeader("Content-Type", "application/octet-stream")
        return await accelerator.hand_over(request, info.path)

    def _part(self, request: RegistryRequest, digest: Digest, size: int) -> ByteRange | None:
        if not range_holds(header(request, "If-Range"), digest):
            return None
        try:
            return ByteRange.parse(header(request, "Range"), size)
        except RangeInvalid:
            request.setHeader("Content-Range", unsatisfied(size))
            raise

    async def delete(self, request: RegistryRequest, name: str, digest: str) -> bytes:
        """Take a blob out of this repository (end-10)."""
        self.require_delete()
        await self.registry.blobs.delete(RepositoryName.parse(name), Digest.parse(digest))
        return nothing(request, 202)
