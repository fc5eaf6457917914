"""The calls of Swift that the driver needs; keys are paths, below the root of the options."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote

from txregistry.errors import LostRace, NotFound, TooLarge, Unavailable
from txregistry.interfaces import Entry
from txregistry.storage.openstack.http import Stream
from txregistry.storage.swift.connection import Connection, Rejected

#: The most names of one answer to a listing; Swift's own limit is 10,000.
PAGE = 5000
#: How often a small object is read anew of which the answer was cut off.
ATTEMPTS = 3
_TYPE = {"Content-Type": "application/octet-stream"}
#: The header by which a large object tells where its segments are.
_GROUP = "X-Object-Meta-Segments"
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the head of an answer tells of an object.

    `modified` is in seconds of the epoch and `age` in seconds, both by the server's clock. `group` is where the
    segments of a large object of ours are; `is_large` says that it has segments, whoever wrote it.
    """

    size: int
    modified: float
    age: float
    etag: str
    is_large: bool
    group: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """An object of which the bytes are still to be read."""

    stream: Stream
    seen: Seen


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing; `modified` in seconds of the epoch."""

    key: str
    etag: str
    modified: float
    is_large: bool


class Container:
    """A container below a root."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.root = connection.options.root

    # -- objects ------------------------------------------------------------------------------------------------

    async def put(self, key: str, data: bytes, if_absent: bool = False) -> str:
        """Write an object; its ETag. LostRace when something is there and must not be."""
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        # With the sum the server sees what was damaged on the way.
        headers = {**_TYPE, "ETag": etag, **({"If-None-Match": "*"} if if_absent else {})}
        try:
            await self.connection.ask("PUT", key, headers=headers, body=data)
        except LostRace:
            # A request that was repeated, as its answer was lost, may have met its own first attempt: nobody else
            # writes the same record, nor any object under a condition without the lease for it.
            try:
                if (await self.head(key, newest=True)).etag != etag or not data:
                    raise
            except NotFound:
                raise LostRace(key) from None
        except NotFound as error:
            raise Unavailable(key, "PUT: Swift answers 404") from error
        return etag

    async def put_pieces(self, key: str, pieces: Sequence[bytes]) -> None:
        """Write a segment, whose pieces are not joined."""
        try:
            await self.connection.ask("PUT", key, headers=_TYPE, body=pieces)
        except NotFound as error:
            raise Unavailable(key, "PUT: Swift answers 404") from error

    async def get(self, key: str, newest: bool = False, limit: int | None = None) -> tuple[bytes, Seen]:
        """A whole small object; `newest` asks all its copies and not the first that answers. TooLarge."""
        for attempt in range(1, ATTEMPTS + 1):
            opened = await self.open(key, newest=newest)
            size = opened.seen.size
            try:
                if limit is not None and size > limit:
                    raise TooLarge(key, f"{size} bytes, {limit} at most")
                pieces = []
                while piece := await opened.stream.read():
                    pieces.append(piece)
                data = b"".join(pieces)
                if len(data) != size:
                    raise Unavailable(key, f"it ends at {len(data)} of {size} bytes")
                return data, opened.seen
            except Unavailable:  # cut in the middle
                if attempt == ATTEMPTS:
                    raise
            finally:
                opened.stream.close()
        raise AssertionError("the loop returns or raises")

    async def open(
        self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None, newest: bool = False
    ) -> Opened:
        """The bytes from `start` to `stop`. Unavailable if its ETag is another one by now."""
        headers = _newest(newest)
        if stop is not None:
            headers["Range"] = f"bytes={start}-{stop - 1}"
        if etag is not None:
            headers["If-Match"] = etag
        try:
            stream = await self.connection.open("GET", key, headers=headers)
        except LostRace as error:
            raise Unavailable(key, "it was replaced while it was read") from error
        try:
            seen = _seen(stream.headers)
            if stop is not None:
                found = _RANGE.match(stream.headers.get("content-range", ""))
                if stream.status != 206 or found is None or (int(found[1]), int(found[2])) != (start, stop - 1):
                    raise Unavailable(key, f"GET: Swift answers {stream.status} with another range")
        except Unavailable:
            stream.close()
            raise
        return Opened(stream, seen)

    async def head(self, key: str, newest: bool = False) -> Seen:
        """What is known of an object. NotFound."""
        return _seen((await self.connection.ask("HEAD", key, headers=_newest(newest))).headers)

    async def delete(self, key: str, with_segments: bool = False) -> None:
        """Remove an object, if it is there; of a large one the segments too if that is wished."""
        query = {"multipart-manifest": "delete"} if with_segments else None
        try:
            answer = await self.connection.ask("DELETE", key, query, {"Accept": "application/json"})
        except NotFound:
            return
        if not with_segments:
            return
        # It answers 200 before it begins.
        try:
            report: Any = json.loads(answer.body)
            status, errors = str(report["Response Status"]), report.get("Errors", ())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(key, "DELETE: an answer that is no report") from error
        failed = any(not str(each[1]).startswith("404") for each in errors)
        if failed or not (errors or status.startswith(("200", "404"))):
            raise Unavailable(key, f"DELETE: Swift answers {status}")

    async def copy(self, source: str, target: str) -> None:
        """Copy an object that has no segments within the server. NotFound."""
        headers = {"X-Copy-From": quote(f"/{self._full(source)}"), **_TYPE}
        await self.connection.ask("PUT", target, headers=headers, body=b"")

    # -- large objects ------------------------------------------------------------------------------------------

    async def put_manifest(self, key: str, parts: Sequence[tuple[str, int]], group: str) -> None:
        """Write a large object that consists of the objects with these keys and sizes. LostRace if one is not there."""
        entries = [{"path": f"/{self._full(name)}", "size_bytes": size} for name, size in parts]
        await self._put_manifest(key, json.dumps(entries).encode(), group)

    async def _put_manifest(self, key: str, manifest: bytes, group: str | None) -> None:
        meta = {} if group is None else {_GROUP: quote(group)}
        try:
            await self.connection.ask("PUT", key, {"multipart-manifest": "put"}, {**_TYPE, **meta}, manifest)
        except NotFound as error:
            raise Unavailable(key, "PUT: Swift answers 404") from error
        except Rejected as error:  # it looks whether they are there
            raise LostRace(key, "a segment is not there") from error

    async def manifest(self, key: str) -> tuple[bytes, list[str]]:
        """The manifest of a large object as it can be put again, and the keys that it names. NotFound."""
        answer = await self.connection.ask("GET", key, {"multipart-manifest": "get", "format": "raw"}, _newest(True))
        try:
            names = [str(entry["path"]).removeprefix("/") for entry in json.loads(answer.body)]
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(key, "GET: an answer that is no manifest") from error
        prefix = self._full("")
        return answer.body, [name[len(prefix) :] for name in names if name.startswith(prefix)]

    async def copy_manifest(self, source: str, target: str, group: str | None) -> None:
        """Write a large object once more, of the same segments."""
        manifest, _ = await self.manifest(source)
        await self._put_manifest(target, manifest, group)

    def _full(self, key: str) -> str:
        return f"{self.connection.place}/{self.root}{key}"

    # -- names --------------------------------------------------------------------------------------------------

    async def children(self, prefix: str, cursor: str | None, limit: int) -> tuple[list[Entry], str | None]:
        """A page of what is directly below a prefix, which ends in a slash or is empty."""
        count = max(1, min(limit, PAGE))
        found = await self._list(prefix, cursor, count, {"delimiter": "/"})
        begin = len(self.root + prefix)
        entries = []
        for each in found:
            is_directory = "subdir" in each
            name = str(each["subdir" if is_directory else "name"])[begin:].removesuffix("/")
            if name:  # else a mark of a directory, as some tools make it
                entries.append(Entry(name, is_directory))
        last = str(found[-1].get("subdir") or found[-1]["name"])[len(self.root) :] if len(found) >= count else None
        return entries, last

    async def keys(self, prefix: str) -> list[Listed]:
        """All objects whose keys begin so, in the order of their keys."""
        listed: list[Listed] = []
        cursor: str | None = None
        while True:
            found = await self._list(prefix, cursor, PAGE, {})
            for each in found:
                modified = datetime.fromisoformat(each["last_modified"]).replace(tzinfo=UTC).timestamp()
                key = str(each["name"])[len(self.root) :]
                listed.append(Listed(key, str(each["hash"]), modified, "slo_etag" in each))
            if len(found) < PAGE:
                return listed
            cursor = listed[-1].key

    async def _list(self, prefix: str, cursor: str | None, limit: int, more: Mapping[str, str]) -> list[Any]:
        query = {"format": "json", "prefix": self.root + prefix, "limit": str(limit), **more}
        if cursor is not None:
            query["marker"] = self.root + cursor
        answer = await self.connection.ask("GET", None, query)
        if answer.status == 204:
            return []
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise Unavailable(prefix, "GET: an answer that is no listing")
        return found


def _newest(wished: bool) -> dict[str, str]:
    return {"X-Newest": "true"} if wished else {}


def _seen(headers: Mapping[str, str]) -> Seen:
    """What the head of an answer tells; Unavailable where it lacks what Swift always sends."""
    try:
        whole = _RANGE.match(headers.get("content-range", ""))
        size = int(whole[3]) if whole else int(headers["content-length"])
        now = parsedate_to_datetime(headers["date"]).timestamp()
        exact = headers.get("x-timestamp")
        modified = float(exact) if exact else parsedate_to_datetime(headers["last-modified"]).timestamp()
        group = headers.get(_GROUP.lower())
        return Seen(
            size=size,
            modified=modified,
            age=now - modified,
            etag=headers["etag"].strip('"'),
            is_large=headers.get("x-static-large-object", "").lower() == "true",
            group=unquote(group) if group else None,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise Unavailable("", f"an answer without what Swift sends: {error}") from error
