"""What is done with nobody waiting for it: things are brought to rest, and names follow tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txregistry.concurrency import start
from txregistry.errors import StorageError
from txregistry.interfaces import IStorageDriver
from txregistry.storage.glance.adoption import Adoption
from txregistry.storage.glance.client import Glance
from txregistry.storage.glance.mover import Mover
from txregistry.storage.glance.names import Names
from txregistry.storage.glance.records import Records
from txregistry.storage.glance.store import claim

#: Seconds to the first round; from one to the next where nothing happens; after a failure, doubled each time; and after
#: a change, so that what comes at once is done at once.
FIRST, EVERY, PAUSE, LONGEST_PAUSE, SOON = 0.5, 60.0, 2.0, 30.0, 0.05
#: Failures in a row after which a round ends: then it is Glance that fails, and not a thing.
ENOUGH = 3
#: Things that are worked on at once.
AT_ONCE = 3

_log = Logger()


class Background:
    """Rounds over what is left to do, one at a time. `reactor` may be a clock without calls: then there are none."""

    def __init__(
        self,
        client: Glance,
        alternate: IStorageDriver,
        records: Records,
        mover: Mover,
        adoption: Adoption,
        names: Names,
        reactor: Any,
    ) -> None:
        self._client, self._alternate, self._records = client, alternate, records
        self._mover, self._adoption, self._names = mover, adoption, names
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._again = self._started = self._claimed = self._closed = False
        self._failures: dict[str, int] = {}
        self._pause = PAUSE
        self._said = ""

    def start(self) -> None:
        """Begin."""
        if hasattr(self._reactor, "callLater"):
            self._started = True
            self._later(FIRST)

    def kick(self) -> None:
        """Something is left to do."""
        if not self._started or self._closed:
            return
        if self._round is not None:
            self._again = True
        elif not self._said:  # after a failure its pause is kept
            self._later(SOON)

    async def close(self) -> None:
        """End; what is under way is given up in good order."""
        self._closed = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._round is not None:
            waiting: Deferred[None] = Deferred()
            self._round.addBoth(lambda _: waiting.callback(None))
            self._round.cancel()
            await waiting

    def _later(self, seconds: float) -> None:
        if self._closed:
            return
        if self._call is not None and self._call.active():
            if self._call.getTime() <= self._reactor.seconds() + seconds:
                return
            self._call.cancel()
        self._call = self._reactor.callLater(seconds, self._begin)

    def _begin(self) -> None:
        self._again = False
        self._round = work = start(self._work())
        work.addBoth(self._ended)

    def _ended(self, _result: object) -> None:
        self._round = None
        if self._said:
            self._later(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._pause = PAUSE
            self._later(SOON if self._again else EVERY)

    async def _work(self) -> None:
        try:
            said = await self.round()
        except CancelledError:
            return
        except StorageError as error:
            said = error.reason or str(error)
        except Exception:
            # A mistake here must not end the rounds for good.
            _log.failure("what is left to do with Glance was not done")
            said = "a mistake"
        # The same reason is told once, whichever thing it is about.
        if said and said.rpartition(": ")[2] != self._said.rpartition(": ")[2]:
            _log.warn("what is left to do with Glance waits, and the alternate serves: {said}", said=said)
        elif self._said and not said:
            _log.info("Glance answers again")
        self._said = said

    async def round(self) -> str:
        """Do all that can be done; what the last thing that could not failed of, or nothing."""
        if not self._claimed:
            await claim(self._client, self._alternate)
            self._claimed = True
        await self._adoption.ready()
        notes: dict[str, list[str]] = {}
        for note, path in await self._records.pending():
            notes.setdefault(path, []).append(note)
        self._failures = {path: count for path, count in self._failures.items() if path in notes}
        said = await self._settle(notes)
        await self._names.apply()
        return said

    async def _settle(self, notes: Mapping[str, Sequence[str]]) -> str:
        # What failed before comes last.
        waiting = iter(sorted(notes, key=lambda path: self._failures.get(path, 0)))
        said, failed = "", 0

        async def work() -> None:
            nonlocal said, failed
            for path in waiting:
                if failed >= ENOUGH:
                    return
                try:
                    at_rest = await self._mover.settle(path)
                    for note in notes[path] if at_rest else ():
                        await self._records.done(note)
                except StorageError as error:
                    said = f"{path}: {error.reason or type(error).__name__}"
                    failed += 1
                    self._failures[path] = self._failures.get(path, 0) + 1
                else:
                    failed = 0
                    self._failures.pop(path, None)

        # Waits for all of them, however it ends.
        for success, result in await DeferredList([start(work()) for _ in range(AT_ONCE)], consumeErrors=True):
            if not success:
                failure: Any = result
                failure.raiseException()
        return said
