"""Several servers on one partial object, stopped and killed between any two requests to the store."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txregistry.errors import Busy, LostRace, NotFound
from txregistry.interfaces import Entry
from txregistry.testing.pools import ImmediatePool, result_of

MISSING = importlib.util.find_spec("boto3") is None
if not MISSING:
    from txregistry.storage.s3 import segments
    from txregistry.storage.s3.bucket import Bucket
    from txregistry.storage.s3.driver import S3Driver
    from txregistry.storage.s3.partial import records_of
    from txregistry.storage.segmented.names import home
else:
    Bucket = object  # type: ignore[assignment,misc] # the class below must have a base; its tests are skipped

SESSION = "uploads/1"
FINAL = "final/"


class Killed(BaseException):
    """The process is no more."""


class Shared:
    """What the store holds."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.begun = 0
        self.now = 0.0

    def seconds(self) -> float:
        """A clock by which every hold has lapsed whenever somebody looks."""
        self.now += 100.0
        return self.now


class MemoryBucket(Bucket):
    """The store as one server sees it; `pause` is called before each request."""

    def __init__(self, shared: Shared, pause: Callable[[], None]) -> None:
        self._shared, self._pause = shared, pause

    def put(self, key: str, data: bytes, if_absent: bool = False, if_match: str | None = None) -> str:
        self._pause()
        if if_absent and key in self._shared.objects:
            raise LostRace(key)
        self._shared.objects[key] = data
        return hashlib.md5(data).hexdigest()

    def put_pieces(self, key: str, pieces: segments.Pieces) -> None:
        self.put(key, bytes(pieces.stream().read()))

    def get(self, key: str, start: int = 0, stop: int | None = None) -> tuple[bytes, str]:
        self._pause()
        if key not in self._shared.objects:
            raise NotFound(key)
        data = self._shared.objects[key]
        return data[start:stop], hashlib.md5(data).hexdigest()

    def get_aged(self, key: str) -> tuple[bytes, str, float]:
        return (*self.get(key), 100.0)  # every hold has lapsed whenever somebody looks

    def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.delete(key)

    def delete(self, key: str) -> None:
        self._pause()
        self._shared.objects.pop(key, None)

    def keys(self, prefix: str) -> list[tuple[str, str]]:
        self._pause()
        objects = sorted(self._shared.objects.items())
        return [(key, hashlib.md5(data).hexdigest()) for key, data in objects if key.startswith(prefix)]

    def children(self, prefix: str, after: str | None, limit: int) -> tuple[list[Entry], str | None]:
        raise AssertionError("no partial object lists")

    def begin(self, key: str) -> str:
        self._pause()
        self._shared.begun += 1
        self._shared.uploads[str(self._shared.begun)] = {}
        return str(self._shared.begun)

    def copy_part(self, key: str, upload: str, number: int, source: str, span: tuple[int, int] | None = None) -> str:
        data = self.get(source)[0]
        self._alive(upload)
        self._shared.uploads[upload][number] = data
        return str(number)

    def complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        self._pause()
        self._alive(upload)
        parts = self._shared.uploads.pop(upload)
        assert [str(number) for number in sorted(parts)] == list(etags)
        data = [parts[number] for number in sorted(parts)]
        assert all(len(part) >= segments.SEGMENT for part in data[:-1]), "an illegal part"
        self._shared.objects[key] = b"".join(data)

    def _alive(self, upload: str) -> None:
        if upload not in self._shared.uploads:
            raise NotFound(upload)

    def abort(self, key: str, upload: str) -> None:
        self._pause()
        self._shared.uploads.pop(upload, None)


