"""Between a request and the guard: what it is told of the request, and what its decision means for the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from inspect import isawaitable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from txregistry.auth.facts import Facts, Grant, Kind, Refused
from txregistry.auth.guard import Guard
from txregistry.errors import V1Error
from txregistry.interfaces import request_access
from txregistry.model.v1.names import V1Repository
from txregistry.web.request import RegistryRequest


async def admitted(
    request: RegistryRequest, decision: Awaitable[Grant], handler: Callable[..., Any], parts: Mapping[str, str]
) -> Any:
    """The handler's answer, if the decision lets the request go on; else its error, with the headers for the client."""
    try:
        grant = await decision
    except Refused as refused:
        for name, value in refused.headers:
            request.responseHeaders.addRawHeader(name, value)
        raise
    request.grant = grant
    if grant.glance is not None:
        # For what is done within this coroutine, which is this request and no other.
        request_access.set(grant.glance)
    if grant.set_cookie is not None:
        request.responseHeaders.addRawHeader("Set-Cookie", grant.set_cookie)
    answer = handler(request, **parts)
    return await answer if isawaitable(answer) else answer


def enter(request: RegistryRequest, rule: str, handler: Callable[..., Any], parts: Mapping[str, str]) -> Any:
    """Enter a route of V1, once the guard lets the request; its body has not been read."""
    guard = request.guard
    if guard is None or guard.asks_nothing:
        return handler(request, **parts)
    return admitted(request, guard.allow(facts_of(request, rule, parts)), handler, parts)


def enter_v2(request: RegistryRequest, handler: Callable[..., Any], parts: Mapping[str, str]) -> Any:
    """Enter a route of V2, likewise."""
    guard = request.guard
    if guard is None or guard.asks_nothing:
        return handler(request, **parts)
    return admitted(request, guard.allow_v2(facts_of(request, "", {})), handler, parts)


def facts_of(request: RegistryRequest, rule: str, parts: Mapping[str, str]) -> Facts:
    """What the guard is told; `parts` are the names in the path of a V1 route, and `rule` is that route."""
    kind, repository = Kind.OPEN, None
    if "image" in parts:
        kind = Kind.IMAGE
    elif "repository" in parts and not rule.endswith("/auth"):
        kind = Kind.REPOSITORY
        # Nothing is granted for what is no name; where nothing is asked, its route refuses it.
        with suppress(V1Error):
            repository = V1Repository.parse(parts["repository"])
    return Facts(
        method=_text(request.method),
        path="/" + _text(unquote_to_bytes(request.path)).lstrip("/"),
        kind=kind,
        headers={
            _text(name).lower(): ",".join(map(_text, values))
            for name, values in request.requestHeaders.getAllRawHeaders()
        },
        repository=repository,
        image_id=parts.get("image"),
        address=str(getattr(request.getClientAddress(), "host", "")),
        secure=bool(request.isSecure()),
    )


def guard_of(request: RegistryRequest) -> Guard:
    """The guard, for routes that only a registry with one has."""
    return cast(Guard, request.guard)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
