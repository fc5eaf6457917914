"""One at a time, as Swift has no condition for a PUT but that nothing is there: leases of a few seconds.

They are for the few small objects that are written only if nobody has written them meanwhile.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import DeferredLock

from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.storage.segmented.records import Record
from txregistry.storage.swift.container import Container
from txregistry.storage.swift.records import Held, Records

T = TypeVar("T")

LOCKS = "_txregistry/locks"
#: Seconds after which the lease of a server that died ends, and for which somebody waits for one.
HOLD, PATIENCE = 10.0, 30.0
#: Seconds, on average, between two looks at a lease of another server.
PAUSE = 0.1


class Locks:
    """The leases of one process; `shake` gives numbers from 0 to 1, so that two servers do not keep step."""

    def __init__(self, container: Container, shake: Callable[[], float] = random.random) -> None:
        self._container, self._shake = container, shake
        self._http = container.connection.http
        self._here: dict[str, DeferredLock] = {}

    async def alone(self, path: str, work: Callable[[Callable[[], None]], Coroutine[Any, Any, T]]) -> T:
        """The result of `work`, done while nobody else does any for this path. Unavailable if others never end.

        What `work` is called with is Unavailable when too little is left of the lease to begin something.
        """
        # Requests of this process wait in turn, and only the first of them asks the store.
        lock = self._here.setdefault(path, DeferredLock())
        await lock.acquire()
        try:
            records = Records(self._container, path, f"{LOCKS}/{hashlib.sha256(path.encode()).hexdigest()}/")
            held = await self._acquire(path, records)
            until = self._http.seconds() + HOLD / 2

            def in_time() -> None:
                if self._http.seconds() > until:
                    raise Unavailable(path, "Swift is too slow for a lease")

            try:
                return await work(in_time)
            finally:
                await records.release(held)
        finally:
            lock.release()
            if not lock.locked:
                self._here.pop(path, None)

    async def _acquire(self, path: str, records: Records) -> Held:
        until = self._http.seconds() + PATIENCE
        while self._http.seconds() < until:
            number, previous = 0, ""
            try:
                found = await records.latest()
                number, previous = found.number, found.etag
                free = not found.record.is_held(found.age)
            except NotFound:
                free = True
            if free:
                record = Record(previous=previous, hold=HOLD)
                try:
                    return Held(number + 1, await records.append(number + 1, record, rivals=True), record, 0.0)
                except LostRace:
                    pass
            await self._http.sleep(PAUSE * (0.5 + self._shake()))
        raise Unavailable(path, "others write to it all the time")
