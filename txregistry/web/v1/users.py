"""Accounts: those of the users file, or without one, as many as anybody asks for."""

from __future__ import annotations

from typing import Any

from klein import Klein

from txregistry.auth.accounts import Accounts
from txregistry.auth.facts import Refused
from txregistry.auth.guard import BASIC_CHALLENGE
from txregistry.auth.users import UserExists
from txregistry.errors import V1Error
from txregistry.web.access import facts_of
from txregistry.web.messages import nothing
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, read_json, route, value


class Users(Routes):
    """`/v1/users/`, which `docker login` asks."""

    def register(self, app: Klein) -> None:
        """Add the routes, with and without the last slash: not every client follows a redirect."""
        for rule in ("/v1/users", "/v1/users/"):
            route(app, rule, {"GET": self.log_in, "POST": self.create})
        for rule in ("/v1/users/<name>", "/v1/users/<name>/"):
            route(app, rule, {"PUT": self.update})

    async def log_in(self, request: RegistryRequest) -> bytes:
        """Say whether these credentials are an account's; without accounts, any are good."""
        accounts = _accounts(request)
        if accounts is not None:
            await _log_in(request, accounts)
        return value(request, "OK")

    async def create(self, request: RegistryRequest) -> bytes:
        """Make an account. Without accounts only say so, and where new ones are not made, let the client log in."""
        accounts = _accounts(request)
        if accounts is not None and not accounts.open:
            raise _refused(request)
        document = await read_json(request, "Error Decoding JSON")
        if accounts is not None:
            name, password = _text(document, "username"), _text(document, "password")
            try:
                await accounts.create(name, password, facts_of(request, "", {}).address)
            except UserExists:
                # The whole body: docker compares it, and then logs in.
                return value(request, "Username or email already exists", 400)
        return value(request, "User Created", 201)

    async def update(self, request: RegistryRequest, name: str) -> bytes:
        """Change the password of an account, for whoever knows the old one; without accounts, only say so."""
        accounts = _accounts(request)
        if accounts is not None:
            if await _log_in(request, accounts) != name:
                raise _refused(request)
            document = await read_json(request, "Error Decoding JSON")
            if isinstance(document, dict) and "password" in document:
                await accounts.change(name, _text(document, "password"), facts_of(request, "", {}).address)
        return nothing(request, 204)


def _accounts(request: RegistryRequest) -> Accounts | None:
    return None if request.guard is None else request.guard.accounts


async def _log_in(request: RegistryRequest, accounts: Accounts) -> str:
    """The name of the account whose credentials a request carries; Refused without."""
    facts = facts_of(request, "", {})
    given = facts.basic()
    if given is None or not await accounts.check(*given, facts.address):
        raise _refused(request)
    return given[0]


def _refused(request: RegistryRequest) -> Refused:
    request.setHeader("WWW-Authenticate", BASIC_CHALLENGE)
    return Refused(BASIC_CHALLENGE)


def _text(document: Any, key: str) -> str:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, str):
        raise V1Error(message=f"Missing key `{key}' in JSON")
    return found
