"""Single objects on their way from one store to another: what is there and equal is left, what is carried is proven.

An object gets its name in the target when all of it is there and has the digest that it should have, so a reader finds
it whole or not at all, and a copy that is killed leaves no more than a temporary object, which servers sweep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txregistry.concurrency import start
from txregistry.core.links import entries
from txregistry.core.transfer import receive
from txregistry.errors import DigestInvalid, NoSpace, NotFound, ReadOnly, StorageError, TooLarge, Unavailable
from txregistry.interfaces import IReader, IStorageDriver, Tap
from txregistry.model.digest import Digest, new_hasher
from txregistry.storage import layout

T = TypeVar("T")

#: Largest object that is carried in one piece, in bytes.
SMALL = 256 * 1024
#: Longer than the text of any link.
LINK_LIMIT = 512
#: Seconds before what an engine refused is tried again.
PAUSES = (1.0, 5.0)
#: When so many objects in a row could not be carried, an engine is out and the copy ends.
GIVE_UP = 5


class CopyWatcher(Protocol):
    """Who is told how a copy goes on."""

    def expect(self, count: int) -> None:
        """So many more steps are to come."""

    def step(self) -> None:
        """One is done."""

    def moved(self, size: int) -> None:
        """So many bytes more were read to be carried."""

    def tell(self, line: str) -> None:
        """Something that whoever runs the copy should know, beginning with a path."""


@dataclass(slots=True)
class Copied:
    """What a copy has done: objects `copied` with their `bytes`, and `skipped` as they were there and equal.

    `failed` could not be carried; `doubtful` V1 layers were, but have none of their recorded checksums; `held` tags
    name what is not in the target. `dangling` links name no data, and `unfinished` V1 images are pushes under way:
    neither is carried. `extra` objects and directories are in the target alone, of which `removed` were deleted.
    """

    copied: int = 0
    bytes: int = 0
    skipped: int = 0
    failed: int = 0
    doubtful: int = 0
    held: int = 0
    dangling: int = 0
    unfinished: int = 0
    extra: int = 0
    removed: int = 0

    @property
    def whole(self) -> bool:
        """Whether the target has all that the source has to offer."""
        return not (self.failed or self.doubtful or self.held)


class Damaged(Exception):
    """The bytes of an object are not those that its name promises; the text says why."""


class Sums(Protocol):
    """What is made of the bytes of an object as they are carried."""

    def tap(self, pieces: Sequence[bytes]) -> None:
        """Take a batch, in a thread."""

    def finish(self) -> None:
        """All bytes were there; Damaged if they are not to get their name."""


class Sha256Sums:
    """The sums of an object whose name says nothing of its bytes."""

    def __init__(self) -> None:
        self._hasher = sha256()

    def tap(self, pieces: Sequence[bytes]) -> None:
        """Take a batch."""
        for piece in pieces:
            self._hasher.update(piece)

    def finish(self) -> None:
        """Any bytes will do."""

    @property
    def digest(self) -> Digest:
        """The digest of what came."""
        return Digest("sha256", self._hasher.hexdigest())


class BlobSums:
    """The sums of an object whose name is a digest."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._hasher = new_hasher(digest.algorithm)

    def tap(self, pieces: Sequence[bytes]) -> None:
        """Take a batch."""
        for piece in pieces:
            self._hasher.update(piece)

    def finish(self) -> None:
        """Damaged unless the digest is the name."""
        found = self._hasher.hexdigest()
        if found != self._digest.hex:
            raise Damaged(f"damaged, not copied: its digest is {self._digest.algorithm}:{found}")


async def each(items: Iterable[T], action: Callable[[T], Awaitable[object]], jobs: int) -> None:
    """Do something with all items, with so many at a time. After a failure no more are begun, and it is raised."""
    waiting = iter(items)
    failed: list[Failure] = []

    async def work() -> None:
        for item in waiting:
            if failed:
                return
            try:
                await action(item)
            except BaseException:
                failed.append(Failure())

    await DeferredList([start(work()) for _ in range(jobs)])
    if failed:
        failed[0].raiseException()