class Server:
    """A thread that runs from one request to the next when it is told to."""

    def __init__(self, name: str, shared: Shared, commits: bool) -> None:
        self.name, self.shared, self.commits = name, shared, commits
        self.acknowledged: list[bytes] = []
        self.meant: list[bytes] = []  # what its commits are to store
        self.committed = self.done = self.killed = False
        self.failure: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it send its next request and work up to the one after it."""
        if not self.done:
            self._go.release()
            self._stopped.acquire()

    def _pause(self) -> None:
        self._stopped.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._patches(S3Driver(MemoryBucket(self.shared, self._pause), ImmediatePool(), self.shared))
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.done = True
            self._stopped.release()

    def _patches(self, store: S3Driver) -> None:
        for turn in range(3):
            try:
                partial = result_of(store.partial(SESSION))
            except Busy:
                continue
            except NotFound:
                return
            try:
                content: list[bytes] = []
                result_of(partial.read(content.extend))
                for piece in (f"{self.name}{turn}".encode(), self.name.encode() * 5):
                    result_of(partial.write([piece], partial.offset))
                    content.append(piece)
                    result_of(partial.checkpoint(b""))
                    self.acknowledged.append(b"".join(content))
                if self.commits and turn:
                    self.meant.append(b"".join(content))
                    result_of(partial.commit(FINAL + self.name))
                    self.committed = True
                    return
            except LostRace:
                pass
            finally:
                result_of(partial.close())


class RaceTests(SynchronousTestCase):
    """Whatever is acknowledged is in what comes after it."""

    skip = "needs boto3" if MISSING else None

    @given(
        commits=st.lists(st.booleans(), min_size=3, max_size=3),
        schedule=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=40),
        kills=st.dictionaries(st.integers(0, 40), st.integers(0, 2), max_size=2),
    )
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_nothing_acknowledged_is_lost(
        self, commits: list[bool], schedule: list[tuple[int, int]], kills: dict[int, int]
    ) -> None:
        self.patch(segments, "SEGMENT", 4)
        shared = Shared()
        store = S3Driver(MemoryBucket(shared, lambda: None), ImmediatePool(), shared)
        result_of(result_of(store.partial(SESSION, create=True)).close())
        servers = [Server(name, shared, commit) for name, commit in zip("abc", commits, strict=True)]
        for turn, (number, requests) in enumerate(schedule):
            if turn in kills:
                servers[kills[turn]].killed = True
            for _ in range(requests):
                servers[number].step()
        for server in servers:
            while not server.done:
                server.step()
        self.assertEqual([server.failure for server in servers if server.failure], [])
        self.check(shared, store, servers)

    def test_of_two_claims_one_holds(self) -> None:
        """Both saw the same last record before either wrote the next."""
        shared = Shared()
        other = S3Driver(MemoryBucket(shared, lambda: None), ImmediatePool(), shared)
        result_of(result_of(other.partial(SESSION, create=True)).close())
        holders = []

        def before_writing() -> None:
            requests.append(None)
            if len(requests) == 3:  # after the listing and the reading of the record
                holders.append(result_of(other.partial(SESSION)))

        requests: list[None] = []
        store = S3Driver(MemoryBucket(shared, before_writing), ImmediatePool(), shared)
        self.failureResultOf(store.partial(SESSION), Busy)
        [holder] = holders
        result_of(holder.write([b"kept"], 0))
        result_of(holder.checkpoint(b""))
        result_of(holder.commit(f"{FINAL}x"))
        self.assertEqual(shared.objects, {f"{FINAL}x": b"kept"})

    def test_the_record_of_a_killed_latecomer_does_not_count(self) -> None:
        """Killed between writing its record, whose number was free again, and looking whether it counts."""
        shared = Shared()
        bucket = MemoryBucket(shared, lambda: None)
        store = S3Driver(bucket, ImmediatePool(), shared)
        late = result_of(store.partial(SESSION, create=True))
        number, etag, record, _ = records_of(bucket, SESSION).latest()
        holder = result_of(store.partial(SESSION))
        for state in (b"1", b"2", b"3"):
            result_of(holder.checkpoint(state))
        key = f"{home(SESSION)}records/{number + 1:08d}"
        self.assertNotIn(key, shared.objects)
        bucket.put(key, replace(record, previous=etag).encode())
        self.assertEqual(result_of(store.peek(SESSION)).state, b"3")
        result_of(holder.commit(f"{FINAL}x"))
        bucket.put(key, replace(record, previous=etag).encode())
        self.failureResultOf(store.peek(SESSION), NotFound)
        self.failureResultOf(late.checkpoint(b"late"), LostRace)
        result_of(late.close())

    def check(self, shared: Shared, store: S3Driver, servers: list[Server]) -> None:
        """What must hold when all have ended."""
        self.assertLessEqual(sum(server.committed for server in servers), 1)
        for server in servers:
            if server.committed:
                self.assertEqual(shared.objects[FINAL + server.name], server.meant[-1])
            if FINAL + server.name in shared.objects:  # whole, even where its commit was not acknowledged
                self.assertIn(shared.objects[FINAL + server.name], server.meant)
        try:
            partial = result_of(store.partial(SESSION))
        except NotFound:
            ends = [data for key, data in shared.objects.items() if key.startswith(FINAL)]
        else:
            self.assertFalse(any(server.committed for server in servers))
            content: list[bytes] = []
            result_of(partial.read(content.extend))
            ends = [b"".join(content)]
            result_of(partial.cancel())
        longest = max(ends, key=len)
        for server in servers:
            for acknowledged in server.acknowledged:
                self.assertTrue(longest.startswith(acknowledged), f"{acknowledged!r} is not in {ends!r}")
        if not any(server.killed for server in servers):
            self.assertEqual([key for key in shared.objects if not key.startswith(FINAL)], [])
            self.assertEqual(shared.uploads, {})
