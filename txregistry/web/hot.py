"""Hot answers: what routes have answered is kept, and given again while the store proves that it still holds.

This is no second implementation of anything. A route offers its finished answer with a proof (`keep`); what is kept are
the headers and the body that the client gets, and only the dates in it are renewed. Before each use the proof is looked
at in the store itself, so that a change by any process counts at once, and it is decided anew whether this client may
have the answer. Where either cannot be told at once, and for every request that is in any way unusual, the route has
the word: `answer` returns None, and it is as if there were nothing here.

What is usual is written down below: these headers change no answer, and a request with any other one is not answered
from here, nor is the answer to it kept.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted.web.http import datetimeToString

from txregistry.auth.guard import Guard
from txregistry.core.proofs import Proof

if TYPE_CHECKING:
    from txregistry.web.channel import Channel
    from txregistry.web.request import RegistryRequest
    from txregistry.web.site import RegistrySite

#: Bytes of answers that are kept, and the largest part of them that one may take.
KEPT_BYTES = 16 * 1024 * 1024
SHARE = 16
#: Bytes and line breaks of the head of a usual request, at most. Twisted counts both, in its own way.
_HEAD_LIMIT, _LINES = 8192, 100
#: What one answer takes besides its own bytes, roughly.
_OVERHEAD = 1500

#: Headers that change no answer, however often they come.
_IDLE = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "cache-control", "docker-distribution-api-version"),
        *("pragma", "traceparent", "tracestate", "x-request-id"),
    }
)
#: Those that are looked at; one of them twice is unusual.
_READ = frozenset(["authorization", "connection", "host", "user-agent"])
#: Those in which front ends tell whom they were asked by.
_FORWARDED = frozenset(["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"])
_USUAL = frozenset(name.encode("ascii") for name in _IDLE | _READ | _FORWARDED)

_PRINTABLE = bytes(range(0x20, 0x7F))
#: In a target: what the access log would show in another way, or a query.
_ODD = re.compile(rb'[^ -~]|["\\?@ ]')
#: In an answer: what is for one client, or one connection.
_PASSING = frozenset([b"Connection", b"Set-Cookie", b"Transfer-Encoding"])


@dataclass(frozen=True, slots=True)
class Usual:
    """A usual request: its first line, those of its headers that are looked at, and what front ends say."""

    line: str
    headers: Mapping[str, str]
    forwarded: Mapping[str, list[str]]

    @classmethod
    def of(cls, head: bytes) -> Usual | None:
        """Read a whole head; None for any other.

        A client sends the same again and again, so the last ones are remembered; but no passwords.
        """
        return cls.parse(head) if b"authorization" in head.lower() else _remembered(head)

    @classmethod
    def parse(cls, head: bytes) -> Usual | None:
        """Read it without remembering it."""
        lines = head.split(b"\r\n")
        breaks = len(lines) - 1
        if len(head) > _HEAD_LIMIT or breaks > _LINES or head[-4:] != b"\r\n\r\n":
            return None
        if head.translate(None, _PRINTABLE) != b"\r\n" * breaks:
            return None
        line, *rest = head[:-4].decode("ascii").split("\r\n")
        headers: dict[str, str] = {}
        forwarded: dict[str, list[str]] = {}
        for text in rest:
            name, colon, value = text.partition(":")
            name = name.lower()
            if not colon:
                return None
            if name in _IDLE:
                continue
            if name in _FORWARDED:
                forwarded.setdefault(name, []).append(value.strip(" "))
            elif name in _READ and name not in headers:
                headers[name] = value.strip(" ")
            else:
                return None
        if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
            return None
        return cls(line, headers, forwarded)


@lru_cache(maxsize=256)
def _remembered(head: bytes) -> Usual | None:
    return Usual.parse(head)


class Kept:
    """An answer: its headers, its body if that is kept too, and what has to be so for it to be given.

    With `v1` its route is one of V1, where others may read than in V2. `admits` tells of an Authorization header
    whether the answer is the same for it; without it, it is for any. `expires` are the seconds from an answer to its
    `Expires`, if it has one.
    """

    __slots__ = ("_expires", "_fields", "_second", "admits", "body", "head", "proof", "size", "v1")

    def __init__(
        self,
        fields: Sequence[tuple[bytes, bytes]],
        body: bytes | None,
        proof: Proof,
        v1: bool,
        admits: Callable[[str], bool] | None,
        expires: float | None,
    ) -> None:
        self._fields = fields
        self._expires = expires
        self._second = -1
        self.head = b""
        self.body = body
        self.proof = proof
        self.v1 = v1
        self.admits = admits
        self.size = _OVERHEAD + len(body or b"")

    def renew(self, second: int, date: bytes) -> None:
        """Let the dates be those of this second."""
        if second == self._second:
            return
        dates = {b"Date": date}
        if self._expires is not None:
            dates[b"Expires"] = formatdate(second + self._expires, usegmt=True).encode("ascii")
        lines = [b"%s: %s\r\n" % (name, dates.get(name, value)) for name, value in self._fields]
        self.head = b"".join([b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n"])
        self._second = second


class Hot:
    """The answers that a site keeps: up to `limit` bytes, those that were not asked for the longest being given up."""

    def __init__(self, site: RegistrySite, guard: Guard | None, limit: int = KEPT_BYTES) -> None:
        self._site = site
        self._guard = guard
        self._limit = limit
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._second = -1
        self._date = b""
        #: Bytes that are kept now.
        self.size = 0

    # -- giving -------------------------------------------------------------------------------------------------

    def answer(self, channel: Channel, head: bytes) -> bytes | None:
        """The whole answer to a request, or None: see `site.HotAnswers`."""
        words = head.split(b" ", 2)
        kept = self._kept.get(words[1]) if len(words) == 3 else None
        if kept is None or not words[2].startswith(b"HTTP/1.1\r\n"):
            return None
        body = kept.body if words[0] == b"GET" else b"" if words[0] == b"HEAD" else None
        usual = None if body is None else Usual.of(head)
        if body is None or usual is None or not self._admits(kept, usual):
            return None
        agent = usual.headers.get("user-agent") or "-"
        if '"' in agent or "\\" in agent:
            return None
        if not kept.proof.holds():
            self._drop(words[1])
            return None
        self._kept.move_to_end(words[1])
        second = int(self._site.reactor.seconds())
        if second != self._second:
            self._second, self._date = second, datetimeToString()
        kept.renew(second, self._date)
        self._site.log_soon(self._client(channel, usual), usual.line, len(body), agent)
        return kept.head + body

    def _admits(self, kept: Kept, usual: Usual) -> bool:
        """Whether this client is to have this answer; False as well if that cannot be told at once."""
        authorization = usual.headers.get("authorization", "")
        if self._guard is not None and not self._guard.allows_now(not kept.v1, authorization):
            return False
        return kept.admits is None or kept.admits(authorization)

    def _client(self, channel: Channel, usual: Usual) -> str:
        """The client's address for the access log."""
        peer = channel.client_host()
        proxies = self._site.proxies
        if proxies is None:
            return peer or "-"
        # Whether the client used TLS is in no log.
        origin = proxies.origin(peer, False, lambda name: usual.forwarded.get(name.lower(), ()))
        return peer or "-" if origin is None else origin.address

    # -- keeping ------------------------------------------------------------------------------------------------

    def keep(
        self,
        request: RegistryRequest,
        proof: Proof,
        body: bytes | None,
        v1: bool = False,
        admits: Callable[[str], bool] | None = None,
        expires: float | None = None,
    ) -> None:
        """Keep the answer whose headers are set, unless it is unusual; of one without `body` what HEAD is answered."""
        target = request.uri
        fields = [(name, value) for name, values in request.responseHeaders.getAllRawHeaders() for value in values]
        length = next((int(value) for name, value in fields if name == b"Content-Length"), None)
        if length is None or (body is not None and len(body) != length) or len(body or b"") > self._limit // SHARE:
            return
        if request.code != 200 or any(name in _PASSING for name, _ in fields) or not _is_usual(request):
            return
        if body is None and target in self._kept:
            return
        self._drop(target)
        kept = self._kept[target] = Kept(fields, body, proof, v1, admits, expires)
        kept.size += len(target)  # before V1's paths may stand any number of slashes
        self.size += kept.size
        while self.size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, target: bytes) -> None:
        kept = self._kept.pop(target, None)
        if kept is not None:
            self.size -= kept.size


def _is_usual(request: RegistryRequest) -> bool:
    """Whether nothing about a request, and what it was allowed, could make its answer another than anybody's."""
    return (
        request.method in (b"GET", b"HEAD")
        and request.clientproto == b"HTTP/1.1"
        and _ODD.search(request.uri) is None
        and request.grant.glance is None
        and all(name.lower() in _USUAL for name, _ in request.requestHeaders.getAllRawHeaders())
    )


def keep(
    request: RegistryRequest,
    proof: Proof | None,
    body: bytes | None,
    *,
    v1: bool = False,
    admits: Callable[[str], bool] | None = None,
    expires: float | None = None,
) -> None:
    """Let the site keep this answer, whose headers are all set, if it keeps any and there is a proof.

    Routes of V1 say so, as others may read there than in V2. `admits` tells of an Authorization header whether the
    answer would be the same for a request with it, beyond whether the guard lets it through. `expires` are the seconds
    after which this answer says that it expires.
    """
    hot = request.site.hot
    if hot is not None and proof is not None:
        hot.keep(request, proof, body, v1, admits, expires)
