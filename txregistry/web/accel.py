"""Leaving the sending of a file to the nginx in front: an empty answer names it, and nginx sends it instead."""

from __future__ import annotations

from urllib.parse import quote

from txregistry.web.request import RegistryRequest
from txregistry.web.site import RegistrySite


class Accelerator:
    """Names files below `prefix`, the path of an internal location of nginx that shows the folder of the storage."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")

    def serves(self, request: RegistryRequest) -> bool:
        """Whether nginx stands before this request: always, unless it is known which front ends there are."""
        site: RegistrySite = request.site
        return site.proxies is None or request.origin is not None

    def hand_over(self, request: RegistryRequest, path: str) -> bytes:
        """The answer in place of the object at `path` of the store; its other headers are set already."""
        request.setHeader("X-Accel-Redirect", f"{self._prefix}/{quote(path)}")
        request.setHeader("Content-Length", "0")
        return b""
