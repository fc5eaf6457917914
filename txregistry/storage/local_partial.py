"""Partial objects on disk: a directory with the growing file, its last checkpoint, and whatever a caller puts there.

    <path>/data         the bytes; locked (`flock`) from the opening to the end by whoever writes
    <path>/startedat    when it began
    <path>/state        "<offset>[ <boot>]", a newline, and up to 4 KiB of the caller's, renamed into place at each
                        checkpoint

**Who may write.** The holder is whoever has the lock on the file *that `data` names*. A holder that moves no byte for
five seconds is not waited for: the next one copies what the last checkpoint covers into a new locked file and renames
that over `data`. The old holder may write on, into a file without a name, and notices at its next job.

**Why nobody's bytes get under another's name.** `data` and `state` are renamed, and looked at before a rename, only
under the tree's lock of `<path>`: a checkpoint, a takeover or a commit that found itself the holder still is when it
renames. And the only one who writes to a file is the one who locked it, as a copy gets a file of its own; a file that
has a second name, as a power cut in the middle of a commit may leave it, is copied too before it is written to.

**What is not synced.** Up to `UNSYNCED` bytes, as the commit mostly follows a moment later, a checkpoint survives the
process alone: it names the boot of the machine, and in another one counts as none.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, execute, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NotFound, StorageError, Unavailable, WrongOffset
from txregistry.interfaces import ICommitsWith, IPartial, PartialInfo, Tap
from txregistry.storage.local_files import parent_of, same_file
from txregistry.storage.local_reader import Descriptor
from txregistry.storage.local_tree import Tree
from txregistry.storage.pool import Lanes

T = TypeVar("T")

#: Seconds without a moved byte after which a holder may be replaced.
STALLED = 5.0

STATE_LIMIT = 4096  # most bytes of the caller's in a checkpoint
#: A batch up to so many bytes is written by the job that comes next, if it is to be fed to nobody.
KEPT = 64 * 1024

#: Largest object whose checkpoint does not wait for the disk, in bytes.
UNSYNCED = 1 << 20

#: UTC, whole seconds; distribution refuses a newline behind it.
RFC_3339 = "%Y-%m-%dT%H:%M:%SZ"

#: Bytes read by one job, and by one call within it.
READ_JOB, READ_PIECE = 1 << 20, 256 * 1024


def peek(tree: Tree, path: str) -> PartialInfo:
    """A partial object seen without its lock; blocking."""
    with tree.errors(path):
        found = tree.disk.stat(tree.full(f"{path}/data"))
        offset, state = _load_state(tree, path, found.st_size)
        return PartialInfo(offset, state, found.st_mtime)


def partials(tree: Tree, prefix: str) -> Sequence[str]:
    """The paths of the partial objects directly below a prefix; blocking."""
    found = []
    for entry in tree.list(prefix, None, 1 << 62).entries:
        path = f"{prefix}/{entry.name}" if prefix else entry.name
        with contextlib.suppress(NotFound):
            if entry.is_directory and not tree.stat(f"{path}/data").is_directory:
                found.append(path)
    return found


def _load_state(tree: Tree, path: str, size: int) -> tuple[int, bytes]:
    """Offset and state of the last checkpoint; of none, or one that the data has lost, zero and nothing."""
    try:
        fd = tree.disk.open(tree.full(f"{path}/state"), os.O_RDONLY)
    except FileNotFoundError:
        return 0, b""
    try:
        line, _, state = tree.disk.pread(fd, STATE_LIMIT + 96, 0).partition(b"\n")
    finally:
        tree.disk.close(fd)
    number, _, boot = line.partition(b" ")
    offset = int(number) if number.isdigit() else size + 1
    return (offset, state) if offset <= size and boot in (b"", tree.boot) else (0, b"")


@implementer(IPartial, ICommitsWith)
class LocalPartial:
    """A held partial object. One job at a time: a second before the first has ended is a caller's mistake."""

    def __init__(self, tree: Tree, pool: Lanes, path: str) -> None:
        self._tree = tree
        self._disk = tree.disk
        self._pool = pool
        self._path = path
        self._data = tree.full(f"{path}/data")
        self._descriptor = Descriptor(tree.disk.close)
        self._running = False
        self._ended = False
        self._saved = 0  # the offset of the last checkpoint
        self._kept: Sequence[bytes] = ()  # the last bytes before `offset`, which are still to be written
        self.offset = 0
        self.state = b""

    # -- taking hold --------------------------------------------------------------------------------------------

    async def create(self, now: float) -> None:
        """Make a new one; LostRace when there is one."""
        await self._descriptor.run(self._pool.run_small, self._create, now)

    async def reopen(self, now: Callable[[], float]) -> None:
        """Hold the one that is there, or take it over; NotFound, Busy."""
        lane = execute if self._tree.local else self._pool.run_small  # it asks the kernel for what that has at hand
        if not await self._descriptor.run(lane, self._reopen, now, False):
            await self._descriptor.run(self._pool.run, self._reopen, now, True)  # it may copy gigabytes

    # Below, what begins with an underscore and returns no Deferred runs in a thread of the pool.

    def _create(self, now: float) -> None:
        with self._tree.errors(self._path, writing=True):
            self._tree.check_root()
            try:
                for last in (False, True):
                    try:
                        self._tree.directories.make(self._path)
                        self._descriptor.adopt(self._disk.open(self._data, os.O_RDWR | os.O_CREAT | os.O_EXCL))
                        break
                    except FileNotFoundError:  # a directory above was removed just now
                        if last:
                            raise
                self._disk.lock(self._descriptor.fd, wait=False)
                self._note_start(now)
            except FileExistsError:
                raise LostRace(self._path, "a partial object is there already") from None
            except BlockingIOError:
                raise Busy(self._path) from None

    def _note_start(self, now: float) -> None:
        """Say when it began, as distribution does; its purge passes over uploads that do not."""
        fd = self._disk.open(self._tree.full(f"{self._path}/startedat"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self._tree.write_all(fd, [time.strftime(RFC_3339, time.gmtime(now)).encode("ascii")], 0)
        finally:
            self._disk.close(fd)

    def _reopen(self, now: Callable[[], float], may_copy: bool) -> bool:
        """Take hold; False when that needs a copy, which `may_copy` forbids."""
        with self._tree.errors(self._path):
            fd = self._disk.open(self._data, os.O_RDWR)
            try:
                try:
                    self._disk.lock(fd, wait=False)
                except BlockingIOError:
                    idle = now() - self._disk.stat_open(fd).st_mtime
                    if idle < STALLED:
                        raise Busy(self._path, max(1, math.ceil(STALLED - max(idle, 0)))) from None
                else:
                    found = self._disk.stat_open(fd)
                    if not self._is_data(found):
                        raise Busy(self._path, 1)  # replaced after we had opened it; its new holder is at work
                    if found.st_nlink == 1:
                        self._descriptor.adopt(fd)
                        fd = -1
                        self._load(found.st_size)
                        self._disk.touch(self._descriptor.fd)  # its five seconds begin now
                        return True
                if may_copy:
                    self._copy(fd)
                return may_copy
            finally:
                if fd != -1:
                    self._disk.close(fd)

    def _load(self, size: int) -> None:
        self.offset, self.state = _load_state(self._tree, self._path, size)
        self._saved = self.offset
        if not self.offset and not self.state:
            # One that claims more than the data has must not come to fit it by chance later on.
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(self._tree.full(f"{self._path}/state"))

    def _copy(self, old: int) -> None:
        """Put a copy, up to the last checkpoint, in the place of a file that another holds or that has two names."""
        before = self._disk.stat_open(old)
        checkpoint = _load_state(self._tree, self._path, before.st_size)
        new, temporary = self._tree.temporary()
        self._descriptor.adopt(new)
        try:
            self._copy_bytes(old, new, checkpoint[0])
            self._disk.sync_file(new)
            with self._tree.locked(self._path):
                after = self._disk.stat_open(old)
                same = checkpoint == _load_state(self._tree, self._path, after.st_size)
                if not same or after.st_mtime_ns != before.st_mtime_ns or not self._is_data(before):
                    raise Busy(self._path)
                self._disk.rename(temporary, self._data)
        except BaseException:
            with contextlib.suppress(OSError):  # left for the sweep
                self._disk.unlink(temporary)
            raise
        # Else a power cut could leave the old file under a checkpoint of the new one.
        self._disk.sync_directory(self._tree.full(self._path))
        self._load(checkpoint[0])

    def _copy_bytes(self, old: int, new: int, size: int) -> None:
        at = 0
        inside_kernel = True
        while at < size:
            if inside_kernel:
                try:
                    count = self._disk.copy_range(old, new, size - at, at)
                except OSError as error:
                    if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
                    inside_kernel = False
                    continue
            else:
                piece = self._disk.pread(old, min(size - at, READ_JOB), at)
                count = len(piece)
                self._tree.write_all(new, [piece], at)
            if not count:
                raise Unavailable(self._path, f"its data ends at {at}, before the checkpoint at {size}")
            at += count

    def _is_data(self, mine: os.stat_result) -> bool:
        return same_file(mine, self._disk.stat(self._data))

    def _check_holder(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._is_data(self._disk.stat_open(self._descriptor.fd)):
                return
        raise LostRace(self._path, "another request took it over or finished it")

    # -- using it -----------------------------------------------------------------------------------------------

    def _job(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        assert not self._running, "one job at a time"
        assert not self._ended, "committed, cancelled, closed, or failed"
        self._running = True
        return self._descriptor.run(self._pool.run, self._guarded, function, *args).addBoth(self._job_ended)

    def _guarded(self, function: Callable[..., T], *args: object) -> T:
        try:
            with self._tree.errors(self._path, writing=True):
                return function(*args)
        except BaseException:
            self._ended = True  # after a failure nothing more is written, and no fsync repeated
            raise

    def _job_ended(self, result: T) -> T:
        self._running = False
        return result

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        """Append `batch`, and feed it to `tap` in the same job; see `IPartial`."""
        if at != self.offset and not self._running:
            return fail(WrongOffset(self._path, self.offset))
        at_once = self._tree.local and tap is None and not (self._kept or self._running or self._ended)
        if at_once and sum(map(len, batch)) <= KEPT:
            return execute(self._guarded, self._keep, batch)
        return self._job(self._write, batch, tap)

    def _keep(self, batch: Sequence[bytes]) -> None:
        self._check_holder()
        self._kept = batch
        self.offset += sum(map(len, batch))

    def _write(self, batch: Sequence[bytes], tap: Tap | None) -> None:
        self._check_holder()
        self._write_kept()
        self.offset = self._append(batch, self.offset)
        if tap is not None:
            tap(batch)

    def _write_kept(self) -> None:
        kept, self._kept = self._kept, ()
        self._append(kept, self.offset - sum(map(len, kept)))

    def _append(self, batch: Sequence[bytes], at: int) -> int:
        try:
            return self._tree.write_all(self._descriptor.fd, batch, at)
        except OSError:
            # What came since the last checkpoint is lost to everybody: were it left, it would keep a full disk full.
            with contextlib.suppress(OSError):
                self._disk.truncate(self._descriptor.fd, self._saved)
            raise

    def checkpoint(self, state: bytes) -> Deferred[None]:
        """Make the bytes durable, then save offset and `state`."""
        assert len(state) <= STATE_LIMIT, "the state is too long"
        return self._job(self._checkpoint, state)

    def _checkpoint(self, state: bytes) -> None:
        self._check_holder()
        self._write_kept()
        boot = self._tree.boot if self.offset <= UNSYNCED else b""
        if not boot:
            self._disk.sync_file(self._descriptor.fd)
        fd, temporary = self._tree.temporary()
        try:
            line = b"%d %s\n" % (self.offset, boot) if boot else b"%d\n" % self.offset
            self._tree.write_all(fd, [line, state], 0)
            if not boot:
                self._disk.sync_file(fd)
            with self._tree.locked(self._path):
                self._check_holder()
                self._disk.rename(temporary, self._tree.full(f"{self._path}/state"))
        finally:
            self._tree.drop_temporary(fd, temporary)
        self._saved, self.state = self.offset, state

    def read(self, tap: Tap) -> Deferred[None]:
        """Feed all bytes to `tap`, a MiB for each job."""
        return start(self._read_all(tap))

    async def _read_all(self, tap: Tap) -> None:
        at = 0
        while at < self.offset:
            at = await self._job(self._read, at, tap)

    def _read(self, at: int, tap: Tap) -> int:
        self._write_kept()
        self._disk.touch(self._descriptor.fd)  # reading is a sign of life too
        stop = min(at + READ_JOB, self.offset)
        while at < stop:
            piece = self._disk.pread(self._descriptor.fd, min(stop - at, READ_PIECE), at)
            if not piece:
                raise Unavailable(self._path, f"its data ends at {at}, before {self.offset}")
            tap([piece])
            at += len(piece)
        return at

    def commit(self, path: str) -> Deferred[None]:
        """Make the bytes durable and let them appear at `path`; see `IPartial`."""
        return self._job(self._commit, path, ())

    def commit_with(self, path: str, objects: Sequence[tuple[str, bytes]]) -> Deferred[None]:
        """The same together with small objects; see `ICommitsWith`."""
        return self._job(self._commit, path, objects)

    def _commit(self, path: str, objects: Sequence[tuple[str, bytes]]) -> None:
        def rename() -> None:
            self._check_holder()
            self._disk.rename(self._data, self._tree.full(path))

        fd = self._descriptor.fd
        self._write_kept()
        if self._disk.stat_open(fd).st_size != self.offset:
            self._disk.truncate(fd, self.offset)  # what an earlier holder wrote after its last checkpoint
        self._disk.touch(fd)
        self._tree.directories.make(parent_of(path))
        with self._tree.written(objects) as files:
            self._disk.sync_file(fd)
            others = [(file.path, file.path, file.rename) for file in files]
            self._tree.name_all([(path, self._path, rename), *others])
        self._tree.settled(path, fd)
        self._ended = True
        with contextlib.suppress(OSError, StorageError):  # committed it is; what is left goes by age
            self._tree.discard(self._path)
        self._descriptor.close()

    def cancel(self) -> Deferred[None]:
        """Drop the object and all below its path."""
        return self._job(self._cancel)

    def _cancel(self) -> None:
        self._check_holder()
        self._tree.discard(self._path)
        self._ended = True
        if not self._disk.stat_open(self._descriptor.fd).st_nlink:
            self._disk.truncate(self._descriptor.fd, 0)  # here, as closing a large nameless file takes its time
        self._descriptor.close()

    def close(self) -> Deferred[None]:
        """Let go of it; never fails."""
        self._ended = True
        if self._descriptor.closed:
            return succeed(None)
        # The last one to close a file without a name frees all its blocks: not on the reactor's thread.
        lane = execute if self._tree.local and not self._running and self._has_name() else self._pool.run_small
        return lane(self._descriptor.close).addErrback(self._close_here)

    def _has_name(self) -> bool:
        try:
            return self._disk.stat_open(self._descriptor.fd).st_nlink > 0
        except OSError:
            return False

    def _close_here(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._descriptor.close()  # the pool is stopped
