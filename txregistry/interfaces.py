"""The contracts between the layers; a storage engine is written against this page alone.

Paths are relative, `/`-separated, without a leading or trailing slash, without `.` and `..`; only
`storage/layout.py` builds them. Every verb returns a Deferred that has already started; its failures are the
`StorageError`s of `errors.py`, and an engine that does not answer is `Unavailable`, never `NotFound`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, NewType, Protocol

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

#: Equal for equal contents of one path; opaque. What `read` and `put` return and `put(if_match=)` takes.
Version = NewType("Version", str)

#: Fed with each batch inside the job that writes or reads it, in order: a list of pieces, never joined.
Tap = Callable[[Sequence[bytes]], None]


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a path unread: `size` in bytes (0 of a directory), `modified` in seconds of the epoch."""

    size: int
    modified: float
    is_directory: bool


class Entry(NamedTuple):
    """A child in a listing: its last path component and whether it has children of its own."""

    name: str
    is_directory: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing in the engine's own order; `cursor` asks for the next, None at the end."""

    entries: tuple[Entry, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class PartialInfo:
    """A partial object seen from outside.

    `offset` and `state` are those of the last checkpoint, where a reopening starts; `modified` is when bytes last
    moved, in seconds of the epoch.
    """

    offset: int
    state: bytes
    modified: float


class Chunks(Protocol):
    """An iterator over the bytes of a range, in pieces of at most a MiB; `close` ends it early, twice does no harm."""

    def __aiter__(self) -> Chunks: ...
    async def __anext__(self) -> bytes: ...
    def close(self) -> None: ...


class Access(Protocol):
    """Rights of a client's own at an engine that knows its clients; `endpoint` is a URL, or None for the usual one."""

    @property
    def token(self) -> str: ...
    @property
    def endpoint(self) -> str | None: ...


#: The rights with which large objects are read on behalf of the request that is served; None for the registry's own.
request_access: ContextVar[Access | None] = ContextVar("request_access", default=None)


class IReader(Interface):
    """An open object that may be large. Whoever opened it closes it."""

    size: int = Attribute("bytes in the object")
    modified: float = Attribute("seconds of the epoch")

    def chunks(start: int, stop: int) -> Chunks:
        """The bytes from `start` up to, not including, `stop`; Unavailable if the object shrank meanwhile."""

    def close() -> None:
        """Let go of it; a job that still reads keeps its own hold."""


class IPartial(Interface):
    """A named object that grows and can be reopened, by this process or another. It is held until `close`.

    After `commit`, `cancel`, `close`, or a failed write nothing but `close` is allowed.
    """

    offset: int = Attribute("bytes in it: where the next write begins")
    state: bytes = Attribute("what the last checkpoint saved; empty in a new one")

    def write(batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        """Append `batch` at offset `at`, and feed it to `tap` in the same job.

        WrongOffset unless `at` is the end; LostRace when another has taken the object over or finished it, at the
        latest from the next checkpoint or commit: a written batch alone is no promise.
        """

    def checkpoint(state: bytes) -> Deferred[None]:
        """Make all bytes durable, then save `state` (at most 4 KiB); a reopening starts at this offset with it."""

    def read(tap: Tap) -> Deferred[None]:
        """Feed all bytes to `tap`, in order, in jobs of at most a MiB."""

    def commit(path: str) -> Deferred[None]:
        """Make all bytes durable and let them appear at `path`, whole or not at all, replacing what is there.

        The partial object, with whatever was put below its path, is gone after it, and so is the hold. LostRace may
        leave the whole object at `path`, as it was committed by whoever took this one over.
        """

    def cancel() -> Deferred[None]:
        """Drop the object, with whatever was put below its path, and the hold."""

    def close() -> Deferred[None]:
        """Let go of it; the last checkpoint stays for a reopening. Never fails; a second time does nothing."""


class IStorageDriver(Interface):
    """Bytes at a path: what every storage engine can do."""

    def read(path: str, limit: int) -> Deferred[tuple[bytes, Version]]:
        """A whole small object. TooLarge above `limit` bytes; NotFound, also for a directory."""

    def open(path: str) -> Deferred[IReader]:
        """A large object. NotFound, also for a directory."""

    def put(
        path: str, data: bytes, if_absent: bool = False, if_match: Version | None = None
    ) -> Deferred[Version]:
        """Write a small object, durable when it fires; readers see the old bytes or the new, never a part.

        LostRace when `if_absent` and something is there, or when the version there is not `if_match`.
        """

    def partial(path: str, create: bool = False) -> Deferred[IPartial]:
        """Hold the partial object at `path`; `create` makes an empty one, that need not survive a power cut.

        NotFound without one, LostRace when `create` finds one, Busy while another holds it and bytes flow. A holder
        that has moved no byte for five seconds loses it to the one who asks; a commit or read under way counts as
        moving. A path is used once.
        """

    def peek(path: str) -> Deferred[PartialInfo]:
        """A partial object seen without taking it. NotFound."""

    def partials(prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects directly below `prefix`, in no order."""

    def stat(path: str) -> Deferred[Stat]:
        """NotFound when there is nothing."""

    def list(prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
        """The children of a directory; of a missing one an empty page, as some engines cannot tell the two apart."""

    def move(source: str, target: str) -> Deferred[None]:
        """Give an object another path, durable when it fires, replacing what is there. NotFound."""

    def remove(path: str) -> Deferred[None]:
        """Remove an object, or a directory with all below it, partial objects included; durable. NotFound."""

    def settle(path: str) -> Deferred[None]:
        """Make durable what another request or server wrote, as an answer is about to rest on it. NotFound."""

    def free_space() -> Deferred[int | None]:
        """Bytes that can still be written; None where the engine has no such bound."""

    def close() -> Deferred[None]:
        """Let go of connections and threads."""


class ISendsFiles(Interface):
    """A reader that has a file descriptor, for `sendfile`."""

    def fileno() -> int:
        """The descriptor; the reader's own, valid until its `close`."""


class IRedirects(Interface):
    """A driver that can hand a client to the engine itself."""

    def redirect(path: str, seconds: int) -> Deferred[str]:
        """A signed URL from which the object can be read for so many seconds."""


class IGroups(Interface):
    """A driver to which several small writes cost less together."""

    def put_all(objects: Sequence[tuple[str, bytes]]) -> Deferred[None]:
        """Write small objects, given as (path, data), that get their names in this order; all durable when it fires.

        A power cut before that may leave any of them.
        """


class ICommitsWith(Interface):
    """A partial object of which the same is true."""

    def commit_with(path: str, objects: Sequence[tuple[str, bytes]]) -> Deferred[None]:
        """`commit` to `path`, then write small objects that rest on it; all durable when it fires."""


class ILooksBelow(Interface):
    """A driver to which it costs little to look below each child of a directory."""

    def children_with(prefix: str, below: str, after: str, limit: int) -> Deferred[Sequence[str]]:
        """The first `limit` names, greater than `after` and sorted, of children below which `below` is there."""


class ISweeps(Interface):
    """A driver whose writes may leave temporary objects behind when a process dies."""

    def sweep(before: float) -> Deferred[int]:
        """Remove what nobody writes to any more and is older than `before`, in seconds of the epoch; how many."""


class IHidesPartials(Interface):
    """A driver whose partial objects are not among the children that `list` gives."""

    def partials_below(prefix: str) -> Deferred[Sequence[str]]:
        """The paths of the partial objects at any depth below `prefix`, in no order."""


class IProvesFresh(Interface):
    """A driver that can be looked into at once: without a thread, and never waiting for a disk or a network.

    What is seen is what every process that uses the store would see at this moment.
    """

    def read_now(path: str, limit: int) -> bytes | None:
        """A small object; None if there is none, if it is longer than `limit` bytes, or would have to be waited for."""

    def exists_now(path: str) -> bool:
        """Whether there is an object or a directory."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a run has found: objects `seen`, `moved` to their engine, and `removed` from it because they were deleted.

    `adopted` were there without being known, and `renamed` had another name than their tags say. `left` and `lost` are
    the paths of those that could not be brought to rest, and of those whose bytes are nowhere.
    """

    seen: int
    moved: int
    removed: int
    adopted: int
    renamed: int
    left: tuple[str, ...]
    lost: tuple[str, ...]


class IReconciles(Interface):
    """A driver over two engines, one of which may have been out while the other served."""

    def reconcile(tell: Callable[[str], None]) -> Deferred[Reconciled]:
        """Bring everything to the engine where it belongs; `tell` is given a line about each thing that stays behind.

        Safe while others use the store. Unavailable if the engine does not answer.
        """

    def probe(data: bytes) -> Deferred[None]:
        """Write, read and remove an object in the engine that small ones never reach."""


class ICaches(Interface):
    """A driver with a cache beside it, which it never asks itself: whoever decides by what it reads reads the store."""

    cached: IStorageDriver = Attribute(
        "the same store, for whoever only serves what it reads: its `read` may be as old as an entry of the cache"
    )


class IPool(Interface):
    """The one way to a thread."""

    def run(function: Callable[..., object], *args: object) -> Deferred[object]:
        """Run `function` in a thread of the bulk lane; begun or not, it runs, and a cancel is delivered after it."""

    def run_small(function: Callable[..., object], *args: object) -> Deferred[object]:
        """The same in the lane of its own that manifests and links have, so that large uploads never delay them."""

    def stop() -> Deferred[None]:
        """Wait for all jobs and end the threads."""


class IHooks(Interface):
    """What is told of changes to V1 repositories, and asked before an image is pushed: a plug-in of the operator's.

    It is called in the reactor's thread, so it must not block. A method may return a Deferred or a coroutine, whose
    end is waited for before the client is answered, but not for ever. A `repository` is written as its directory in
    the store is called, quoted.
    """

    def tag_created(namespace: str, repository: str, tag: str, image_id: str) -> object:
        """A tag names this image now, for the first time or instead of another one."""

    def tag_deleted(namespace: str, repository: str, tag: str, image_id: str | None) -> object:
        """A tag is gone, which named this image; None if what it named was no image.

        Called for each tag of a repository that is deleted as a whole.
        """

    def before_put_image_json(image_json: dict[str, object]) -> object:
        """An image is about to be pushed, and nothing else was found wrong with its JSON.

        None lets the push begin; any other result refuses it, and is the text for the client.
        """
