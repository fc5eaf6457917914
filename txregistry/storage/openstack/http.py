"""HTTP for the OpenStack engines: bounded in time and memory, without cookies, redirects or compression.

`treq_http.py` has what serves; `blocking.py` has one of the same shape for whatever runs without a reactor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from txregistry.errors import Unavailable

#: Seconds until a server counts as gone: one that takes no connection, and one between whose bytes so long passes.
CONNECT_SECONDS, IDLE_SECONDS = 5.0, 60.0
#: The most bytes of an answer in one piece.
PIECE = 1024 * 1024
#: The largest answer that is read as a whole unless the caller says otherwise, in bytes.
ANSWER_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that comes in pieces: all its bytes are `length`, or as many as come if that is None."""

    length: int | None
    pieces: AsyncIterator[bytes]


#: What goes with a request; all but an `Upload` can be sent again.
Body = bytes | Sequence[bytes] | Upload


class Stream(Protocol):
    """An answer whose body is read in pieces. Whoever has it closes it."""

    @property
    def status(self) -> int:
        """The status of the answer."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, by their names in lower case."""
        ...

    async def read(self) -> bytes:
        """The next piece, of at most a MiB; empty at the end. Unavailable when the body was cut off."""
        ...

    def close(self) -> None:
        """End it; a second time does nothing."""
        ...


class Http(Protocol):
    """Requests to a server of OpenStack; `path` is what errors are told to be about."""

    async def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        path: str = "",
    ) -> Stream:
        """Send a request; its answer when the head of it has come. Unavailable without one."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def seconds(self) -> float:
        """A clock that nobody sets."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


async def ask(
    http: Http, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None,
    path: str = "", limit: int = ANSWER_LIMIT,
) -> Answer:  # fmt: skip
    """Send a request; its whole answer. Unavailable without one, or with one larger than `limit` bytes."""
    return await whole(await http.open(method, url, headers, body, path), method, path, limit)


async def whole(stream: Stream, method: str, path: str = "", limit: int = ANSWER_LIMIT) -> Answer:
    """All of an answer, which is closed then. Unavailable when it was cut off, or is larger than `limit` bytes."""
    try:
        pieces: list[bytes] = []
        size = 0
        while piece := await stream.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise Unavailable(path, f"an answer of more than {limit} bytes to {method}")
        return Answer(stream.status, stream.headers, b"".join(pieces))
    finally:
        stream.close()
