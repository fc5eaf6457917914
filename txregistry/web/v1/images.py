"""Images: their JSON, and the ids of their ancestors."""

from __future__ import annotations

from klein import Klein

from txregistry.model.v1.image import parse_image
from txregistry.model.v1.names import ImageId
from txregistry.web.access import guard_of
from txregistry.web.messages import header
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import BODY_LIMIT, raw, route, set_session, value
from txregistry.web.v1.caching import not_modified, set_cacheable
from txregistry.web.v1.privacy import ImageRoutes


class Images(ImageRoutes):
    """`/v1/images/<id>/json` and `/ancestry`, and the JSON of those in private repositories."""

    def register(self, app: Klein) -> None:
        """Add the routes of images."""
        route(app, "/v1/images/<image>/json", {"GET": self.get, "PUT": self.put})
        route(app, "/v1/images/<image>/ancestry", {"GET": self.ancestry})
        route(app, "/v1/private_images/<image>/json", {"GET": self.get_private})

    async def get(self, request: RegistryRequest, image: str) -> bytes:
        """Send the JSON as it was pushed, with the layer's size and checksum."""
        parsed = ImageId.parse(image)
        info = await self.v1.images.info(parsed)
        await self.refuse_private(request)
        set_cacheable(request, self.v1.now())
        unchanged = not_modified(request)
        if unchanged is not None:
            return unchanged
        self._describe(request, info.size, info.checksum)
        body = raw(request, info.data)
        self.keep(request, self.v1.images.proof(parsed, info), body)
        return body

    async def get_private(self, request: RegistryRequest, image: str) -> bytes:
        """Send the JSON of an image in a private repository, to who names it."""
        parsed = ImageId.parse(image)
        info = await self.v1.images.info(parsed)
        await self.require_private(request, parsed)
        self._describe(request, info.size, info.checksum)
        return raw(request, info.data)

    @staticmethod
    def _describe(request: RegistryRequest, size: int, checksum: str | None) -> None:
        request.setHeader("X-Docker-Size", str(size))
        if checksum is not None and checksum.isascii() and checksum.isprintable():
            request.setHeader("X-Docker-Checksum", checksum)

    async def put(self, request: RegistryRequest, image: str) -> bytes:
        """Begin the push of an image."""
        parsed = ImageId.parse_new(image)
        data = await request.body.read(BODY_LIMIT)
        checksum = header(request, "X-Docker-Checksum")
        if request.grant.listed is not None:
            # What is wrong with the JSON is told first.
            await guard_of(request).check_push(request.grant, parse_image(data, parsed, checksum))
        session = await self.v1.images.push_json(parsed, data, checksum)
        set_session(request, image, session)
        return value(request, True)

    async def ancestry(self, request: RegistryRequest, image: str) -> bytes:
        """Send the ids of the image and its ancestors, youngest first."""
        parsed = ImageId.parse(image)
        ancestry = await self.v1.images.ancestry(parsed)
        await self.refuse_private(request)
        set_cacheable(request, self.v1.now())
        unchanged = not_modified(request)
        if unchanged is not None:
            return unchanged
        body = value(request, ancestry.ids)
        self.keep(request, self.v1.images.proof_of_ancestry(parsed, ancestry), body)
        return body
