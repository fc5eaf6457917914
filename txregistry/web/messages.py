"""What the routes of both dialects read of a request, and how they write an answer."""

from __future__ import annotations

import json

from txregistry.web.request import RegistryRequest


def query(request: RegistryRequest, name: str) -> str | None:
    """The last value of a query parameter, or None."""
    values = queries(request, name)
    return values[-1] if values else None


def queries(request: RegistryRequest, name: str) -> list[str]:
    """All values of a query parameter; bytes that are not UTF-8 become U+FFFD, which no name or number contains."""
    return [value.decode("utf-8", "replace") for value in request.args.get(name.encode("ascii"), [])]


def header(request: RegistryRequest, name: str) -> str | None:
    """A request header, or None; bytes that are not UTF-8 become U+FFFD, as in a query."""
    value = request.getHeader(name.encode("ascii"))
    return None if value is None else value.decode("utf-8", "replace")


def nothing(request: RegistryRequest, status: int) -> bytes:
    """An answer without a body."""
    request.setResponseCode(status)
    if status not in {204, 304}:  # of a 304 it would be the length that a 200 has (RFC 9110, 8.6)
        request.setHeader("Content-Length", "0")
    return b""


def answer_json(request: RegistryRequest, status: int, value: object, indent: int | None = None) -> bytes:
    """A JSON body with its headers set."""
    body = json.dumps(value, indent=indent, sort_keys=indent is not None).encode("ascii")
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(body)))
    return body
