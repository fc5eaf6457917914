"""Drivers on a Swift in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.swift.fake import AUTH_URL, KEY, USER, FakeHttp, FakeSwift
from txregistry.concurrency import start
from txregistry.storage.swift import segments
from txregistry.storage.swift.connection import Connection
from txregistry.storage.swift.container import Container
from txregistry.storage.swift.driver import SwiftDriver
from txregistry.storage.swift.options import SwiftOptions, TempAuthOptions
from txregistry.testing.pools import ImmediatePool

OPTIONS = SwiftOptions(container="c", auth=TempAuthOptions(auth_url=AUTH_URL, user=USER, key=KEY), root="some/ röot/")


class ServerClock:
    """The time of day as the server has it."""

    def __init__(self, server: FakeSwift) -> None:
        self._server = server

    def seconds(self) -> float:
        return self._server.now


def driver_on(server: FakeSwift, http: FakeHttp | None = None, options: SwiftOptions = OPTIONS) -> SwiftDriver:
    """A driver, as another process would have."""
    connection = Connection(options, http or FakeHttp(server), shake=lambda: 0.5)
    return SwiftDriver(Container(connection), ImmediatePool(), ServerClock(server))


def server_of(driver: SwiftDriver) -> FakeSwift:
    """The server that it speaks with."""
    http = driver.container.connection.http
    assert isinstance(http, FakeHttp)
    return http.server


class SmallSegments(SynchronousTestCase):
    """Segments of 100 bytes, and manifests of at most four."""

    def setUp(self) -> None:
        self.patch(segments, "SMALLEST", 100)
        self.patch(segments, "LARGEST", 100)
        self.patch(segments, "ENTRIES", 4)
        self.server = FakeSwift()
        self.driver = driver_on(self.server)

    def run_all(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(start(coroutine))

    def keys(self) -> list[str]:
        return [name.removeprefix("some/ röot/") for name in self.server.containers["c"]]

    async def upload(self, path: str, target: str, data: bytes, step: int = 30) -> None:
        partial = await self.driver.partial(path, create=True)
        for at in range(0, len(data), step):
            await partial.write([data[at : at + step]], at)
        await partial.commit(target)
        await partial.close()

    async def content(self, path: str, begin: int = 0) -> bytes:
        reader = await self.driver.open(path)
        try:
            return b"".join([piece async for piece in reader.chunks(begin, reader.size)])
        finally:
            reader.close()
