"""Layers and the checksums that finish an image."""

from __future__ import annotations

from klein import Klein

from txregistry.core.v1.layers import Sent
from txregistry.errors import RangeInvalid
from txregistry.interfaces import IReader
from txregistry.model.ranges import ByteRange, unsatisfied
from txregistry.model.v1.names import ImageId
from txregistry.web.messages import header, nothing
from txregistry.web.request import RegistryRequest
from txregistry.web.sending import send_range
from txregistry.web.v1.base import route, session, set_session, value
from txregistry.web.v1.caching import LAST_MODIFIED, not_modified, set_cacheable
from txregistry.web.v1.privacy import ImageRoutes


class Layers(ImageRoutes):
    """`/v1/images/<id>/layer` and `/checksum`, and the layers of images in private repositories."""

    def register(self, app: Klein) -> None:
        """Add the routes of layers."""
        route(app, "/v1/images/<image>/layer", {"GET": self.get, "PUT": self.put})
        route(app, "/v1/images/<image>/checksum", {"PUT": self.check})
        route(app, "/v1/private_images/<image>/layer", {"GET": self.get_private})

    async def get(self, request: RegistryRequest, image: str) -> bytes:
        """Send a layer, or a range of it, as it was pushed."""
        parsed = ImageId.parse(image)
        reader = await self.v1.images.open_layer(parsed)
        try:
            await self.refuse_private(request)
            set_cacheable(request, self.v1.now())
            unchanged = not_modified(request)
            return await self._send(request, parsed, reader) if unchanged is None else unchanged
        finally:
            reader.close()

    async def get_private(self, request: RegistryRequest, image: str) -> bytes:
        """Send a layer of an image in a private repository, to who names it."""
        parsed = ImageId.parse(image)
        reader = await self.v1.images.open_layer(parsed)
        try:
            await self.require_private(request, parsed)
            return await self._send(request, parsed, reader)
        finally:
            reader.close()

    async def _send(self, request: RegistryRequest, image: ImageId, reader: IReader) -> bytes:
        request.setHeader("Content-Type", "application/octet-stream")
        accelerator = self.options.accelerator
        if accelerator is not None and accelerator.serves(request):
            return await accelerator.hand_over(request, self.v1.images.layer_path(image))
        request.setHeader("Accept-Ranges", "bytes")
        try:
            part = None
            if header(request, "If-Range") in {None, LAST_MODIFIED}:
                part = ByteRange.parse(header(request, "Range"), reader.size)
        except RangeInvalid:
            # Without a body: whoever resumes a layer that it has whole takes this for its end.
            request.setHeader("Content-Range", unsatisfied(reader.size))
            request.setHeader("Cache-Control", "no-cache")
            return nothing(request, 416)
        start, stop = (0, reader.size) if part is None else (part.start, part.stop)
        if part is not None:
            request.setResponseCode(206)
            request.setHeader("Content-Range", part.content_range(reader.size))
        request.setHeader("Content-Length", str(stop - start))
        if request.method != b"HEAD":
            await send_range(request, reader, start, stop)
        return b""

    async def put(self, request: RegistryRequest, image: str) -> bytes:
        """Take a layer; it finishes the image if its checksum was announced with the JSON."""
        parsed = ImageId.parse(image)
        attempt = await self.v1.layers.push(parsed, request.body, session(request))
        set_session(request, image, attempt)
        return value(request, True)

    async def check(self, request: RegistryRequest, image: str) -> bytes:
        """Finish an image by the checksum of its layer."""
        parsed = ImageId.parse(image)
        sent = Sent(header(request, "X-Docker-Checksum"), header(request, "X-Docker-Checksum-Payload"))
        await self.v1.layers.push_checksum(parsed, sent, session(request))
        return value(request, True)
