"""A storage driver for a bucket: proof that the contract, its partial objects above all, fits an object store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tests.storage.object_bucket import Bucket
from tests.storage.object_partial import HOLD, PARTIALS, PIECE, ObjectPartial, Tells, home, records_of
from tests.storage.object_records import Record
from txregistry.errors import Busy, LostRace, NotFound, TooLarge
from txregistry.interfaces import Chunks, IPartial, IReader, IStorageDriver, Page, PartialInfo, Stat, Version
from txregistry.storage.pool import Lanes


class ObjectChunks:
    """A range of an object: one request, whose answer is one version of it."""

    def __init__(self, reader: ObjectReader, start: int, stop: int) -> None:
        self._reader, self._start, self._stop = reader, start, stop
        self._body: Any = None
        self._ended = start >= stop

    def __aiter__(self) -> ObjectChunks:
        return self

    async def __anext__(self) -> bytes:
        if not self._ended:
            piece = await self._reader.pool.run(self._next)
            if piece:
                return piece
        raise StopAsyncIteration

    def _next(self) -> bytes:
        if self._body is None:
            reader = self._reader
            self._body = reader.bucket.stream(reader.path, reader.etag, self._start, self._stop)
        piece: bytes = self._body.read(PIECE)
        return piece

    def close(self) -> None:
        self._ended = True
        if self._body is not None:
            self._body.close()


@implementer(IReader)
class ObjectReader:
    """An object of which one version was seen."""

    def __init__(self, bucket: Bucket, pool: Lanes, path: str) -> None:
        self.bucket, self.pool, self.path = bucket, pool, path
        self.size, self.modified, self.etag = bucket.head(path)

    def chunks(self, start: int, stop: int) -> Chunks:
        return ObjectChunks(self, start, stop)

    def close(self) -> None:
        """There is nothing to let go of."""


@implementer(IStorageDriver)
class ObjectStore:
    """The contract of `IStorageDriver`, over S3."""

    def __init__(self, bucket: Bucket, pool: Lanes, clock: Tells) -> None:
        self.bucket, self.pool, self.clock = bucket, pool, clock
        self.run = pool.run

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        def job() -> tuple[bytes, Version]:
            if self.bucket.head(path)[0] > limit:
                raise TooLarge(path)
            data, etag = self.bucket.get(path)
            return data, Version(etag)

        return self.run(job)

    def open(self, path: str) -> Deferred[IReader]:
        return self.run(ObjectReader, self.bucket, self.pool, path)

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        def job() -> Version:
            try:
                return Version(self.bucket.put(path, data, if_absent, if_match))
            except NotFound:  # nothing there that could match
                raise LostRace(path) from None

        return self.run(job)

    def stat(self, path: str) -> Deferred[Stat]:
        def job() -> Stat:
            with suppress(NotFound):
                size, modified, _ = self.bucket.head(path)
                return Stat(size, modified, is_directory=False)
            if not self.bucket.children(f"{path}/", None, 1)[0]:
                raise NotFound(path)
            return Stat(0, 0.0, is_directory=True)

        return self.run(job)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        def job() -> Page:
            entries, following = self.bucket.children(f"{prefix}/" if prefix else "", cursor, limit)
            return Page(tuple(entries), following)

        return self.run(job)

    def remove(self, path: str) -> Deferred[None]:
        # What is left of partial objects at and below the path goes too.
        def job() -> None:
            keys = [key for key, _ in self.bucket.keys(path) if key == path]
            for prefix in (f"{path}/", home(path), f"{PARTIALS}/{path}/"):
                keys += [key for key, _ in self.bucket.keys(prefix)]
            if not keys:
                raise NotFound(path)
            for key in keys:
                self.bucket.delete(key)

        return self.run(job)

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        def job() -> IPartial:
            records, now = records_of(self.bucket, path), self.clock.seconds()
            if create:
                with suppress(NotFound):
                    records.latest()
                    raise LostRace(path)
                record = Record(held_until=now + HOLD, moved=now)
                return self._held(path, 1, records.append(1, record), record)
            number, etag, record = records.latest()
            if now < record.held_until:
                raise Busy(path)
            partial = self._held(path, number, etag, record)
            try:
                partial.claim()
            except LostRace:  # another asked at the same moment
                raise Busy(path) from None
            return partial

        return self.run(job)

    def _held(self, path: str, number: int, etag: str, record: Record) -> ObjectPartial:
        return ObjectPartial(self.bucket, self.pool, self.clock, path, number, etag, record)

    def peek(self, path: str) -> Deferred[PartialInfo]:
        def job() -> PartialInfo:
            _, _, record = records_of(self.bucket, path).latest()
            return PartialInfo(record.offset, record.state, record.moved)

        return self.run(job)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        def job() -> Sequence[str]:
            names: list[str] = []
            token: str | None = None
            while True:
                entries, token = self.bucket.children(f"{PARTIALS}/{prefix}/@/", token, 1000)
                names += [f"{prefix}/{entry.name}" for entry in entries]
                if token is None:
                    return names

        return self.run(job)

    def move(self, source: str, target: str) -> Deferred[None]:
        def job() -> None:
            self.bucket.copy(source, target)
            self.bucket.delete(source)

        return self.run(job)

    def settle(self, path: str) -> Deferred[None]:
        def job() -> None:
            self.bucket.head(path)  # what can be seen is durable

        return self.run(job)

    def free_space(self) -> Deferred[int | None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)
