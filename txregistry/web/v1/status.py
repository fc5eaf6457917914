"""What old servers told about themselves: the greeting, the ping, and whether they work."""

from __future__ import annotations

import socket

from klein import Klein

from txregistry.core.v1.status import SERVICES, UNCONFIGURED
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, route, value


class Status(Routes):
    """`/`, `/_ping` and `/_status`, for which nobody needs to log in."""

    def register(self, app: Klein) -> None:
        """Add these routes; ping and status have two paths each."""
        route(app, "/", {"GET": self.greet})
        for prefix in ("", "/v1"):
            route(app, f"{prefix}/_ping", {"GET": self.ping})
            route(app, f"{prefix}/_status", {"GET": self.status})

    def greet(self, request: RegistryRequest) -> bytes:
        """Say what is here."""
        return value(request, f"docker-registry server ({self.options.flavor})")

    def ping(self, request: RegistryRequest) -> bytes:
        """Say that V1 is spoken here, and whether its clients find repositories and images on the same host."""
        request.setHeader("X-Docker-Registry-Standalone", str(self.options.standalone))
        return value(request, True)

    async def status(self, request: RegistryRequest) -> bytes:
        """Try the services and tell of each that failed; a Redis that is not configured is no failure."""
        failures = await self.v1.status.failures()
        report = {"failures": failures, "host": socket.gethostname(), "services": SERVICES}
        return value(request, report, 200 if set(failures.values()) <= {UNCONFIGURED} else 503)
