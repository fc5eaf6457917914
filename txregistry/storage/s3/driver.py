"""The S3 driver: a bucket of Amazon S3, Google Cloud Storage, or a server like them.

Keys are the paths of the layout below `storage_path`, as docker-registry 0.6.5 and CNCF distribution write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from txregistry.errors import Busy, LostRace, NotFound, StorageError, TooLarge
from txregistry.interfaces import (
    IHidesPartials,
    IPartial,
    IReader,
    IRedirects,
    IStorageDriver,
    ISweeps,
    Page,
    PartialInfo,
    Stat,
    Version,
)
from txregistry.storage.clock import Clock
from txregistry.storage.pool import Lanes
from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.s3.partial import S3Partial, records_of
from txregistry.storage.s3.reader import S3Reader
from txregistry.storage.s3.segments import Budget
from txregistry.storage.s3.signed import signed_url
from txregistry.storage.s3.sweep import paths_below, sweep
from txregistry.storage.segmented.names import below, beside, home
from txregistry.storage.segmented.records import HOLD, Record


@implementer(IStorageDriver, IHidesPartials, IRedirects, ISweeps)
class S3Driver:
    """The contract of `IStorageDriver` over a bucket; the pool belongs to whoever made it."""

    def __init__(self, bucket: Bucket, pool: Lanes, clock: Clock, budget: Budget | None = None) -> None:
        self.bucket, self.pool, self.clock = bucket, pool, clock
        self._budget = budget or Budget()

    def prepare(self) -> None:
        """See that the bucket is there and may be listed; Unavailable with one clear reason. Blocks."""
        self.bucket.connection.check()

    def read(self, path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object: one GET."""

        def job() -> tuple[bytes, Version]:
            opened = self.bucket.open(path)
            try:
                if opened.size > limit:
                    raise TooLarge(path, f"{opened.size} bytes, {limit} at most")
                with self.bucket.connection.errors(path):
                    return opened.body.read(), Version(opened.etag)
            finally:
                opened.body.close()

        return self.pool.run_small(job)

    def open(self, path: str) -> Deferred[IReader]:
        """A large object: one GET, whose stream the reader goes on with."""
        job: Deferred[IReader] = self.pool.run_small(
            lambda: S3Reader(self.bucket, self.pool, path, self.bucket.open(path))
        )
        return job

    def put(
        self, path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object."""

        def job() -> Version:
            try:
                return Version(self.bucket.put(path, data, if_absent, if_match))
            except NotFound:  # nothing there that could match
                raise LostRace(path) from None

        return self.pool.run_small(job)

    def stat(self, path: str) -> Deferred[Stat]:
        """What is known of an object or a directory."""

        def job() -> Stat:
            with suppress(NotFound):
                size, modified, _ = self.bucket.head(path)
                return Stat(size, modified, is_directory=False)
            if not self.bucket.children(f"{path}/", None, 2)[0]:  # also tells a bucket that is missing
                raise NotFound(path)
            return Stat(0, 0.0, is_directory=True)

        return self.pool.run_small(job)

    def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory, in the order of the keys."""

        def job() -> Page:
            entries, following = self.bucket.children(f"{prefix}/" if prefix else "", cursor, limit)
            return Page(tuple(entries), following)

        return self.pool.run_small(job)

    def remove(self, path: str) -> Deferred[None]:
        """Remove an object or all below a path; what is left of partial objects at and below it goes too."""

        def job() -> None:
            keys = [path] if self.bucket.exists(path) else []
            for prefix in (f"{path}/", home(path), below(path)):
                keys += [key for key, _ in self.bucket.keys(prefix)]
            if not keys:
                raise NotFound(path)
            self.bucket.delete_many(keys)

        return self.pool.run(job)

    def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`; time is told by the server's clock alone."""
        return self.pool.run_small(self._create if create else self._hold, path)

    def _create(self, path: str) -> IPartial:
        records = records_of(self.bucket, path)
        with suppress(NotFound):
            records.latest()
            raise LostRace(path)
        record = Record(hold=HOLD, moved=self.clock.seconds())
        return self._held(path, (1, records.append(1, record), record))

    def _hold(self, path: str) -> S3Partial:
        number, etag, record, age = records_of(self.bucket, path).latest()
        if record.is_held(age):
            raise Busy(path)
        partial = self._held(path, (number, etag, record))
        try:
            partial.claim()
        except LostRace:  # another asked at the same moment
            raise Busy(path) from None
        return partial

    def _held(self, path: str, held: tuple[int, str, Record]) -> S3Partial:
        return S3Partial(self.bucket, self.pool, self.clock, self._budget, path, held)

    def peek(self, path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it."""

        def job() -> PartialInfo:
            _, _, record, _ = records_of(self.bucket, path).latest()
            return PartialInfo(record.offset, record.state, record.moved)

        return self.pool.run_small(job)

    def partials(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below a prefix."""

        def job() -> Sequence[str]:
            names: list[str] = []
            token: str | None = None
            while True:
                entries, token = self.bucket.children(beside(prefix), token, 1000)
                names += [f"{prefix}/{entry.name}".removeprefix("/") for entry in entries]
                if token is None:
                    return names

        return self.pool.run_small(job)

    def partials_below(self, prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects at any depth below a prefix."""
        job: Deferred[Sequence[str]] = self.pool.run(paths_below, self.bucket, prefix)
        return job

    def move(self, source: str, target: str) -> Deferred[None]:
        """Copy within the server, then remove."""

        def job() -> None:
            self.bucket.copy(source, target)
            self.bucket.delete(source)

        return self.pool.run(job)

    def settle(self, path: str) -> Deferred[None]:
        """See that it is there: what can be seen is durable."""

        def job() -> None:
            if not self.bucket.exists(path):
                raise NotFound(path)

        return self.pool.run_small(job)

    def redirect(self, path: str, seconds: int) -> Deferred[str]:
        """A signed URL; it is made without asking the server."""
        return self.pool.run_small(signed_url, self.bucket, path, seconds, self.clock.seconds())

    def sweep(self, before: float) -> Deferred[int]:
        """Abort uploads that nobody goes on with, and remove segments of partial objects that have ended."""
        return self.pool.run(sweep, self.bucket, before, self._hold)

    def free_space(self) -> Deferred[int | None]:
        """Unknown."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Let go of the connections."""

        def job() -> None:
            with suppress(StorageError), self.bucket.connection.errors(""):  # there is nothing left to save
                self.bucket.connection.close()

        return self.pool.run_small(job)
