"""Requests to a container: signed, tried again where that helps, and with our errors for what the answers say."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import quote, urlencode

from txregistry.errors import LostRace, NoSpace, NotFound, StorageError, Unavailable
from txregistry.storage.openstack.http import Answer, Body, Http, Stream, whole
from txregistry.storage.openstack.tokens import Refused
from txregistry.storage.swift.account import Account
from txregistry.storage.swift.options import SwiftOptions

#: How often a request is sent, and seconds before it is sent for the second time; later ones wait longer.
ATTEMPTS, PAUSE = 4, 0.2
#: The longest that a server which says when to come back is waited for, in seconds.
LONGEST_PAUSE = 5.0
#: What passes: a time-out, a clash of times, a damaged body, too many requests (by two numbers), a server in trouble.
_PASSING = (408, 409, 422, 429, 498, 499, 500, 502, 503, 504)
_FULL = (413, 507)  # a quota, and the disks
#: Seconds for which a container that was there counts as being there.
SEEN = 10.0
#: The largest answer that is kept: a listing, or a manifest.
ANSWER_LIMIT = 64 * 1024 * 1024


class Rejected(Unavailable):
    """Swift did not take what it was sent."""


class Connection:
    """Requests to one container."""

    def __init__(self, options: SwiftOptions, http: Http, shake: Callable[[], float] = random.random) -> None:
        self.options, self.http = options, http
        self.account = Account(options, http)
        self._shake = shake
        self._seen: float | None = None

    @property
    def place(self) -> str:
        """The container as copies and manifests name it, without a slash in front."""
        return self.options.container

    async def ask(
        self, method: str, key: str | None, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None, body: Body | None = None,
    ) -> Answer:  # fmt: skip
        """A request about an object, or the container if `key` is None, and the whole of its answer.

        NotFound, LostRace for a condition that does not hold, NoSpace, and Unavailable for everything else but success.
        """
        for attempt in range(1, ATTEMPTS + 1):
            stream = await self.open(method, key, query, headers, body)
            try:
                return await whole(stream, method, key or "", ANSWER_LIMIT)
            except Unavailable:  # cut off
                if attempt == ATTEMPTS or method not in ("GET", "HEAD"):
                    raise
        raise AssertionError("the loop returns or raises")

    async def open(
        self, method: str, key: str | None, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None, body: Body | None = None,
    ) -> Stream:  # fmt: skip
        """The same, with the answer's body still to be read by the caller, who closes it."""
        path, signed_anew, again, wait = key or "", False, 1, 0.0
        while True:
            try:
                token, url = await self.account.token(), await self._url(key, query)
                stream = await self.http.open(method, url, {**(headers or {}), "X-Auth-Token": token}, body, path)
            except Refused:
                raise
            except Unavailable:
                if again == ATTEMPTS:
                    raise
            else:
                if stream.status < 300:
                    return stream
                status, wait = stream.status, _retry_after(stream)
                await _drain(stream)
                if status == 401 and not signed_anew:
                    self.account.refused(token)
                    signed_anew = True
                    continue
                if status not in _PASSING or again == ATTEMPTS:
                    await self._raise(method, key, status)
            await self.http.sleep(max(wait, PAUSE * 2 ** (again - 1) * (0.5 + self._shake())))
            again += 1

    async def _url(self, key: str | None, query: Mapping[str, str] | None) -> str:
        url = f"{await self.account.url()}/{quote(self.options.container, safe='')}"
        if key is not None:
            url += "/" + quote(self.options.root + key)
        return url + (f"?{urlencode(query)}" if query else "")

    async def _raise(self, method: str, key: str | None, status: int) -> None:
        path = key or ""
        if status == 404 and key is not None:
            await self._see()
            raise NotFound(path)
        if status == 412:
            raise LostRace(path)
        if status in _FULL:
            raise NoSpace(path, f"{method}: Swift answers {status}")
        if status == 400:
            raise Rejected(path, f"{method}: Swift answers 400")
        if status == 404:
            raise Unavailable(path, f"there is no {self.options.place}")
        raise Unavailable(path, f"{method}: Swift answers {status}")

    async def _see(self) -> None:
        """Unavailable unless the container is there: without it every object is missing, which says nothing of any."""
        now = self.http.seconds()
        if self._seen is None or now - self._seen > SEEN:
            await self.ask("HEAD", None)
            self._seen = now

    async def check(self) -> None:
        """Unavailable, with one line as the reason, unless the container can be listed."""
        options = self.options
        try:
            await self.ask("GET", None, {"limit": "1", "format": "json"})
        except Refused as error:
            raise Unavailable("", f"swift_user: {error.reason}") from error
        except Unavailable as error:
            if error.reason.startswith("there is no"):
                line = f"swift_container: {error.reason}; it has to be made first"
            elif error.reason.endswith(("401", "403")):
                line = f"swift_user: may not use {options.place} ({error.reason})"
            else:
                line = f"storage: {options.place} cannot be used: {error.reason}"
            raise Unavailable("", line) from error


async def _drain(stream: Stream) -> None:
    """Read what is left of an answer that nobody wants, so that the connection can be used again."""
    try:
        with suppress(StorageError):  # then it is closed
            for _ in range(4):
                if not await stream.read():
                    break
    finally:
        stream.close()


def _retry_after(stream: Stream) -> float:
    text = stream.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE) if text.isdigit() else 0.0
