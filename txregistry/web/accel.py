"""Leaving the sending of large objects to somebody else: to the nginx in front, or to the storage engine itself."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote

from txregistry.interfaces import IRedirects
from txregistry.web.request import RegistryRequest
from txregistry.web.site import RegistrySite

#: For how long a signed address is good, in seconds, as it was with docker-registry.
SIGNED_SECONDS = 1200


class HandsOver(Protocol):
    """Whoever sends an object in our place."""

    def serves(self, request: RegistryRequest) -> bool:
        """Whether the answer to this request can be left to it."""
        ...

    async def hand_over(self, request: RegistryRequest, path: str) -> bytes:
        """The answer in place of the object at `path` of the store; its other headers are set already."""
        ...


class Accelerator:
    """Answers with nothing but the name of a file, which nginx then sends instead.

    Files are named below `prefix`, the path of an internal location of nginx that shows the folder of the storage.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")

    def serves(self, request: RegistryRequest) -> bool:
        """Whether nginx stands before this request: always, unless it is known which front ends there are."""
        site: RegistrySite = request.site
        return site.proxies is None or request.origin is not None

    async def hand_over(self, request: RegistryRequest, path: str) -> bytes:
        """The answer in place of the object at `path` of the store; its other headers are set already."""
        request.setHeader("X-Accel-Redirect", f"{self._prefix}/{quote(path)}")
        request.setHeader("Content-Length", "0")
        return b""


class Redirector:
    """Sends a client to the address that the engine has signed for it."""

    def __init__(self, driver: IRedirects) -> None:
        self._driver = driver

    def serves(self, request: RegistryRequest) -> bool:
        """Whether bytes are asked for: an address is signed for one method."""
        return request.method == b"GET"

    async def hand_over(self, request: RegistryRequest, path: str) -> bytes:
        """Name the address; nobody may keep the answer for longer than that is good."""
        url = await self._driver.redirect(path, SIGNED_SECONDS)
        request.setResponseCode(307)
        request.setHeader("Location", url)
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("Content-Length", "0")
        return b""
