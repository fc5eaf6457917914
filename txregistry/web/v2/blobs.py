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
from txregistry.web.messages import header, nothing
from txregistry.web.request import RegistryRequest, send_chunks
from txregistry.web.v2.base import Routes, route


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
        if request.method == b"GET" and self._accelerator is not None and self._accelerator.serves(request):
            return await self._hand_over(request, self._accelerator, RepositoryName.parse(name), wanted)
        reader = await self.registry.blobs.open(RepositoryName.parse(name), wanted)
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
            if request.method != b"HEAD":
                await send_chunks(request, reader.chunks(start, stop))
            return b""
        finally:
            reader.close()

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
        # A range is asked for by GET alone (RFC 9110, 14.2).
        if request.method != b"GET" or not range_holds(header(request, "If-Range"), digest):
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
