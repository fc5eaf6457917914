"""An `Http` whose answers a test gives, with a clock that a test moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from txregistry.storage.openstack.http import Body, Stream


class GivenStream:
    """An answer that is there."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self._body = status, headers, body

    async def read(self) -> bytes:
        """All of it, then nothing."""
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """Nothing to end."""


class GivenHttp:
    """`answer` is asked for each request: method, URL, headers and body. What it raises is raised.

    With `gate` set, an answer is not given before that fires.
    """

    def __init__(
        self, answer: Callable[[str, str, Mapping[str, str], Any], tuple[int, Mapping[str, str], bytes]]
    ) -> None:
        self._answer = answer
        self.now = 100.0
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.gate: Deferred[None] | None = None

    async def open(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None, path: str = ""
    ) -> Stream:
        """See Http."""
        self.requests.append((method, url))
        self.bodies.append(json.loads(body) if isinstance(body, bytes) and body else body)
        if self.gate is not None:
            await self.gate
        return GivenStream(*self._answer(method, url, headers or {}, self.bodies[-1]))

    async def sleep(self, seconds: float) -> None:
        """Let the clock go on."""
        self.now += seconds

    def seconds(self) -> float:
        """The clock."""
        return self.now

    async def close(self) -> None:
        """Nothing to let go of."""
