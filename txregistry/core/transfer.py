"""A request's body on its way into a partial object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txregistry.errors import StorageError
from txregistry.interfaces import IPartial, Tap

#: Bytes of a body that become one job: written and hashed in a thread while the next batch arrives.
BATCH = 512 * 1024


class Body(Protocol):
    """What an upload reads: `length` in bytes where it is known, and batches of pieces as they arrive."""

    length: int | None

    def batches(self, size: int) -> AsyncIterator[list[bytes]]:
        """Lists of pieces, of about `size` bytes together, or of what a slow client sent in a second."""


async def receive(body: Body, partial: IPartial, tap: Tap, limit: int | None = None) -> None:
    """Append a body to a partial object, one job in flight while the next batch fills.

    Whatever ends it early, no job is under way any more when the failure leaves. `partial.offset` tells how much
    arrived. More than `limit` bytes are not read.
    """
    begin = at = partial.offset
    job: Deferred[None] | None = None
    try:
        async for batch in body.batches(BATCH):
            if job is not None:
                # Cleared first: a Deferred that a cancel interrupts must not be awaited a second time.
                waiting, job = job, None
                await waiting
            job = partial.write(batch, at, tap)
            at += sum(map(len, batch))
            if limit is not None and at > begin + limit:
                break
        if job is not None:
            waiting, job = job, None
            await waiting
    except BaseException:
        if job is not None:
            await job.addErrback(_pass_over)
        raise


def _pass_over(failure: Failure) -> None:
    """The storage's failure, when another came first; but not a cancel, which says that the client has left."""
    failure.trap(StorageError)