class Objects:
    """The objects of two stores. `verify` also reads what is in the target, copied now or before."""

    def __init__(
        self,
        source: IStorageDriver,
        target: IStorageDriver,
        watcher: CopyWatcher,
        clock: IReactorTime,
        *,
        verify: bool = False,
    ) -> None:
        self.source = source
        self.target = target
        self.watcher = watcher
        self.found = Copied()
        self.failed: set[str] = set()
        self._clock = clock
        self.verify = verify
        self._in_a_row = 0

    # -- looking --------------------------------------------------------------------------------------------------

    async def children(self, driver: IStorageDriver, path: str) -> list[tuple[str, bool]]:
        """All children of a directory as (name, whether it is a directory)."""
        return await self._retried(lambda: entries(driver, path))

    async def size(self, driver: IStorageDriver, path: str) -> int | None:
        """The size of an object, None without one."""
        try:
            stat = await self._retried(lambda: driver.stat(path))
        except NotFound:
            return None
        return None if stat.is_directory else stat.size

    async def small(self, driver: IStorageDriver, path: str, limit: int = SMALL) -> bytes | None:
        """The bytes of a small object; None without one, and for one that is larger."""
        try:
            data, _ = await self._retried(lambda: driver.read(path, limit))
        except (NotFound, TooLarge):
            return None
        return data

    async def link(self, path: str) -> Digest | None:
        """The digest in a link of the source; None without one, and for a damaged one, which is a failure."""
        data = await self.small(self.source, path, LINK_LIMIT)
        if data is None:
            return None
        try:
            return Digest.parse(data.decode("ascii").strip())
        except (DigestInvalid, UnicodeDecodeError):
            self.fail(path, "damaged link")
            return None

    def fail(self, path: str, reason: str) -> None:
        """An object cannot be carried; its path is in `failed` from now on."""
        self.failed.add(path)
        self.found.failed += 1
        self.watcher.tell(f"{path}: {reason}")

    # -- carrying -------------------------------------------------------------------------------------------------

    async def blob(self, digest: Digest) -> bool:
        """Carry a blob; whether the target has it."""
        path = layout.blob_data(digest)

        async def equal(_: int) -> bool:
            return not self.verify or await self._digest(self.target, path, digest.algorithm) == digest

        return await self.carry(path, equal, lambda: BlobSums(digest))

    async def other(self, path: str) -> bool:
        """Carry an object whose name says nothing of its bytes; whether the target has it."""
        return await self.carry(path, lambda size: self.equal(path, size), Sha256Sums)

    async def equal(self, path: str, size: int) -> bool:
        """Whether an object of this size in both stores has the same bytes there."""
        if size <= SMALL:
            return await self.small(self.source, path) == await self.small(self.target, path)
        found = await self._digest(self.target, path)
        return found == await self._digest(self.source, path)

    async def carry(self, path: str, equal: Callable[[int], Awaitable[bool]], make_sums: Callable[[], Sums]) -> bool:
        """Carry an object unless it is there with the same size and `equal` says yes; whether the target has it."""
        for pause in (*PAUSES, None):
            try:
                await self._carry_once(path, equal, make_sums())
                self._in_a_row = 0
                return True
            except NotFound:  # nothing, or deleted just now
                return False
            except Damaged as error:
                self.fail(path, str(error))
                return False
            except (NoSpace, ReadOnly):
                raise
            except StorageError as error:
                if pause is None:
                    self._failed_again(path, error)
                    return False
                await self._sleep(pause)
        raise AssertionError("the last pause is None")

    async def put(self, path: str, data: bytes) -> None:
        """Let a small object have these bytes."""
        if await self.small(self.target, path) == data:
            self.found.skipped += 1
            return
        await self._retried(lambda: self.target.put(path, data))
        self._count(len(data))
        self.watcher.moved(len(data))

    # -- how ------------------------------------------------------------------------------------------------------

    def _failed_again(self, path: str, error: StorageError) -> None:
        reason = error.reason or type(error).__name__
        self.fail(path, reason)
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP:
            raise Unavailable(path, f"{GIVE_UP} objects in a row could not be copied, the last as: {reason}")

    async def _carry_once(self, path: str, equal: Callable[[int], Awaitable[bool]], sums: Sums) -> None:
        stat = await self.source.stat(path)
        if stat.is_directory:
            raise NotFound(path)
        if await self.size(self.target, path) == stat.size and await equal(stat.size):
            self.found.skipped += 1
            return
        read = Sha256Sums()

        def tap(pieces: Sequence[bytes]) -> None:
            sums.tap(pieces)
            if self.verify:
                read.tap(pieces)

        size = await (self._put_whole if stat.size <= SMALL else self._stream)(path, tap, sums)
        if self.verify and await self._digest(self.target, path) != read.digest:
            raise Unavailable(path, "the target has other bytes than it was given")
        self._count(size)

    def _count(self, size: int) -> None:
        self.found.copied += 1
        self.found.bytes += size

    async def _put_whole(self, path: str, tap: Tap, sums: Sums) -> int:
        data, _ = await self.source.read(path, SMALL)
        tap([data])
        sums.finish()
        await self.target.put(path, data)
        self.watcher.moved(len(data))
        return len(data)

    async def _stream(self, path: str, tap: Tap, sums: Sums) -> int:
        reader = await self.source.open(path)
        try:
            temporary = layout.v1_partial(str(uuid4()))
            partial = await self.target.partial(temporary, create=True)
            try:
                await receive(_Contents(reader, self.watcher), partial, tap)
                sums.finish()
                await partial.commit(path)
            except BaseException:
                await partial.close()
                # What cannot be removed is left to the sweep of a server.
                with suppress(StorageError):
                    await self.target.remove(temporary)
                raise
            finally:
                await partial.close()
        finally:
            reader.close()
        return reader.size

    async def _digest(self, driver: IStorageDriver, path: str, algorithm: str = "sha256") -> Digest:
        """The digest of what is there, by reading it."""
        hasher = new_hasher(algorithm)
        reader = await driver.open(path)
        try:
            async for piece in reader.chunks(0, reader.size):
                hasher.update(piece)
        finally:
            reader.close()
        return Digest(algorithm, hasher.hexdigest())

    async def _retried(self, action: Callable[[], Awaitable[T]]) -> T:
        """The result of something small, tried again if the engine does not answer."""
        for pause in PAUSES:
            try:
                return await action()
            except Unavailable:
                await self._sleep(pause)
        return await action()

    def _sleep(self, seconds: float) -> Deferred[None]:
        waited: Deferred[None] = deferLater(self._clock, seconds)
        return waited


class _Contents:
    """A reader as what an upload reads."""

    def __init__(self, reader: IReader, watcher: CopyWatcher) -> None:
        self.length: int | None = reader.size
        self._reader = reader
        self._watcher = watcher

    async def batches(self, size: int) -> AsyncIterator[list[bytes]]:
        """Lists of pieces of about `size` bytes together."""
        batch: list[bytes] = []
        pending = 0
        async for piece in self._reader.chunks(0, self._reader.size):
            batch.append(piece)
            pending += len(piece)
            self._watcher.moved(len(piece))
            if pending >= size:
                yield batch
                batch, pending = [], 0
        if batch:
            yield batch
