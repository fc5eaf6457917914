"""Accounts, as a registry without an index pretends to have them: whoever asks for one has it."""

from __future__ import annotations

from klein import Klein

from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, nothing, read_json, route, value


class Users(Routes):
    """`/v1/users/`, which `docker login` asks."""

    def register(self, app: Klein) -> None:
        """Add the routes, with and without the last slash: not every client follows a redirect."""
        for rule in ("/v1/users", "/v1/users/"):
            route(app, rule, {"GET": self.log_in, "POST": self.create})
        for rule in ("/v1/users/<name>", "/v1/users/<name>/"):
            route(app, rule, {"PUT": self.update})

    def log_in(self, request: RegistryRequest) -> bytes:
        """Take any credentials."""
        return value(request, "OK")

    async def create(self, request: RegistryRequest) -> bytes:
        """Say that an account was created. Nothing is kept."""
        await read_json(request, "Error Decoding JSON")
        return value(request, "User Created", 201)

    def update(self, request: RegistryRequest, name: str) -> bytes:
        """Say that an account was changed."""
        return nothing(request, 204)
