"""Private repositories: their images have URLs of their own, for whoever names the repository."""

from __future__ import annotations

from txregistry.auth.tokens import repository_of
from txregistry.core.proofs import Proof
from txregistry.errors import V1NotFound
from txregistry.model.v1.names import ImageId
from txregistry.web.hot import keep
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, authorized_repository
from txregistry.web.v1.caching import YEAR


class ImageRoutes(Routes):
    """What the routes of images and of layers share."""

    def keep(self, request: RegistryRequest, proof: Proof | None, body: bytes) -> None:
        """Let an answer that was made cacheable be kept by the server too, for whoever `refuse_private` lets pass."""
        if not request.grant.is_personal:
            keep(request, proof, body, v1=True, admits=self._shows_to, expires=YEAR)

    def _shows_to(self, authorization: str) -> bool:
        repository = repository_of(authorization)
        return repository is None or self.v1.repositories.is_public_now(repository)

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
