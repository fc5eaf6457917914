"""What is in the layers of images: the files of one, and how they differ from those of the layers below."""

from __future__ import annotations

from klein import Klein

from txregistry.interfaces import IReader
from txregistry.model.v1.names import ImageId
from txregistry.web.messages import nothing
from txregistry.web.request import RegistryRequest
from txregistry.web.sending import send_chunks
from txregistry.web.v1.base import raw, route
from txregistry.web.v1.caching import not_modified, set_cacheable
from txregistry.web.v1.privacy import ImageRoutes


class Files(ImageRoutes):
    """`/v1/images/<id>/files` and `/diff`, and the files of images in private repositories."""

    def register(self, app: Klein) -> None:
        """Add the routes."""
        route(app, "/v1/images/<image>/files", {"GET": self.files})
        route(app, "/v1/images/<image>/diff", {"GET": self.diff})
        route(app, "/v1/private_images/<image>/files", {"GET": self.private_files})

    async def files(self, request: RegistryRequest, image: str) -> bytes:
        """List the files of a layer, which is looked through if nobody has asked before."""
        parsed = ImageId.parse(image)
        await self._require(parsed)
        await self.refuse_private(request)
        return await self._send(request, await self.v1.file_lists.open(parsed))

    async def private_files(self, request: RegistryRequest, image: str) -> bytes:
        """List the files of an image in a private repository, to who names it."""
        parsed = ImageId.parse(image)
        await self._require(parsed)
        await self.require_private(request, parsed)
        return await self._send(request, await self.v1.file_lists.open(parsed), cacheable=False)

    async def diff(self, request: RegistryRequest, image: str) -> bytes:
        """Tell what a layer deletes, changes and creates; nothing at all until that has been worked out."""
        parsed = ImageId.parse(image)
        await self._require(parsed)
        await self.refuse_private(request)
        found = await self.v1.diffs.open(parsed)
        return nothing(request, 200) if found is None else await self._send(request, found)

    async def _require(self, image: ImageId) -> None:
        """Refuse what is not there, or not finished."""
        (await self.v1.images.open_layer(image)).close()

    async def _send(self, request: RegistryRequest, found: IReader | bytes, *, cacheable: bool = True) -> bytes:
        """Send JSON as it is stored, however long it is."""
        try:
            if cacheable:
                set_cacheable(request, self.v1.now())
                unchanged = not_modified(request)
                if unchanged is not None:
                    return unchanged
            if isinstance(found, bytes):
                return raw(request, found)
            request.setHeader("Content-Length", str(found.size))
            if request.method != b"HEAD":
                await send_chunks(request, found.chunks(0, found.size))
            return b""
        finally:
            if not isinstance(found, bytes):
                found.close()
