"""Glance, version 2 of its API: what the engine asks of it, in bounded time, with a token that is renewed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from txregistry.errors import NoSpace, NotFound, StorageError, Unavailable
from txregistry.interfaces import Access
from txregistry.storage.openstack.http import Answer, Http, Stream, Upload, whole
from txregistry.storage.openstack.keystone import Keystone
from txregistry.storage.openstack.tokens import Refused

#: Images of one page of a search: old servers kept lists of files in properties, so that a page may be long.
PAGE = 20
PAGE_LIMIT = 64 * 1024 * 1024
_JSON = "application/json"
_PATCH = "application/openstack-images-v2.1-json-patch"
#: What every image of ours is; old servers made them so too.
FORMAT = {"disk_format": "raw", "container_format": "docker"}
#: The states of an image that will never have bytes again.
DEAD = frozenset({"deleted", "pending_delete"})
#: Bytes of the longest value that Glance's database takes everywhere.
VALUE_LIMIT = 60000


class Conflict(StorageError):
    """Glance will not do this to an image that is as it is."""


@dataclass(frozen=True, slots=True)
class Image:
    """What Glance says of an image; `size` is None, and `sha512` empty, until all its bytes are in."""

    id: str
    status: str
    size: int | None
    sha512: str
    owner: str | None
    created: str
    name: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it has bytes that can be read."""
        return self.status == "active" and self.size is not None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Image:
        """From Glance's JSON."""
        algorithm, size = document.get("os_hash_algo"), document.get("size")
        return cls(
            str(document["id"]),
            str(document.get("status")),
            size if isinstance(size, int) else None,
            str(document.get("os_hash_value") or "") if algorithm == "sha512" else "",
            document.get("owner"),
            str(document.get("created_at") or ""),
            document.get("name"),
            {name: value for name, value in document.items() if isinstance(value, str)},
        )


def fits(value: str) -> bool:
    """Whether text can be a property: short, and without characters that old databases do not take."""
    return len(value.encode("utf-8", "replace")) <= VALUE_LIMIT and all(ord(letter) <= 0xFFFF for letter in value)


