"""Private repositories: their images have URLs of their own, for whoever names the repository."""

from __future__ import annotations

from txregistry.errors import V1NotFound
from txregistry.model.v1.names import ImageId
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, authorized_repository


class ImageRoutes(Routes):
    """What the routes of images and of layers share."""

    async def refuse_private(self, request: RegistryRequest) -> None:
        """Hide an image at its public URL from whoever speaks of a private repository."""
        repository = authorized_repository(request)
        if repository is not None and await self.v1.repositories.is_private(repository):
            raise V1NotFound(message="Image not found")

    async def require_private(self, request: RegistryRequest, image: ImageId) -> None:
        """Hide an image at its private URL from whoever does not name a private repository that has it."""
        repository = authorized_repository(request)
        if (
            repository is None
            or not await self.v1.repositories.is_private(repository)
            or not await self.v1.repositories.holds(repository, image)
        ):
            raise V1NotFound(message="Image not found")
