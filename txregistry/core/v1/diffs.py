"""How the layers of images differ from those below them: worked out when somebody asks, one after the other.

Who asks is not kept waiting: an image is put into a queue, and the answer is there when it is asked for again. The
queue may be shared with other processes; without one, or while it cannot be reached, it is this process's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txregistry.concurrency import start
from txregistry.core.v1.file_lists import FileLists, Refusals
from txregistry.core.v1.images import Images
from txregistry.core.v1.status import Echoes
from txregistry.errors import RegistryError, StorageError, V1Error
from txregistry.interfaces import IReader
from txregistry.model.v1.files import Differ, ListDamaged, unlistable
from txregistry.model.v1.names import ImageId

#: Images that wait in this process; the oldest is forgotten for one more. Old servers kept as many.
QUEUE_LIMIT = 1024
#: How often a shared queue is looked into, in seconds, and for how long not after it could not be reached.
POLL, RETRY = 1.0, 60.0

_log = Logger()


class SharedQueue(Echoes, Protocol):
    """A queue outside of this process. Each verb may fail with whatever its server raises, in bounded time."""

    async def push(self, image_id: str) -> None:
        """Put an image at its end."""
        ...

    async def pop(self) -> str | None:
        """Take the one at its beginning; None if it is empty, or holds what is no id."""
        ...

    async def close(self) -> None:
        """Let go of its server."""
        ...


class Diffs:
    """The differences of all images."""

    def __init__(
        self, images: Images, lists: FileLists, clock: IReactorTime, shared: SharedQueue | None = None
    ) -> None:
        self._images = images
        self._lists = lists
        self._clock = clock
        self._shared = shared
        self._shared_from = 0.0
        self._own: dict[str, None] = {}
        self._refusals = Refusals(clock)
        self._call: IDelayedCall | None = None
        self._work: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to look into the shared queue, where others may have put images."""
        if self._shared is not None:
            self._wake(POLL)

    async def stop(self) -> None:
        """End the work that is under way; what waits in a shared queue stays there."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        work = self._work
        if work is not None:
            work.cancel()
            await work
        if self._shared is not None:
            await self._shared.close()

    async def open(self, image: ImageId) -> IReader | None:
        """The differences of a finished image as JSON, for the caller to close.

        None if they are not there yet; they will be looked for. V1Error if that was tried and cannot be.
        """
        stored = await self._lists.stored(image, "_diff")
        if stored is None:
            self._refusals.check(image.text)
            await self._push(image)
        return stored

    async def _push(self, image: ImageId) -> None:
        shared = self._reachable()
        if shared is not None:
            try:
                await shared.push(image.text)
            except CancelledError:
                raise
            except Exception as error:
                self._unreachable(error)
                shared = None
        if shared is None:
            if len(self._own) >= QUEUE_LIMIT:
                del self._own[next(iter(self._own))]
            self._own[image.text] = None
        self._wake(0)

    def _reachable(self) -> SharedQueue | None:
        return self._shared if self._clock.seconds() >= self._shared_from else None

    def _unreachable(self, error: Exception) -> None:
        if self._clock.seconds() >= self._shared_from:
            _log.warn("the shared queue of diffs cannot be used ({reason}: {error}); they are made in this process",
                      reason=type(error).__name__, error=str(error))  # fmt: skip
        self._shared_from = self._clock.seconds() + RETRY

    # -- in the background ----------------------------------------------------------------------------------------

    def _wake(self, seconds: float) -> None:
        """Go to work in so many seconds, or sooner if that was said before."""
        if self._stopped or self._work is not None:
            return
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._begin)
        elif self._call.getTime() > self._clock.seconds() + seconds:
            self._call.reset(seconds)

    def _begin(self) -> None:
        self._call = None
        self._work = start(self._work_through())
        self._work.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._work = None
        if self._own:
            self._wake(0)
        elif self._shared is not None:
            self._wake(POLL)

    async def _work_through(self) -> None:
        """Empty the queue; never fails."""
        try:
            while (text := await self._next()) is not None:
                await self._make(text)
        except CancelledError:
            return  # the server stops
        except Exception:
            # The rest of the queue has its turn next time.
            _log.failure("a diff failed")

    async def _next(self) -> str | None:
        if self._own:
            text = next(iter(self._own))
            del self._own[text]
            return text
        shared = self._reachable()
        if shared is None:
            return None
        try:
            return await shared.pop()
        except CancelledError:
            raise
        except Exception as error:
            self._unreachable(error)
            return None

    async def _make(self, text: str) -> None:
        try:
            image = ImageId.parse(text)
            stored = await self._lists.stored(image, "_diff")
            if stored is not None:
                stored.close()
                return
            await self._lists.keep(image, "_diff", await self._compare(image))
        except V1Error as error:
            self._refusals.note(text, error)
            _log.info("no diff of {image}: {error}", image=text[:200], error=error)
        except (RegistryError, StorageError) as error:
            _log.warn("no diff of {image}: {error!r}", image=text[:200], error=error)

    async def _compare(self, image: ImageId) -> bytes:
        ancestors = (await self._images.ancestry(image)).ids[1:]
        differ: Differ = await self._take(image, Differ)
        for ancestor in ancestors:
            if differ.decided:
                break
            await self._take(ImageId.parse(ancestor), differ.compare)
        made: bytes = await self._lists.run(differ.finish)
        return made

    async def _take(self, image: ImageId, job: Callable[[bytes], Any]) -> Any:
        """Give the list of an image to a job; one that is damaged is made again."""
        try:
            return await self._lists.run(job, await self._lists.data(image))
        except ListDamaged:
            made = await self._lists.data(image, anew=True)
        try:
            return await self._lists.run(job, made)
        except ListDamaged:
            raise unlistable() from None
