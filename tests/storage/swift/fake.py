"""A Swift in memory, spoken with as the driver speaks HTTP: tempauth, objects, listings, and static large objects.

As in the real one, that nothing is there yet is looked at when a PUT begins, and what is put is there when it ends.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from txregistry.errors import Unavailable
from txregistry.storage.openstack.http import Body, Stream, Upload

AUTH_URL, STORAGE_URL = "http://swift.test/auth/v1.0", "http://swift.test/v1/AUTH_test"
USER, KEY = "test:tester", "testing"


@dataclass
class Stored:
    """An object; `manifest` are the paths of the segments of a large one."""

    data: bytes
    modified: float
    manifest: list[dict[str, Any]] | None = None
    meta: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


@dataclass
class Request:
    """What came, in parts; `path` is below the account, quoted no more."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Reply = tuple[int, dict[str, str], bytes]


class FakeSwift:
    """The server. `fault` may give another answer than the true one: it is called with each request, and with None
    that one is given; it may also raise. `log` has the method and path of each request.
    """

    def __init__(self) -> None:
        self.now = 1_700_000_000.25
        self.containers: dict[str, dict[str, Stored]] = {"c": {}}
        self.tokens = {"token-0"}
        self.log: list[str] = []
        self.fault: Callable[[Request], Reply | None] = lambda _: None
        #: Called in the middle of a PUT: when it was looked at, and is not there yet.
        self.late: Callable[[Request], None] = lambda _: None
        #: Bytes of an answer after which it is cut off, for answers to GET that have more, and how many of them.
        self.cut = (0, 0)

    def begin(self, request: Request) -> Reply | Callable[[], Reply]:
        """The answer, or what gives it at the end."""
        self.log.append(f"{request.method} {request.path}")
        found = self.fault(request)
        if found is not None:
            return found
        if request.path == AUTH_URL:
            if (request.headers.get("x-auth-user"), request.headers.get("x-auth-key")) != (USER, KEY):
                return 401, {}, b""
            token = f"token-{len(self.tokens)}"
            self.tokens.add(token)
            return 200, {"x-auth-token": token, "x-storage-url": STORAGE_URL, "x-auth-token-expires": "3600"}, b""
        if request.headers.get("x-auth-token") not in self.tokens:
            return 401, {}, b""
        container, _, name = request.path.partition("/")
        objects = self.containers.get(container)
        if objects is None:
            return 404, {}, b""
        if not name:
            return (204, {}, b"") if request.method == "HEAD" else self._listing(objects, request.query)
        if request.method == "PUT":
            if request.headers.get("if-none-match") == "*" and name in objects:
                return 412, {}, b""
            if request.query.get("multipart-manifest") == "put" and not self._looked_at(json.loads(request.body)):
                return 400, {}, b"missing"
            return lambda: self._put(objects, name, request)
        if name not in objects:
            return 404, {}, b""
        if request.method == "DELETE":
            return lambda: self._delete(objects, name, request)
        return self._get(objects, name, request)

    def _head(self, stored: Stored) -> dict[str, str]:
        large = {"x-static-large-object": "True"} if stored.manifest is not None else {}
        etag = f'"{stored.etag}"' if large else stored.etag
        return {"etag": etag, "date": formatdate(int(self.now), usegmt=True), "x-timestamp": f"{stored.modified:.5f}",
                "content-length": str(len(stored.data)), **large, **stored.meta}  # fmt: skip

    def _bytes(self, stored: Stored) -> bytes | None:
        """What a GET sends; None if a segment is gone."""
        if stored.manifest is None:
            return stored.data
        pieces = []
        for entry in stored.manifest:
            segment = self._at(entry["path"])
            inner = None if segment is None else self._bytes(segment)
            if inner is None:
                return None
            pieces.append(inner)
        return b"".join(pieces)

    def _at(self, path: str) -> Stored | None:
        container, _, name = path.removeprefix("/").partition("/")
        return self.containers.get(container, {}).get(name)

    def _get(self, objects: dict[str, Stored], name: str, request: Request) -> Reply:
        stored = objects[name]
        if request.query.get("multipart-manifest") == "get" and stored.manifest is not None:
            return 200, {**self._head(stored)}, json.dumps(stored.manifest).encode()
        data, head = self._bytes(stored), self._head(stored)
        if request.method == "HEAD":  # which looks at no segment
            size = len(stored.data) if stored.manifest is None else sum(each["size_bytes"] for each in stored.manifest)
            return 200, {**head, "content-length": str(size)}, b""
        if data is None:
            return 409, {}, b""
        if request.headers.get("if-match", stored.etag) != stored.etag:
            return 412, {}, b""
        wanted = re.match(r"bytes=(\d+)-(\d+)$", request.headers.get("range", ""))
        if not wanted:
            return 200, {**head, "content-length": str(len(data))}, data
        part = data[int(wanted[1]) : int(wanted[2]) + 1]
        spoken = f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}"
        return 206, {**head, "content-range": spoken, "content-length": str(len(part))}, part

    def _looked_at(self, manifest: list[dict[str, Any]]) -> bool:
        assert 0 < len(manifest) <= 1000
        for entry in manifest:
            segment = self._at(entry["path"])
            data = None if segment is None else self._bytes(segment)
            if data is None or len(data) != entry["size_bytes"]:
                return False
        return True

    def _put(self, objects: dict[str, Stored], name: str, request: Request) -> Reply:
        self.late(request)
        self.now += 0.00001
        meta = {key: value for key, value in request.headers.items() if key.startswith("x-object-meta-")}
        new = Stored(request.body, self.now, meta=meta)
        if "x-copy-from" in request.headers:
            source = self._at(unquote(request.headers["x-copy-from"]))
            if source is None:
                return 404, {}, b""
            new.data = source.data
        elif request.query.get("multipart-manifest") == "put":
            new.manifest = json.loads(request.body)
            new.data = b"".join(entry["path"].encode() for entry in new.manifest)
        elif request.headers.get("etag", new.etag) != new.etag:
            return 422, {}, b""
        objects[name] = new
        return 201, {"etag": new.etag}, b""

    def _delete(self, objects: dict[str, Stored], name: str, request: Request) -> Reply:
        stored = objects.pop(name, None)
        if request.query.get("multipart-manifest") != "delete":
            return (404, {}, b"") if stored is None else (204, {}, b"")
        waiting = [] if stored is None else list(stored.manifest or ())
        while waiting:
            container, _, segment = waiting.pop()["path"].removeprefix("/").partition("/")
            found = self.containers[container].pop(segment, None)
            waiting += [] if found is None else found.manifest or []
        return 200, {}, json.dumps({"Response Status": "200 OK", "Errors": []}).encode()

    def _listing(self, objects: dict[str, Stored], query: dict[str, str]) -> Reply:
        prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter"), query.get("marker", "")
        entries: dict[str, dict[str, Any]] = {}
        for name in sorted(objects):
            if not name.startswith(prefix):
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            shown = name if cut < 0 else name[: cut + 1]
            if shown > marker and shown not in entries:
                stored = objects[name]
                then = datetime.fromtimestamp(stored.modified, UTC).replace(tzinfo=None).isoformat()
                large = {"slo_etag": stored.etag} if stored.manifest is not None else {}
                entries[shown] = (
                    {"name": name, "hash": stored.etag, "bytes": len(stored.data), "last_modified": then, **large}
                    if cut < 0
                    else {"subdir": shown}
                )
        return 200, {}, json.dumps(list(entries.values())[: int(query.get("limit", "10000"))]).encode()


