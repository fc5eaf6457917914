"""The resource of the whole API: what comes before Klein finds a route, in either dialect."""

from __future__ import annotations

from typing import Any, cast

from klein import Klein
from klein.resource import KleinResource
from twisted.web.iweb import IRequest

from txregistry.auth.guard import Guard
from txregistry.web.cors import Cors
from txregistry.web.messages import nothing
from txregistry.web.problems import answer, is_v1
from txregistry.web.request import RegistryRequest

#: The version whose protocol V1 is.
_V1_VERSION = "0.6.5"
#: What every answer of V1 says unless its route says otherwise.
_NOT_CACHED = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1", "Content-Type": "application/json"}


class RegistryResource(KleinResource):
    """The resource of an app whose routes ask the `guard`, if there is one, and whose answers `cors` opens to browsers.

    Every answer that is not V2's, routed or not, has the headers of V1; `flavor` is one of them.
    """

    def __init__(self, app: Klein, flavor: str, guard: Guard | None = None, cors: Cors | None = None) -> None:
        super().__init__(app)
        self._cors = cors
        self._flavor = flavor
        self._guard = guard

    def render(self, request: IRequest) -> Any:
        """Set the headers, and let Klein find the route."""
        ours = cast(RegistryRequest, request)
        ours.guard = self._guard
        if is_v1(ours):
            ours.setHeader("X-Docker-Registry-Version", _V1_VERSION)
            ours.setHeader("X-Docker-Registry-Config", self._flavor)
            for name, value in _NOT_CACHED.items():
                ours.setHeader(name, value)
            # Old servers took any number of slashes at the beginning of a path for one.
            path: list[bytes] = ours.postpath or []
            named = next((at for at, part in enumerate(path) if part), max(len(path) - 1, 0))
            del path[:named]
        if self._cors is not None and self._cors.apply(ours):
            return nothing(ours, 200)
        try:
            b"/".join(ours.postpath or []).decode("utf-8")
        except UnicodeDecodeError:
            # Klein would write a traceback to the log for it.
            return answer(ours, 400, "NAME_INVALID", "the path is not UTF-8")
        return super().render(request)
