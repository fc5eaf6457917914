"""The contract of partial objects on an object store: by itself, and shared by two processes."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

import txregistry
from txregistry.errors import Busy, LostRace, NotFound, StorageError, TooLarge, Unavailable, WrongOffset
from txregistry.interfaces import Entry, IPartial
from txregistry.storage.pool import Pool

# The engine's library and the mock are no part of the plain installation.
MISSING = [name for name in ("boto3", "moto", "flask") if importlib.util.find_spec(name) is None]
SKIP = f"needs {', '.join(MISSING)}" if MISSING else None
if SKIP is None:
    from tests.storage.object_bucket import Bucket
    from tests.storage.object_store import COMMIT_HOLD, HOLD, SEGMENT, InPlace, ObjectPartial, ObjectStore
    from tests.storage.s3_mock import S3Mock

SESSION = "docker/registry/v2/repositories/a/b/_uploads/0001"
BLOB = "docker/registry/v2/blobs/sha256/00/0000/data"
MIB = 1024 * 1024


def left(bucket: Bucket) -> list[str]:
    """All keys and unfinished multipart uploads, the committed blob aside."""
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ())
    return [key for key, _ in bucket.keys("") if key != BLOB] + [upload["UploadId"] for upload in uploads]


def new_bucket(test: SynchronousTestCase) -> Bucket:
    """A bucket of a mock that ends with the test."""
    mock = S3Mock()
    test.addCleanup(mock.stop)
    return mock.bucket("bucket")


class PartialTests(TestCase):
    """The contract, with two servers (`store` and `other`) on one bucket."""

    skip = SKIP

    def setUp(self) -> None:
        self.bucket = new_bucket(self)
        self.clock = Clock()
        self.clock.advance(1_000_000)
        pool = Pool(reactor, 2, 1)  # type: ignore[arg-type] # the module stands for its object
        self.addCleanup(pool.stop)
        self.store = ObjectStore(self.bucket, pool, self.clock)
        self.other = ObjectStore(self.bucket, pool, self.clock)

    async def content(self) -> bytes:
        data, _ = await self.store.read(BLOB, 64 * MIB)
        return data

    async def fill(self, partial: ObjectPartial, data: bytes) -> None:
        await partial.write([data[: len(data) // 2], data[len(data) // 2 :]], partial.offset)

    async def test_what_was_written_is_committed_and_nothing_else_stays(self) -> None:
        data = random.Random(1).randbytes(2 * SEGMENT + 12345)
        await self.store.put(f"{SESSION}/startedat", b"2013")
        partial = await self.store.partial(SESSION, create=True)
        verifyObject(IPartial, partial)
        self.assertEqual((partial.offset, partial.state), (0, b""))
        tapped: list[bytes] = []
        for begin in range(0, len(data), MIB):
            await partial.write([data[begin : begin + MIB]], begin, tapped.extend)
        self.assertEqual(partial.offset, len(data))
        self.assertEqual(b"".join(tapped), data)
        reread: list[bytes] = []
        await partial.read(reread.extend)
        self.assertEqual(b"".join(reread), data)
        self.assertLessEqual(max(map(len, reread)), MIB)
        with self.assertRaises(NotFound):
            await self.store.stat(BLOB)
        await partial.commit(BLOB)
        await partial.close()
        await partial.close()
        self.assertEqual(await self.content(), data)
        self.assertEqual(left(self.bucket), [])
        for verb in (partial.write([b"x"], len(data)), partial.checkpoint(b""), partial.commit(BLOB)):
            with self.assertRaises(StorageError):
                await verb
        for gone in (self.store.partial(SESSION), self.store.peek(SESSION)):
            with self.assertRaises(NotFound):
                await gone
        self.assertEqual(await self.content(), data)

    async def test_an_empty_object(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        await partial.checkpoint(b"")
        await partial.close()
        await (await self.other.partial(SESSION)).commit(BLOB)
        self.assertEqual(await self.content(), b"")
        self.assertEqual(left(self.bucket), [])

    async def test_commit_replaces_what_is_there(self) -> None:
        await self.store.put(BLOB, b"old")
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, b"new")
        await partial.commit(BLOB)
        self.assertEqual(await self.content(), b"new")

    async def test_another_server_goes_on_at_the_checkpoint(self) -> None:
        first = await self.store.partial(SESSION, create=True)
        await self.fill(first, b"saved")
        await first.checkpoint(b"state")
        await self.fill(first, b"not saved")
        await first.close()
        info = await self.other.peek(SESSION)
        self.assertEqual((info.offset, info.state), (5, b"state"))
        second = await self.other.partial(SESSION)
        self.assertEqual((second.offset, second.state), (5, b"state"))
        await self.fill(second, b", and more")
        reread: list[bytes] = []
        await second.read(reread.extend)
        self.assertEqual(b"".join(reread), b"saved, and more")
        await second.commit(BLOB)
        self.assertEqual(await self.content(), b"saved, and more")
        self.assertEqual(left(self.bucket), [])

    async def test_segments_since_the_checkpoint_are_not_kept(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, b"saved")
        await partial.checkpoint(b"")
        before = [key for key in left(self.bucket) if "/segments/" in key]
        await self.fill(partial, bytes(SEGMENT))
        self.assertEqual(len([key for key in left(self.bucket) if "/segments/" in key]), 2)
        await partial.close()
        self.assertEqual([key for key in left(self.bucket) if "/segments/" in key], before)
        await (await self.other.partial(SESSION)).commit(BLOB)
        self.assertEqual(await self.content(), b"saved")

    async def test_small_segments_are_gathered(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        await partial.close()
        expected = b""
        for size in (1, 2, MIB, 3 * MIB, SEGMENT - 1, 1, 7, SEGMENT):
            partial = await self.store.partial(SESSION)
            self.assertEqual(partial.offset, len(expected))
            data = random.Random(size).randbytes(size)
            await self.fill(partial, data)
            await partial.checkpoint(b"")
            await partial.close()
            expected += data
        self.assertLessEqual(len([key for key in left(self.bucket) if "/segments/" in key]), 3)
        await (await self.other.partial(SESSION)).commit(BLOB)
        self.assertEqual(await self.content(), expected)

    async def test_cancel_leaves_nothing(self) -> None:
        await self.store.put(f"{SESSION}/startedat", b"2013")
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, bytes(SEGMENT))
        await partial.checkpoint(b"")
        await self.fill(partial, b"more")
        await partial.cancel()
        await partial.close()
        self.assertEqual(left(self.bucket), [])
        with self.assertRaises(NotFound):
            await self.other.partial(SESSION)

    async def test_a_write_elsewhere_than_at_the_end(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, b"abc")
        await partial.checkpoint(b"")
        with self.assertRaises(WrongOffset) as caught:
            await partial.write([b"x"], 2)
        self.assertEqual(caught.exception.offset, 3)
        with self.assertRaises(StorageError):  # nothing but close is allowed now
            await partial.write([b"x"], 3)
        await partial.close()
        self.assertEqual((await self.other.partial(SESSION)).offset, 3)

    async def test_create_and_find(self) -> None:
        with self.assertRaises(NotFound):
            await self.store.partial(SESSION)
        self.assertEqual(await self.store.partials("docker/registry/v2/repositories/a/b/_uploads"), [])
        partial = await self.store.partial(SESSION, create=True)
        with self.assertRaises(LostRace):
            await self.other.partial(SESSION, create=True)
        await partial.close()
        with self.assertRaises(LostRace):
            await self.other.partial(SESSION, create=True)
        await (await self.store.partial("docker/registry/v2", create=True)).close()
        found = await self.store.partials("docker/registry/v2/repositories/a/b/_uploads")
        self.assertEqual(found, [SESSION])
        self.assertEqual(await self.store.partials("docker/registry"), ["docker/registry/v2"])
        await self.store.remove(SESSION)
        with self.assertRaises(NotFound):
            await self.store.peek(SESSION)

    async def test_too_large_a_state(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        with self.assertRaises(ValueError):
            await partial.checkpoint(bytes(4097))

    async def test_held_while_bytes_flow(self) -> None:
        holder = await self.store.partial(SESSION, create=True)
        for _ in range(4):
            self.clock.advance(HOLD - 0.5)
            with self.assertRaises(Busy):
                await self.other.partial(SESSION)
            await self.fill(holder, b"1234")
            self.assertEqual((await self.other.peek(SESSION)).modified, self.clock.seconds())
        await holder.checkpoint(b"")
        await holder.close()
        self.assertEqual((await self.other.partial(SESSION)).offset, 16)

    async def test_a_stalled_holder_is_overtaken(self) -> None:
        holder = await self.store.partial(SESSION, create=True)
        await self.fill(holder, b"saved")
        await holder.checkpoint(b"state")
        await self.fill(holder, bytes(SEGMENT))
        self.clock.advance(HOLD)
        second = await self.other.partial(SESSION)
        self.assertEqual((second.offset, second.state), (5, b"state"))
        with self.assertRaises(Busy):
            await self.store.partial(SESSION)
        with self.assertRaises(LostRace):
            await holder.write([b"late"], holder.offset)
        await self.fill(second, b", and more")
        await second.checkpoint(b"")
        await holder.close()
        await second.commit(BLOB)
        self.assertEqual(await self.content(), b"saved, and more")
        self.assertEqual(left(self.bucket), [])

    async def test_each_late_verb(self) -> None:
        for number, ended in ((number, ended) for number in range(4) for ended in (False, True)):
            path = f"{SESSION}-{number}-{ended}"
            holder = await self.store.partial(path, create=True)
            await self.fill(holder, bytes(SEGMENT))
            await holder.checkpoint(b"")
            await self.fill(holder, b"unsaved")
            self.clock.advance(HOLD)
            second = await self.other.partial(path)
            for _ in range(3):  # so that the number of the late record is free again
                await second.checkpoint(b"second")
            if ended:
                await second.commit(BLOB)
            late = (
                lambda holder: holder.write([b"late"], holder.offset),
                lambda holder: holder.checkpoint(b"late"),
                lambda holder: holder.commit("late"),
                lambda holder: holder.cancel(),
            )[number]
            with self.assertRaises(LostRace):
                await late(holder)
            await holder.close()
            if not ended:
                self.assertEqual((await self.other.peek(path)).state, b"second")
                await second.commit(BLOB)
            self.assertEqual(await self.content(), bytes(SEGMENT))
            self.assertEqual(left(self.bucket), [], path)

    async def test_a_stalled_commit_does_not_complete(self) -> None:
        """Overtaken between its copies and their completion."""
        holder = await self.store.partial(SESSION, create=True)
        await self.fill(holder, b"first")
        await holder.checkpoint(b"")
        assemble = self.bucket.assemble
        later = Clock()
        later.advance(self.clock.seconds() + COMMIT_HOLD)
        overtaking = ObjectStore(self.bucket, InPlace(), later)
        taken: list[ObjectPartial] = []

        def stalls(key: str, upload: str, sources: Sequence[str], tick: Callable[[], None]) -> None:
            def overtake() -> None:
                overtaking.partial(SESSION).addCallback(taken.append)

            assemble(key, upload, sources, overtake)

        self.patch(self.bucket, "assemble", stalls)
        with self.assertRaises(LostRace):
            await holder.commit("late")
        self.patch(self.bucket, "assemble", assemble)
        await holder.close()
        [second] = taken
        await second.commit(BLOB)
        self.assertEqual(await self.content(), b"first")
        self.assertEqual(left(self.bucket), [])

    async def test_a_cancelled_write_has_happened(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        pending = partial.write([b"abc"], 0)
        pending.cancel()
        with self.assertRaises(CancelledError):
            await pending
        await self.fill(partial, b"def")
        self.assertEqual(partial.offset, 6)
        await partial.commit(BLOB)
        self.assertEqual(await self.content(), b"abcdef")

    async def test_an_outage_is_not_an_absence(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        self.bucket.name = "elsewhere"
        with self.assertRaises(Unavailable):
            await partial.checkpoint(b"")
        await partial.close()  # never fails
        for verb in (self.store.partial(SESSION), self.store.peek(SESSION), self.store.partials(SESSION)):
            with self.assertRaises(Unavailable):
                await verb

    async def test_small_objects(self) -> None:
        version = await self.store.put("a/one", b"1", if_absent=True)
        self.assertEqual(await self.store.read("a/one", 1), (b"1", version))
        for conditions in ({"if_absent": True}, {"if_match": "other"}):
            with self.assertRaises(LostRace):
                await self.store.put("a/one", b"2", **conditions)
        with self.assertRaises(LostRace):
            await self.store.put("a/none", b"2", if_match=version)
        await self.store.put("a/one", b"22", if_match=version)
        with self.assertRaises(TooLarge):
            await self.store.read("a/one", 1)
        await self.store.put("a/b/two", b"2")
        page = await self.store.list("a", limit=1)
        rest = await self.store.list("a", page.cursor)
        self.assertEqual(
            set(page.entries + rest.entries), {Entry("one", False), Entry("b", True)}
        )
        self.assertTrue((await self.store.stat("a")).is_directory)
        self.assertEqual((await self.store.stat("a/one")).size, 2)
        await self.store.remove("a")
        for gone in (self.store.remove("a"), self.store.stat("a"), self.store.read("a/one", 9)):
            with self.assertRaises(NotFound):
                await gone


class Server:
    """Another process that holds and writes partial objects."""

    def __init__(self, bucket: Bucket) -> None:
        root = os.path.dirname(os.path.dirname(os.path.abspath(txregistry.__file__)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.object_store_worker", bucket.client.meta.endpoint_url, bucket.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        )

    def send(self, *command: object) -> None:
        """Give a command without waiting for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the end of a command."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, *command: object) -> Any:
        """Give a command and wait for its end."""
        self.send(*command)
        return self.answer()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()

    def end(self) -> None:
        """End it and let go of its pipes."""
        self._process.kill()
        self._process.communicate()


