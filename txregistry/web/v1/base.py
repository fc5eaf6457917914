"""What all V1 routes share: their headers, their JSON, how a route is added, and what a request says of its sender."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from klein import Klein

from txregistry.auth.tokens import repository_of
from txregistry.core.registry import Registry
from txregistry.errors import V1Error
from txregistry.model.v1.names import V1Repository
from txregistry.web.accel import HandsOver
from txregistry.web.access import enter
from txregistry.web.messages import answer_json, header, nothing
from txregistry.web.request import RegistryRequest

Handler = Callable[..., Any]

#: Largest JSON body, in bytes.
BODY_LIMIT = 4 * 1024 * 1024

_SESSION = "v1_push"
_COOKIE = re.compile(rf"(?:\A|;)\s*{_SESSION}=([A-Za-z0-9-]+)")


@dataclass(frozen=True, slots=True)
class V1Options:
    """What an operator decides about V1: the flavor that is shown, and the registries that `X-Docker-Endpoints` names.

    Without `endpoints` (`host[:port]`) it is the host that the client asked. A registry that is not `standalone` has an
    index elsewhere, and so nothing of what that does. With an `accelerator` layers are sent by that.
    """

    flavor: str = "dev"
    endpoints: tuple[str, ...] = ()
    standalone: bool = True
    accelerator: HandsOver | None = None


class Routes:
    """A noun of V1: the routes that `register` adds, over the registry that they ask."""

    def __init__(self, registry: Registry, options: V1Options) -> None:
        self.registry = registry
        self.v1 = registry.v1
        self.options = options

    def register(self, app: Klein) -> None:
        """Add this noun's routes to the app."""
        raise NotImplementedError


def route(app: Klein, rule: str, handlers: Mapping[str, Handler]) -> None:
    """Add a route with a handler for each of its methods; HEAD is answered like GET, and OPTIONS with all of them."""
    methods = set(handlers)
    if "GET" in methods:
        methods.add("HEAD")
    allowed = ", ".join(sorted({*methods, "OPTIONS"}))

    def handle(request: RegistryRequest, **parts: str) -> Any:
        method = request.method.decode("ascii").upper()  # Werkzeug has found the route as if it were so
        if method == "OPTIONS":
            request.setHeader("Allow", allowed)
            return nothing(request, 200)
        return enter(request, rule, handlers["GET" if method == "HEAD" else method], parts)

    app.route(rule, methods=[*methods, "OPTIONS"], endpoint=f"V1 {rule}", strict_slashes=True)(handle)


def value(request: RegistryRequest, document: object, status: int = 200) -> bytes:
    """An answer in JSON as V1 writes it: keys sorted, indented by four."""
    return answer_json(request, status, document, indent=4)


def raw(request: RegistryRequest, data: bytes) -> bytes:
    """An answer of JSON as it is stored."""
    request.setHeader("Content-Length", str(len(data)))
    return data


async def read_json(request: RegistryRequest, message: str) -> Any:
    """The body as JSON, whatever its Content-Type says; V1Error with this message for what is none."""
    data = await request.body.read(BODY_LIMIT)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise V1Error(message=message) from None


def authorized_repository(request: RegistryRequest) -> V1Repository | None:
    """The repository that the Authorization header speaks of, whatever its scheme; None without one."""
    text = header(request, "Authorization")
    return None if text is None else repository_of(text)


def session(request: RegistryRequest) -> str | None:
    """By what the client of a push is known again, if it has pushed this image before."""
    match = _COOKIE.search(header(request, "Cookie") or "")
    return None if match is None else match[1]


def set_session(request: RegistryRequest, image_id: str, name: str) -> None:
    """Let the client be known again while it pushes this image, and this one alone."""
    path = f"/v1/images/{quote(image_id, safe='')}/"
    request.responseHeaders.addRawHeader("Set-Cookie", f"{_SESSION}={name}; Path={path}; HttpOnly")
