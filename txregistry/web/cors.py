"""Access from web pages of other origins (CORS, of the Fetch standard), as docker-registry 0.9 has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from txregistry.web.request import RegistryRequest

EVERY = "*"


@dataclass(frozen=True, slots=True)
class CorsRules:
    """What pages of the `origins` (`https://host[:port]`, or `*`) may do; `max_age` is in seconds.

    Pages of `*` never send credentials: any page on the web could act for whoever is logged in.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    supports_credentials: bool = False
    max_age: int | None = None


class Cors:
    """The rules, applied to requests."""

    def __init__(self, rules: CorsRules) -> None:
        self._everybody = EVERY in rules.origins
        self._origins = {origin.rstrip("/").lower() for origin in rules.origins}
        credentials = rules.supports_credentials and not self._everybody
        self._answer = _filled(
            ("Access-Control-Expose-Headers", rules.expose_headers),
            ("Access-Control-Allow-Credentials", ["true"] if credentials else []),
        )
        self._preflight = _filled(
            ("Access-Control-Allow-Methods", rules.methods),
            ("Access-Control-Allow-Headers", rules.headers),
            ("Access-Control-Max-Age", [] if rules.max_age is None else [str(rules.max_age)]),
        )

    def apply(self, request: RegistryRequest) -> bool:
        """Set the headers of the answer; whether that is all, as the request only asked what is allowed.

        Such a request carries no credentials, so nobody decides over it.
        """
        origin = request.getHeader(b"Origin")
        text = "" if origin is None else origin.decode("ascii", "replace")
        if self._everybody:
            # On every answer: a cache may give it to anybody.
            request.setHeader("Access-Control-Allow-Origin", EVERY)
        else:
            request.responseHeaders.addRawHeader("Vary", "Origin")
            if text.lower() not in self._origins:
                return False
            request.setHeader("Access-Control-Allow-Origin", text)
        for name, value in self._answer:
            request.setHeader(name, value)
        asks = request.method == b"OPTIONS" and bool(text)
        if not asks or not request.requestHeaders.hasHeader(b"Access-Control-Request-Method"):
            return False
        for name, value in self._preflight:
            request.setHeader(name, value)
        return True


def _filled(*headers: tuple[str, Iterable[str]]) -> list[tuple[str, str]]:
    return [(name, text) for name, values in headers if (text := ", ".join(values))]