class TwoProcesses(SynchronousTestCase):
    """One session, PATCHed by two processes."""

    skip = SKIP

    def setUp(self) -> None:
        self.bucket = new_bucket(self)
        self.servers = [Server(self.bucket), Server(self.bucket)]
        for server in self.servers:
            self.addCleanup(server.end)

    def test_taking_turns(self) -> None:
        first, second = self.servers
        self.assertEqual(first.ask("hold", SESSION, True), 0)
        self.assertIsNone(first.ask("close"))
        sizes = [1, 6 * MIB, 2, 3 * MIB, MIB, 1, 4 * MIB + 1, SEGMENT - 1, SEGMENT, 70_000, 0, 6 * MIB + 17]
        expected = b""
        for turn, size in enumerate(sizes):
            expected += random.Random(turn).randbytes(size)
            server = self.servers[turn % 2]
            self.assertEqual(server.ask("patch", SESSION, turn, size), len(expected))
        self.assertEqual(second.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(second.ask("commit", BLOB))
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket), [])

    def test_at_the_same_time(self) -> None:
        """Both ask at once; whoever is refused tries again. No byte is lost, doubled or out of its place."""
        first, _ = self.servers
        first.ask("hold", SESSION, True)
        first.ask("close")
        expected, refused, turn = b"", 0, 0
        while turn < 10:
            offers = {turn: self.servers[0], turn + 1: self.servers[1]}
            for number, server in offers.items():
                server.send("patch", SESSION, number, 40_000 + number)
            offsets = {}
            for number, server in offers.items():
                answer = server.answer()
                if isinstance(answer, int):
                    offsets[answer] = number
                else:
                    self.assertEqual(answer, {"error": "Busy"})
                    refused += 1
            self.assertTrue(offsets)
            for offset, number in sorted(offsets.items()):
                expected += random.Random(number).randbytes(40_000 + number)
                self.assertEqual(offset, len(expected))
            turn += 2
        first.ask("hold", SESSION, False)
        first.ask("commit", BLOB)
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket), [])

    def stalled(self) -> bytes:
        """The first process holds a session with acknowledged and other bytes and stalls; the former."""
        first, second = self.servers
        first.ask("hold", SESSION, True)
        acknowledged = random.Random(1).randbytes(6 * MIB) + random.Random(2).randbytes(3)
        first.ask("write", 1, 6 * MIB)
        self.assertEqual(first.ask("write", 2, 3), len(acknowledged))
        self.assertIsNone(first.ask("checkpoint", "state"))
        first.ask("write", 3, 6 * MIB)
        self.assertEqual(second.ask("patch", SESSION, 4, 1), {"error": "Busy"})
        for server in self.servers:
            server.ask("clock", 5.0)
        return acknowledged

    def test_a_stalled_holder_wakes_after_a_patch(self) -> None:
        first, second = self.servers
        expected = self.stalled() + random.Random(4).randbytes(6 * MIB)
        self.assertEqual(second.ask("patch", SESSION, 4, 6 * MIB), len(expected))
        self.assertEqual(first.ask("write", 5, 1), {"error": "LostRace"})
        self.assertIsNone(first.ask("close"))
        self.assertEqual(first.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(first.ask("commit", BLOB))
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket), [])

    def test_a_stalled_holder_wakes_after_the_commit(self) -> None:
        first, second = self.servers
        expected = self.stalled()
        self.assertEqual(second.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(second.ask("commit", BLOB))
        self.assertEqual(first.ask("write", 5, 6 * MIB), {"error": "LostRace"})
        self.assertIsNone(first.ask("close"))
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket), [])

    def test_a_holder_that_was_killed(self) -> None:
        first, second = self.servers
        expected = self.stalled()
        first.kill()
        self.assertEqual(second.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(second.ask("cancel"))
        self.assertEqual(left(self.bucket), [])
