"""What all V1 routes share: their headers, their JSON, how a route is added, and what a request says of its sender."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from klein import Klein
from klein.resource import KleinResource
from twisted.web.iweb import IRequest

from txregistry.auth.guard import Guard
from txregistry.auth.tokens import repository_of
from txregistry.core.registry import Registry
from txregistry.errors import V1Error
from txregistry.model.v1.names import V1Repository
from txregistry.web.accel import Accelerator
from txregistry.web.access import enter
from txregistry.web.cors import Cors
from txregistry.web.problems import answer, answer_json, is_v1
from txregistry.web.request import RegistryRequest

Handler = Callable[..., Any]

#: The version whose protocol this is.
VERSION = "0.6.5"
#: Largest JSON body, in bytes.
BODY_LIMIT = 4 * 1024 * 1024

#: What every answer says unless its route says otherwise.
_NOT_CACHED = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1", "Content-Type": "application/json"}
_SESSION = "v1_push"
_COOKIE = re.compile(rf"(?:\A|;)\s*{_SESSION}=([A-Za-z0-9-]+)")


@dataclass(frozen=True, slots=True)
class V1Options:
    """What an operator decides about V1: the flavor that is shown, and the registries that `X-Docker-Endpoints` names.

    Without `endpoints` (`host[:port]`) it is the host that the client asked. A registry that is not `standalone` has an
    index elsewhere, and so nothing of what that does. With an `accelerator` layers are sent by an nginx in front.
    """

    flavor: str = "dev"
    endpoints: tuple[str, ...] = ()
    standalone: bool = True
    accelerator: Accelerator | None = None


class V1Resource(KleinResource):
    """The resource of an app that puts the headers of V1 on every answer that is not V2's, routed or not.

    Its routes ask the `guard`, if there is one; `cors` is for both protocols.
    """

    def __init__(
        self, app: Klein, options: V1Options, guard: Guard | None = None, cors: Cors | None = None
    ) -> None:
        super().__init__(app)
        self._cors = cors
        self._flavor = options.flavor
        self._guard = guard

    def render(self, request: IRequest) -> Any:
        """Set the headers, and let Klein find the route."""
        ours = cast(RegistryRequest, request)
        ours.guard = self._guard
        if is_v1(ours):
            ours.setHeader("X-Docker-Registry-Version", VERSION)
            ours.setHeader("X-Docker-Registry-Config", self._flavor)
            for name, value in _NOT_CACHED.items():
                ours.setHeader(name, value)
            # Old servers took any number of slashes at the beginning of a path for one.
            path: list[bytes] = ours.postpath or []
            while len(path) > 1 and not path[0]:
                del path[0]
        if self._cors is not None and self._cors.apply(ours):
            return nothing(ours, 200)
        try:
            b"/".join(ours.postpath or []).decode("utf-8")
        except UnicodeDecodeError:
            # Klein would write a traceback to the log for it.
            return answer(ours, 400, "NAME_INVALID", "the path is not UTF-8")
        return super().render(request)


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


def nothing(request: RegistryRequest, status: int) -> bytes:
    """An answer without a body."""
    request.setResponseCode(status)
    if status not in {204, 304}:
        request.setHeader("Content-Length", "0")
    return b""


def header(request: RegistryRequest, name: str) -> str | None:
    """A request header, or None."""
    found = request.getHeader(name.encode("ascii"))
    # Asked for by text, Twisted would raise on bytes that are not UTF-8.
    return None if found is None else found.decode("utf-8", "replace")


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
