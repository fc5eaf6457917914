"""What all V2 routes share, and the ping."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from klein import Klein

from txregistry.core.registry import Registry
from txregistry.errors import Unsupported
from txregistry.web.access import enter_v2
from txregistry.web.messages import answer_json
from txregistry.web.request import RegistryRequest

Handler = Callable[..., Any]


class Routes:
    """A noun of the API: the routes that `register` adds, over the registry that they ask."""

    def __init__(self, registry: Registry, external_url: str) -> None:
        self.registry = registry
        self._external_url = external_url.rstrip("/")

    def register(self, app: Klein) -> None:
        """Add this noun's routes to the app."""
        raise NotImplementedError

    def location(self, path: str) -> str:
        """A URL for `Location`: relative, which proxies cannot spoil, unless an external URL is configured."""
        return f"{self._external_url}{path}"

    def require_delete(self) -> None:
        """Refuse while deletion is switched off (end-9, end-10)."""
        if not self.registry.policy.delete:
            raise Unsupported("deletion is switched off; the operator can allow it with `delete: true`")


def route(app: Klein, rule: str, methods: list[str], handler: Handler) -> None:
    """Add a V2 route; each of its answers says which API this is."""

    @wraps(handler)
    def marked(request: RegistryRequest, **parts: str) -> Any:
        request.setHeader("Docker-Distribution-Api-Version", "registry/2.0")
        return enter_v2(request, handler, parts)

    # Klein would tell endpoints apart by the function's name alone.
    app.route(rule, methods=methods, endpoint=handler.__qualname__)(marked)


class Base(Routes):
    """The ping, by which clients learn that this is a registry and how to log in (end-1)."""

    def register(self, app: Klein) -> None:
        """Add the ping."""
        route(app, "/v2/", ["GET", "HEAD"], self.ping)

    def ping(self, request: RegistryRequest) -> bytes:
        """Say that the API is here (end-1)."""
        return answer_json(request, 200, {})
