"""A request's body on its way into a partial object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from twisted.internet.defer import Deferred

from txregistry.errors import StorageError, Unavailable
from txregistry.interfaces import IPartial, Tap

#: Bytes of a body that become one job: written and hashed in a thread while the next batch arrives.
BATCH = 512 * 1024
#: Batches up to so many bytes are fed to a cheap tap at once: a job of its own takes longer than hashing them.
AT_ONCE = 16 * 1024


class Body(Protocol):
    """What an upload reads: `length` in bytes where it is known, and batches of pieces as they arrive."""

    length: int | None

    def batches(self, size: int) -> AsyncIterator[list[bytes]]:
        """Lists of pieces, of about `size` bytes together, or of what a slow client sent in a second."""


async def receive(
    body: Body, partial: IPartial, tap: Tap, limit: int | None = None, *, cheap: bool = False
) -> None:
    """Append a body to a partial object, one job in flight while the next batch fills.

    Whatever ends it early, no job is under way any more when the failure leaves, and `partial.offset` tells how much
    arrived. A StorageError says that nothing more can be done with the partial object. More than `limit` bytes are
    not read. A `cheap` tap takes no longer than a hasher.
    """
    begin = at = partial.offset
    job: Deferred[None] | None = None
    try:
        try:
            async for batch in body.batches(BATCH):
                if job is not None:
                    # Cleared first: a Deferred that a cancel interrupts must not be awaited a second time.
                    waiting, job = job, None
                    await waiting
                size = sum(map(len, batch))
                if cheap and size <= AT_ONCE:
                    tap(batch)
                    job = partial.write(batch, at)
                else:
                    job = partial.write(batch, at, tap)
                at += size
                if limit is not None and at > begin + limit:
                    break
        finally:
            if job is not None:
                # Its failure, or a cancel, outweighs what ended the body.
                await job
    except StorageError:
        raise
    except BaseException as error:
        if partial.offset != at:
            # A cancelled wait hides its job's failure.
            raise Unavailable("", "a write failed, and its client has left") from error
        raise