class Glance:
    """The images of one project. Without a Keystone everybody may do everything, and there is no project."""

    def __init__(
        self, http: Http, keystone: Keystone | None, url: str | None = None, region: str | None = None
    ) -> None:
        self._http, self._keystone, self._url, self._region = http, keystone, url, region

    async def owner(self) -> str | None:
        """The id of the project whose images are ours."""
        return None if self._keystone is None else await self._keystone.project() or None

    async def _base(self) -> str:
        if self._url is None:
            assert self._keystone is not None, "the options ask for an address or for Keystone"
            self._url = await self._keystone.endpoint("image", self._region)
        return self._url.rstrip("/").removesuffix("/v2")

    # -- requests -------------------------------------------------------------------------------------------------

    async def _open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], bytes | Upload] | None = None,
        path: str = "",
    ) -> Stream:
        """An answer, asked for again with a new token if it is 401."""
        given = dict(headers or {})
        for renewed in (False, True):
            token = None if self._keystone is None else await self._keystone.token()
            if token is not None:
                given["X-Auth-Token"] = token
            url = f"{await self._base()}{target}"
            stream = await self._http.open(method, url, given, None if body is None else body(), path)
            if stream.status != 401:
                return stream
            stream.close()
            if self._keystone is None or token is None or renewed:
                break
            self._keystone.refused(token)
        raise Refused(path, "Glance refuses the registry's token (401)")

    async def _ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], bytes | Upload] | None = None,
        path: str = "",
    ) -> Answer:
        return await whole(await self._open(method, target, headers, body, path), method, path, PAGE_LIMIT)

    @staticmethod
    def _check(answer: Answer | Stream, method: str, path: str, fine: Sequence[int]) -> None:
        status = answer.status
        if status in fine:
            return
        if status == 404:
            raise NotFound(path, "Glance has no such image")
        if status in (409, 410):
            raise Conflict(path, f"Glance answers {status} to {method}")
        if status in (413, 507):
            raise NoSpace(path, f"Glance answers {status} to {method}")
        said = " ".join(answer.body[:300].decode("utf-8", "replace").split()) if isinstance(answer, Answer) else ""
        raise Unavailable(path, f"Glance answers {status} to {method}{': ' if said else ''}{said}")

    @staticmethod
    def _document(answer: Answer, path: str) -> Any:
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise Unavailable(path, "Glance's answer is no JSON") from None

    def _image(self, document: Any, path: str) -> Image:
        try:
            return Image.of(document)
        except (KeyError, TypeError, AttributeError):
            raise Unavailable(path, "Glance's answer describes no image") from None

    # -- images ---------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """See that it answers, and answers us. Unavailable without an answer; Refused with a wrong one."""
        if self._keystone is not None:
            await self._keystone.token()
        try:
            base = await self._base()
        except Unavailable as error:
            raise Refused("", error.reason) from error
        answer = await self._ask("GET", "/v2/images?limit=1")
        if answer.status >= 500:
            raise Unavailable("", f"Glance at {base} answers {answer.status}")
        if answer.status != 200 or b'"images"' not in answer.body:
            raise Refused("", f"what is at {base} does not answer as Glance does ({answer.status})")

    async def create(self, image: str, properties: Mapping[str, str], path: str = "") -> Image:
        """Make an image under an id that was never used; Conflict for one that was."""
        document = {"id": image, **FORMAT, **properties}
        headers = {"Content-Type": _JSON}
        answer = await self._ask("POST", "/v2/images", headers, lambda: json.dumps(document).encode(), path)
        self._check(answer, "POST", path, (201,))
        return self._image(self._document(answer, path), path)

    async def upload(self, image: str, body: Callable[[], Upload], path: str = "") -> None:
        """Send the bytes of an image that has none."""
        headers = {"Content-Type": "application/octet-stream"}
        answer = await self._ask("PUT", f"/v2/images/{image}/file", headers, body, path)
        self._check(answer, "PUT", path, (204,))

    async def patch(self, image: str, changes: Sequence[Mapping[str, object]], path: str = "") -> None:
        """Change properties: JSON patches, all or none."""
        headers = {"Content-Type": _PATCH}
        answer = await self._ask("PATCH", f"/v2/images/{image}", headers, lambda: json.dumps(changes).encode(), path)
        self._check(answer, "PATCH", path, (200,))

    async def set(self, image: str, properties: Mapping[str, str], path: str = "") -> None:
        """Give an image properties, whether it has others of these names or not."""
        await self.patch(
            image, [{"op": "add", "path": f"/{_escaped(n)}", "value": v} for n, v in properties.items()], path
        )

    async def rename(self, image: str, name: str | None) -> None:
        """Give an image a name, or take it away."""
        await self.patch(image, [{"op": "replace", "path": "/name", "value": name}])

    async def image(self, image: str, path: str = "") -> Image:
        """What is known of an image; NotFound."""
        answer = await self._ask("GET", f"/v2/images/{image}", path=path)
        self._check(answer, "GET", path, (200,))
        return self._image(self._document(answer, path), path)

    async def find(self, filters: Mapping[str, str], path: str = "") -> list[Image]:
        """All images of our own project that these filters match, oldest first.

        A project may be shown images of others, with any properties; so the owner is asked for, and looked at again.
        """
        owner = await self.owner()
        # By what no two have in common, so that no page begins in the middle of equals.
        query = {**FORMAT, **filters, "limit": str(PAGE), "sort": "id:asc"}
        if owner is not None:
            query["owner"] = owner
        target: str | None = f"/v2/images?{urlencode(query)}"
        found: list[Image] = []
        seen: set[str] = set()
        while target is not None:
            if target in seen:
                raise Unavailable(path, "Glance's pages come round again")
            seen.add(target)
            answer = await self._ask("GET", target, path=path)
            self._check(answer, "GET", path, (200,))
            document = self._document(answer, path)
            if not isinstance(document, dict) or not isinstance(document.get("images"), list):
                raise Unavailable(path, "what answers is not Glance")
            images = [self._image(each, path) for each in document["images"]]
            found += [each for each in images if each.owner == owner and each.status not in DEAD]
            following = document.get("next")
            # Its address may be another than ours: Glance does not know what is in front of it.
            target = f"/v2/images?{str(following).partition('?')[2]}" if following and images else None
        return sorted(found, key=lambda each: (each.created, each.id))

    async def download(
        self, image: str, start: int, stop: int | None, path: str = "", access: Access | None = None
    ) -> tuple[Stream, int]:
        """The bytes of a range, to the end if that is None; with how many have to be skipped to begin with.

        With the rights of `access` alone, if given: NotFound for what Glance does not show to those.
        """
        headers = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        target = f"/v2/images/{image}/file"
        if access is None:
            stream = await self._open("GET", target, headers, path=path)
        else:
            base = (access.endpoint or await self._base()).rstrip("/").removesuffix("/v2")
            stream = await self._http.open("GET", base + target, {**headers, "X-Auth-Token": access.token}, path=path)
        try:
            if access is not None and stream.status in (401, 403):
                raise NotFound(path, "Glance does not show it to this client")
            self._check(stream, "GET", path, (200, 206))
            if stream.status == 200:
                return stream, start
            if not stream.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise Unavailable(path, "Glance answers with another range")
        except BaseException:
            stream.close()
            raise
        return stream, 0

    async def delete(self, image: str, path: str = "") -> bool:
        """Delete an image; whether it was there."""
        answer = await self._ask("DELETE", f"/v2/images/{image}", path=path)
        if answer.status in (404, 410):
            return False
        if answer.status == 400 and await self._is_dead(image, path):
            return True
        self._check(answer, "DELETE", path, (204,))
        return True

    async def _is_dead(self, image: str, path: str) -> bool:
        """Whether an image is what a Glance that was killed while it deleted leaves: it cannot be deleted again."""
        try:
            return (await self.image(image, path)).status in DEAD
        except NotFound:
            return True

    async def burn(self, image: str, path: str = "") -> None:
        """See to it that there is no image of this id, and never will be.

        Whoever chose the id may be about to make it, and wake up any time later. An id that was used once is never
        taken again, so it is used.
        """
        if not await self.delete(image, path):
            with suppress(Conflict):  # it had been used: there it ends, unless it was made just now
                await self.create(image, {}, path)
            await self.delete(image, path)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()


def _escaped(name: str) -> str:
    """A name within a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
