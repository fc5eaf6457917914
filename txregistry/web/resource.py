"""The resource of the whole API: what comes before Klein finds a route, in either dialect."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException

from txregistry.auth.guard import Guard
from txregistry.web.cors import Cors
from txregistry.web.messages import nothing
from txregistry.web.problems import answer, answer_for, is_v1
from txregistry.web.request import RegistryRequest

#: The version whose protocol V1 is.
_V1_VERSION = "0.6.5"
#: Longest path whose route is remembered, in characters.
_REMEMBERED = 512
#: What every answer of V1 says unless its route says otherwise.
_NOT_CACHED = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1", "Content-Type": "application/json"}


class RegistryResource(KleinResource):
    """The resource of an app whose routes ask the `guard`, if there is one, and whose answers `cors` opens to browsers.

    Every answer that is not V2's, routed or not, has the headers of V1; `flavor` is one of them.
    """

    def __init__(self, app: Klein, flavor: str, guard: Guard | None = None, cors: Cors | None = None) -> None:
        super().__init__(app)
        # Finding a route takes Klein as long as all else that it does; a client asks for few paths, and often.
        self._find = lru_cache(maxsize=1024)(self._find_route)
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
            path_info = b"/".join(ours.postpath or []).decode("utf-8")
        except UnicodeDecodeError:
            # Klein would write a traceback to the log for it.
            return answer(ours, 400, "NAME_INVALID", "the path is not UTF-8")
        if len(path_info) > _REMEMBERED:
            return super().render(request)
        try:
            endpoint, parts = self._find(ours.method, path_info)
        except HTTPException:
            return super().render(request)
        self._enter(ours, endpoint, parts)
        return NOT_DONE_YET

    def _find_route(self, method: bytes, path_info: str) -> tuple[str, Mapping[str, Any]]:
        """The endpoint that Klein finds for a path, and the names in it; an HTTPException as Klein would meet it."""
        mapper = self._app.url_map.bind("localhost", path_info="/" + path_info, default_method=method.decode("latin-1"))
        return cast(tuple[str, Mapping[str, Any]], mapper.match())

    def _enter(self, request: RegistryRequest, endpoint: str, parts: Mapping[str, Any]) -> None:
        """Run a route and send what it returns, as Klein does: it is cancelled when the client leaves."""
        try:
            work: Any = self._app.execute_endpoint(endpoint, request, **parts)
        except Exception:
            work = answer_for(request, Failure())
        if not isinstance(work, Deferred):
            self._send(work, request)
            return
        if not work.called:
            request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addErrback(lambda failure: answer_for(request, failure))
        work.addCallback(self._send, request)
        work.addErrback(request.processingFailed)
        work.addErrback(lambda _: None)  # it is answered, and in the log

    @staticmethod
    def _send(body: bytes, request: RegistryRequest) -> None:
        if not request.lost and not request.finished:
            request.write(body)
            request.finish()
