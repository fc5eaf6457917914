"""HTTP for what runs without a reactor: commands, and the look at the storage before the server opens its port."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from twisted.python.failure import Failure

from txregistry.concurrency import start
from txregistry.errors import Unavailable
from txregistry.storage.openstack.http import CONNECT_SECONDS, IDLE_SECONDS, PIECE, Body, Stream, Upload


class BlockingHttp:
    """Requests that block, a connection for each; no coroutine of it ever waits, so that all have ended when begun."""

    def __init__(self, cacert: str | None = None) -> None:
        self._cacert = cacert

    def _connection(self, url: Any) -> http.client.HTTPConnection:
        if url.scheme != "https":
            return http.client.HTTPConnection(url.hostname or "", url.port, timeout=CONNECT_SECONDS)
        try:
            context = ssl.create_default_context(cafile=self._cacert)
        except (OSError, ssl.SSLError) as error:
            raise Unavailable("", f"os_cacert: {self._cacert} cannot be read: {error}") from error
        return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=CONNECT_SECONDS, context=context)

    async def open(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None,
        path: str = "",
    ) -> Stream:  # fmt: skip
        """See Http."""
        given = {"Accept-Encoding": "identity", **(headers or {})}
        data: bytes | Iterator[bytes] | None
        if isinstance(body, Upload):
            data = _each(body)
            given |= {"Transfer-Encoding": "chunked"} if body.length is None else {"Content-Length": str(body.length)}
        else:
            data = body if body is None or isinstance(body, bytes) else b"".join(body)
        connection: http.client.HTTPConnection | None = None
        try:
            parts = urlsplit(url)
            connection = self._connection(parts)
            connection.connect()
            connection.sock.settimeout(IDLE_SECONDS)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, data, given, encode_chunked="Transfer-Encoding" in given)
            stream = _Stream(connection, connection.getresponse(), path)
            connection = None
            return stream
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
            line = " ".join(str(error).split()) or type(error).__name__
            raise Unavailable(path, f"{method}: {line}") from error
        finally:
            if connection is not None:
                connection.close()

    async def sleep(self, seconds: float) -> None:
        """See Http."""
        time.sleep(seconds)  # noqa: ASYNC251 - as the class says

    def seconds(self) -> float:
        """See Http."""
        return time.monotonic()

    async def close(self) -> None:
        """There is none to let go of."""


def _each(upload: Upload) -> Iterator[bytes]:
    """The pieces of a body, none of which is waited for."""

    async def following() -> bytes | None:
        async for piece in upload.pieces:
            return piece
        return None

    while True:
        outcome: list[Any] = []
        start(following()).addBoth(outcome.append)
        assert outcome, "it waits for something"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        if outcome[0] is None:
            return
        if outcome[0]:
            yield outcome[0]


class _Stream:
    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, path: str) -> None:
        self.status, self._connection, self._response, self._path = response.status, connection, response, path
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    async def read(self) -> bytes:
        """See Stream."""
        try:
            missing = self._response.length
            piece = self._response.read(PIECE)
            if not piece and missing:
                raise http.client.IncompleteRead(piece, missing)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(self._path, f"the answer was cut off: {type(error).__name__}") from error
        return piece

    def close(self) -> None:
        """See Stream."""
        self._response.close()
        self._connection.close()
