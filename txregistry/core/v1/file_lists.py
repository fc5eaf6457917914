"""The lists of files in the layers of images, made when somebody asks and kept beside the image.

A list is made in the background, a batch of the layer at a time in a thread. It goes on when the client leaves, who
may be back for it; all who ask for the same one wait for the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txregistry.concurrency import start
from txregistry.core.v1.files import read
from txregistry.core.v1.images import Images
from txregistry.errors import NoSpace, NotFound, ReadOnly, TooManyRequests, Unavailable, V1Error
from txregistry.interfaces import IPool, IReader, IStorageDriver
from txregistry.model.v1.files import LIST_LIMIT, FileLister
from txregistry.model.v1.names import ImageId
from txregistry.storage import layout

#: Lists that are made at the same time, and those that may wait for it.
WORKERS, WAITING = 2, 100
#: How long what cannot be made is not tried again, in seconds, and how much of that is remembered.
_REMEMBERED, _MOST_REMEMBERED = 60.0, 1000
#: What a client that comes too often is told to wait, in seconds.
_RETRY_AFTER = 5

_log = Logger()


class Refusals:
    """Why things could not be made, for a while: what is asked for again and again is not tried each time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, V1Error]] = {}

    def note(self, name: str, error: V1Error) -> None:
        """Remember why `name` could not be made."""
        self._known.pop(name, None)
        if len(self._known) >= _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[name] = (self._clock.seconds() + _REMEMBERED, error)

    def check(self, name: str) -> None:
        """Raise the V1Error that is remembered for a name, if one is."""
        until, error = self._known.get(name, (0.0, None))
        if error is None:
            return
        if self._clock.seconds() < until:
            raise type(error)(error.detail, message=error.message)
        del self._known[name]


class FileLists:
    """The lists of all images. Without a pool they are made in place."""

    def __init__(self, driver: IStorageDriver, images: Images, clock: IReactorTime, pool: IPool | None) -> None:
        self._driver = driver
        self._images = images
        self._pool = pool
        self._refusals = Refusals(clock)
        self._slots = DeferredSemaphore(WORKERS)
        self._running: dict[str, list[Deferred[bytes | None]]] = {}
        self._works: set[Deferred[None]] = set()
        self._stopped = False

    async def open(self, image: ImageId) -> IReader | bytes:
        """The list of a finished image as JSON, for the caller to close; bytes where it could not be stored.

        V1NotFound; V1Error for a layer that is no archive or has too many files; TooManyRequests.
        """
        stored = await self.stored(image, "_files")
        if stored is not None:
            return stored
        made = await self._wait(image)
        if made is not None:
            return made
        stored = await self.stored(image, "_files")
        if stored is None:
            raise _replaced()
        return stored

    async def data(self, image: ImageId, *, anew: bool = False) -> bytes:
        """The same for who compares lists; `anew` makes it again though one is stored."""
        path = layout.v1_image(image.text, "_files")
        data = None if anew else await read(self._driver, path, LIST_LIMIT)
        return data or await self._wait(image) or await read(self._driver, path, LIST_LIMIT) or b""

    async def stored(self, image: ImageId, part: str) -> IReader | None:
        """A file beside the image, for the caller to close; None without one, and for an empty one."""
        try:
            reader = await self._driver.open(layout.v1_image(image.text, part))
        except NotFound:
            return None
        if reader.size:
            return reader
        reader.close()
        return None

    async def run(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a job in a thread."""
        return function(*args) if self._pool is None else await self._pool.run(function, *args)

    async def stop(self) -> None:
        """End all work; the batch of a layer that is being looked at ends first."""
        self._stopped = True
        works = list(self._works)
        for work in works:
            work.cancel()
        for work in works:
            await work

    # -- making one -----------------------------------------------------------------------------------------------

    async def _wait(self, image: ImageId) -> bytes | None:
        """Have a list made, or wait for who does; None once it is stored, else the list."""
        self._refusals.check(image.text)
        if image.text not in self._running:
            if self._stopped or len(self._running) >= WORKERS + WAITING:
                raise TooManyRequests(_RETRY_AFTER)
            waiting: Deferred[bytes | None] = Deferred()
            self._running[image.text] = [waiting]
            work = start(self._work(image))
            if not work.called:
                self._works.add(work)
                work.addBoth(lambda _: self._works.discard(work))
        else:
            waiting = Deferred()
            self._running[image.text].append(waiting)
        return await waiting

    async def _work(self, image: ImageId) -> None:
        """Make a list, and tell it to all who wait; never fails."""
        result: Failure | bytes | None
        try:
            await self._slots.acquire()
            try:
                result = await self._make(image)
            finally:
                self._slots.release()
        except CancelledError:
            result = Failure(Unavailable(layout.v1_image(image.text, "_files"), "the server is shutting down"))
        except Exception:
            result = Failure()
        for waiting in self._running.pop(image.text):
            if waiting.called:
                continue  # its client has left
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

    async def _make(self, image: ImageId) -> bytes | None:
        reader = await self._images.open_layer(image)
        chunks = reader.chunks(0, reader.size)
        try:
            lister = await self.run(FileLister)
            async for chunk in chunks:
                await self.run(lister.feed, chunk)
            made: bytes = await self.run(lister.finish)
        except V1Error as error:
            self._refusals.note(image.text, error)
            raise
        finally:
            chunks.close()
            reader.close()
        layer = await self._driver.stat(layout.v1_image(image.text, "layer"))
        if (layer.size, layer.modified) != (reader.size, reader.modified):
            raise _replaced()
        return None if await self.keep(image, "_files", made) else made

    async def keep(self, image: ImageId, part: str, data: bytes) -> bool:
        """Store what was made; False if the store takes nothing."""
        path = layout.v1_image(image.text, part)
        try:
            await self._driver.put(path, data)
        except (NoSpace, ReadOnly) as error:
            _log.warn("{path} is made again each time: {error}", path=path, error=error)
            return False
        return True


def _replaced() -> V1Error:
    """The refusal when an image was removed and pushed again in the middle of the work."""
    return V1Error(message="Image is being uploaded, retry later")