class FakeStream:
    """An answer in pieces; `cut` is the number of bytes after which it breaks."""

    def __init__(self, reply: Reply, cut: int | None) -> None:
        self.status, self.headers, self._body = reply
        self._cut, self._at, self.closed = cut, 0, False

    async def read(self) -> bytes:
        """The next piece."""
        if self.closed:
            raise Unavailable("", "it was closed")
        end = min(len(self._body), self._at + 100_000)
        if self._cut is not None:
            end = min(end, self._cut)
            if end == self._at:
                raise Unavailable("", "the answer was cut off")
        piece, self._at = self._body[self._at : end], end
        return piece

    def close(self) -> None:
        """End it."""
        self.closed = True


class FakeHttp:
    """Requests to the server, which are answered at once; `wait` is awaited where one might have to wait."""

    def __init__(self, server: FakeSwift) -> None:
        self.server = server
        self.streams: list[FakeStream] = []

    async def wait(self, what: str) -> None:
        """Nothing to wait for."""

    async def open(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None, path: str = ""
    ) -> Stream:
        """See Http."""
        parts = urlsplit(url)
        base = url.partition("?")[0]
        place = base if base == AUTH_URL else unquote(base.removeprefix(f"{STORAGE_URL}/"))
        given = {name.lower(): value for name, value in (headers or {}).items()}
        data = await self._data(body)
        await self.wait(f"{method} {place}")
        reply = self.server.begin(Request(method, place, dict(parse_qsl(parts.query)), given, data))
        if callable(reply):
            await self.wait("end")
            reply = reply()
        await self.wait("answer")
        cut = None
        after, times = self.server.cut
        if method == "GET" and times and len(reply[2]) > after and reply[0] < 300:
            cut, self.server.cut = after, (after, times - 1)
        stream = FakeStream(reply, cut)
        self.streams.append(stream)
        return stream

    @staticmethod
    async def _data(body: Body | None) -> bytes:
        if isinstance(body, Upload):
            pieces: AsyncIterator[bytes] = body.pieces
            return b"".join([piece async for piece in pieces])
        return body if isinstance(body, bytes) else b"".join(body or ())

    async def sleep(self, seconds: float) -> None:
        """Let the server's clock go on."""
        self.server.now += seconds
        await self.wait("sleep")

    def seconds(self) -> float:
        """The server's clock."""
        return self.server.now

    async def close(self) -> None:
        """Nothing to let go of."""
