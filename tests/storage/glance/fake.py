"""A Glance in memory, spoken to in place of HTTP, that behaves as the real one was seen to, behind a Keystone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from txregistry.errors import Unavailable
from txregistry.storage.openstack.http import PIECE, Stream, Upload

OWNER, FOREIGN = "project-1", "project-2"
URL, KEYSTONE = "http://glance.test/image", "http://keystone.test"
#: The filters of a search that are no properties.
_PLAIN = {"disk_format", "container_format", "owner", "limit", "sort", "marker", "name"}


class FakeStream:
    """An answer that has come."""

    def __init__(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.status, self._body = status, body
        self.headers = {"content-length": str(len(body)), **(headers or {})}
        self.closed = False
        self.cut: int | None = None

    async def read(self) -> bytes:
        if self.cut is not None and self.cut <= 0:
            raise Unavailable("", "the answer was cut off")
        size = PIECE if self.cut is None else min(PIECE, self.cut)
        piece, self._body = self._body[:size], self._body[size:]
        if self.cut is not None:
            self.cut -= len(piece)
        return piece

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeImage:
    """An image; `hidden` are properties that only version 1 of the API showed."""

    document: dict[str, Any]
    data: bytes | None = None
    hidden: dict[str, str] = field(default_factory=dict)


class FakeGlance:
    """`Http` to both. `out` lets nothing through; `before` is called with each request, and may raise."""

    def __init__(self, project: str | None = OWNER) -> None:
        self.images: dict[str, FakeImage] = {}
        self.used: set[str] = set()
        self.project = project
        self.out = False
        self.ranges = True
        self.algorithm = "sha512"
        self.requests: list[str] = []
        self.searches: list[dict[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, target: None
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.cut: int | None = None
        self.token = "token-0"
        self.tokens = 0
        self.now = 0.0
        self.page: int | None = None
        #: The tokens of clients, and what each of them is answered, 0 if it may do everything.
        self.clients: dict[str | None, int] = {}
        self.urls: list[str] = []

    # -- Http -----------------------------------------------------------------------------------------------------

    async def open(
        self, method: str, url: str, headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[bytes] | Upload | None = None, path: str = "",
    ) -> Stream:  # fmt: skip
        parts = urlsplit(url)
        if self.out:
            raise Unavailable(path, f"{method}: connection refused")
        if url.startswith(KEYSTONE):
            return self._sign_in()
        self.urls.append(url)
        target = parts.path.removeprefix("/image")
        self.requests.append(f"{method} {target}")
        self.before(method, target)
        data = body if isinstance(body, bytes) else b""
        if isinstance(body, Upload):
            data = b"".join([piece async for piece in body.pieces])
            assert body.length in (None, len(data))
        given = (headers or {}).get("X-Auth-Token")
        if given in self.clients:
            return (
                FakeStream(self.clients[given])
                if self.clients[given]
                else self._answer(method, target, {}, headers or {}, data)
            )
        if self.project is not None and given != self.token:
            return FakeStream(401)
        answer = self._answer(method, target, dict(parse_qsl(parts.query)), headers or {}, data)
        if self.cut is not None and target.endswith("/file") and method == "GET":
            answer.cut, self.cut = self.cut, None
        return answer

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def seconds(self) -> float:
        return self.now

    async def close(self) -> None:
        pass

    def _sign_in(self) -> FakeStream:
        self.tokens += 1
        self.token = f"token-{self.tokens}"
        endpoints = [{"interface": "public", "region": "one", "url": URL}]
        token = {"project": {"id": self.project}, "catalog": [{"type": "image", "endpoints": endpoints}]}
        return FakeStream(201, json.dumps({"token": token}).encode(), {"x-subject-token": self.token})

    def expire(self) -> None:
        """Let the token that is in use be refused from now on."""
        self.token = "another"

    # -- Glance ---------------------------------------------------------------------------------------------------

    def _answer(
        self, method: str, target: str, query: dict[str, str], headers: Mapping[str, str], data: bytes
    ) -> FakeStream:
        if target == "/v2/images":
            return self._search(query) if method == "GET" else self._create(json.loads(data))
        name, _, rest = target.removeprefix("/v2/images/").partition("/")
        image = self.images.get(name)
        if image is None or (method != "GET" and image.document["owner"] != self.project):
            return FakeStream(404)
        if rest == "file":
            return self._upload(image, data) if method == "PUT" else self._download(image, headers.get("Range"))
        if method == "DELETE":
            if image.document["protected"]:
                return FakeStream(403)
            if image.document["status"] == "deleted":
                return FakeStream(400)
            del self.images[name]
            return FakeStream(204)
        if method == "PATCH":
            for change in json.loads(data):
                image.document[change["path"][1:].replace("~1", "/").replace("~0", "~")] = change["value"]
        return self._json(200, image.document)

    @staticmethod
    def _json(status: int, document: object) -> FakeStream:
        return FakeStream(status, json.dumps(document).encode())

    def add(
        self, image: str, properties: Mapping[str, str], data: bytes | None, owner: str | None = OWNER, **more: Any
    ) -> FakeImage:  # fmt: skip
        """Put an image there."""
        self.used.add(image)
        document = {
            "id": image, "owner": owner, "status": "queued", "size": None, "protected": False, "name": None,
            "os_hash_algo": None, "os_hash_value": None, "created_at": f"2014-01-20T00:00:{len(self.used):02}Z",
            "disk_format": "raw", "container_format": "docker", **properties, **more,
        }  # fmt: skip
        made = self.images[image] = FakeImage(document)
        if data is not None:
            self._upload(made, data)
        return made

    def _create(self, document: dict[str, Any]) -> FakeStream:
        if document["id"] in self.used:
            return FakeStream(409)
        return self._json(201, self.add(document["id"], document, None, self.project).document)

    def _upload(self, image: FakeImage, data: bytes) -> FakeStream:
        if image.document["status"] != "queued":
            return FakeStream(409)
        image.data = self.spoil(data)
        total = hashlib.new(self.algorithm, image.data).hexdigest()
        image.document.update(status="active", size=len(image.data), os_hash_algo=self.algorithm, os_hash_value=total)
        return FakeStream(204)

    def _download(self, image: FakeImage, asked: str | None) -> FakeStream:
        if image.data is None:
            return FakeStream(204)
        if asked is None or not self.ranges:
            return FakeStream(200, image.data)
        begin, _, end = asked.removeprefix("bytes=").partition("-")
        last = int(end) if end else len(image.data) - 1
        headers = {"content-range": f"bytes {begin}-{last}/{len(image.data)}"}
        return FakeStream(206, image.data[int(begin) : last + 1], headers)

    def _search(self, query: dict[str, str]) -> FakeStream:
        self.searches.append(query)
        found = []
        for image in sorted(self.images.values(), key=lambda each: str(each.document["id"])):
            document = image.document
            if query.get("owner", document["owner"]) != document["owner"]:
                continue
            if "name" in query and f"eq:{document['name']}" != query["name"]:
                continue
            if any(document.get(name) != value for name, value in query.items() if name not in _PLAIN):
                continue
            found.append(document)
        ids = [document["id"] for document in found]
        start = ids.index(query["marker"]) + 1 if "marker" in query else 0
        end = start + (self.page or int(query["limit"]))
        answer: dict[str, object] = {"images": found[start:end]}
        if end < len(found):
            more = "&".join(f"{name}={value}" for name, value in {**query, "marker": ids[end - 1]}.items())
            answer["next"] = f"/v2/images?{more}"
        return self._json(200, answer)
