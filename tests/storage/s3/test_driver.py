"""The contract of partial objects on an object store: the bytes, the hold, and what is left."""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Sequence
from functools import partial as bound
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from txregistry.core.janitor import Janitor
from txregistry.core.policy import Policy
from txregistry.core.repositories import Repositories
from txregistry.errors import Busy, LostRace, NotFound, StorageError, TooLarge, Unavailable, WrongOffset
from txregistry.interfaces import Entry, IHidesPartials, IPartial, IReader, IStorageDriver
from txregistry.storage.pool import Pool
from txregistry.testing.drivers import DriverSuite
from txregistry.testing.pools import ImmediatePool, result_of

# The engine's library and the mock are no part of the plain installation.
MISSING = [name for name in ("boto3", "moto", "flask") if importlib.util.find_spec(name) is None]
SKIP = f"needs {', '.join(MISSING)}" if MISSING else None
if SKIP is None:
    from tests.storage.s3.mock import as_google, fill, left, new_bucket, new_mock
    from txregistry.storage.s3 import partial as s3_partial
    from txregistry.storage.s3.driver import S3Driver
    from txregistry.storage.s3.segments import SEGMENT, Budget
    from txregistry.storage.segmented.names import home
    from txregistry.storage.segmented.records import COMMIT_HOLD, HOLD

SESSION = "docker/registry/v2/repositories/a/b/_uploads/0001"
BLOB = "docker/registry/v2/blobs/sha256/00/0000/data"
MIB = 1024 * 1024


def _refuse(refusal: str, environ: dict[str, Any]) -> str:
    return refusal


class SuiteTests(DriverSuite, TestCase):
    """What every engine must do."""

    skip = SKIP

    def make_driver(self) -> S3Driver:
        self.clock = Clock()
        pool = Pool(reactor, 2, 1)  # type: ignore[arg-type] # the module stands for its object
        self.addCleanup(pool.stop)
        self.mock = new_mock(self)
        return S3Driver(new_bucket(self.mock, root="some/root/"), pool, self.clock)

    def sibling(self, driver: IStorageDriver) -> IStorageDriver:
        assert isinstance(driver, S3Driver)
        return S3Driver(driver.bucket, driver.pool, self.clock)

    async def stall(self, driver: IStorageDriver, path: str) -> None:
        self.clock.advance(6)
        self.mock.now += 6

    async def fill(self, driver: IStorageDriver, prefix: str, names: list[str]) -> None:
        assert isinstance(driver, S3Driver)
        fill(driver.bucket, [f"{prefix}/{name}" for name in names])

    async def test_interfaces(self) -> None:
        driver = self.make_driver()
        verifyObject(IStorageDriver, driver)
        verifyObject(IHidesPartials, driver)
        verifyObject(IPartial, await driver.partial("uploads/one", create=True))
        await driver.put("a", b"1")
        verifyObject(IReader, await driver.open("a"))


class GoogleTests(SuiteTests):
    """The same on a server that takes neither trailing checksums, nor lists of keys to delete, nor copies as parts."""

    def make_driver(self) -> S3Driver:
        driver = super().make_driver()
        as_google(self.mock)
        driver.bucket = new_bucket(self.mock, root="r/", google=True, checksums="when_required")
        return driver

    async def test_more_than_a_segment(self) -> None:
        driver = self.make_driver()
        data = random.Random(3).randbytes(SEGMENT + MIB)
        partial = await driver.partial(SESSION, create=True)
        for begin in range(0, len(data), MIB):
            await partial.write([data[begin : begin + MIB]], begin)
        await partial.checkpoint(b"")
        await partial.commit(BLOB)
        self.assertEqual(await self.contents(driver, BLOB), data)
        self.assertEqual(left(driver.bucket, BLOB), [])


class PartialTests(TestCase):
    """The contract, with two servers (`store` and `other`) on one bucket."""

    skip = SKIP

    def setUp(self) -> None:
        self.mock = new_mock(self)
        self.bucket = new_bucket(self.mock)
        self.clock = Clock()
        self.clock.advance(1_000_000)
        pool = Pool(reactor, 2, 1)  # type: ignore[arg-type] # the module stands for its object
        self.addCleanup(pool.stop)
        self.store = S3Driver(self.bucket, pool, self.clock)
        self.other = S3Driver(self.bucket, pool, self.clock)

    def advance(self, seconds: float) -> None:
        """Let time pass, here and at the server."""
        self.clock.advance(seconds)
        self.mock.now += seconds

    async def content(self) -> bytes:
        data, _ = await self.store.read(BLOB, 64 * MIB)
        return data

    async def fill(self, partial: IPartial, data: bytes) -> None:
        await partial.write([data[: len(data) // 2], data[len(data) // 2 :]], partial.offset)

    async def test_what_was_written_is_committed_and_nothing_else_stays(self) -> None:
        data = random.Random(1).randbytes(2 * SEGMENT + 12345)
        await self.store.put(f"{SESSION}/startedat", b"2013")
        partial = await self.store.partial(SESSION, create=True)
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
        self.assertEqual(left(self.bucket, BLOB), [])
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
        self.assertEqual(left(self.bucket, BLOB), [])

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
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_segments_since_the_checkpoint_are_not_kept(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, b"saved")
        await partial.checkpoint(b"")
        before = [key for key in left(self.bucket, BLOB) if "/segments/" in key]
        await self.fill(partial, bytes(SEGMENT))
        await partial.read(lambda pieces: None)  # waits for what is on its way
        self.assertEqual(len([key for key in left(self.bucket, BLOB) if "/segments/" in key]), 2)
        await partial.close()
        self.assertEqual([key for key in left(self.bucket, BLOB) if "/segments/" in key], before)
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
        self.assertLessEqual(len([key for key in left(self.bucket, BLOB) if "/segments/" in key]), 3)
        await (await self.other.partial(SESSION)).commit(BLOB)
        self.assertEqual(await self.content(), expected)

    async def test_under_pressure_others_send_their_bytes(self) -> None:
        """With little memory for all, an upload whose bytes were sent early goes on as if they had not been."""
        budget = Budget(3 * MIB)
        self.store = S3Driver(self.bucket, self.store.pool, self.clock, budget)
        contents = [random.Random(number).randbytes(SEGMENT + 2 * MIB) for number in range(3)]
        partials = [await self.store.partial(f"{SESSION}-{number}", create=True) for number in range(3)]
        for begin in range(0, SEGMENT + 2 * MIB, MIB):
            for partial, data in zip(partials, contents, strict=True):
                await partial.write([data[begin : begin + MIB]], begin)
                self.assertLessEqual(budget.total, 3 * MIB + SEGMENT)
        self.assertFalse(budget.exceeded)
        for number, (partial, data) in enumerate(zip(partials, contents, strict=True)):
            reread: list[bytes] = []
            await partial.read(reread.extend)
            self.assertEqual(b"".join(reread), data)
            await partial.checkpoint(b"")
            await partial.close()
            await (await self.other.partial(f"{SESSION}-{number}")).commit(BLOB)
            self.assertEqual(await self.content(), data)
        self.assertEqual(budget.total, 0)
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_a_segment_that_does_not_arrive(self) -> None:
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, b"saved")
        await partial.checkpoint(b"state")
        self.mock.refuse = lambda environ: "503 SlowDown" if "/segments/" in environ["PATH_INFO"] else None
        await self.fill(partial, bytes(SEGMENT))
        with self.assertRaises(Unavailable):
            await partial.checkpoint(b"later")
        self.mock.refuse = lambda environ: None
        with self.assertRaises(Unavailable):
            await partial.commit(BLOB)
        await partial.close()
        self.assertEqual((await self.other.peek(SESSION)).offset, 5)

    async def test_sweep(self) -> None:
        """What died with a process goes; what is in use, new, or another server's stays."""
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, b"saved")
        await partial.checkpoint(b"")
        own = left(self.bucket, BLOB)
        self.bucket.put(f"{home('gone/1')}segments/x", b"late")
        self.bucket.begin(BLOB)
        kept = self.bucket.begin("docker/registry/v2/repositories/a/_uploads/1/data")
        self.assertEqual(await self.store.sweep(1000.0), 0)
        self.assertEqual(await self.store.sweep(time.time() + 60), 2)
        self.assertEqual(left(self.bucket, BLOB), [*own, kept])

    async def test_sweep_of_a_killed_holder(self) -> None:
        """The segments that no record names go when all is old; what was acknowledged stays, and is gone on with."""
        holder = await self.store.partial(SESSION, create=True)
        await self.fill(holder, b"saved")
        await holder.checkpoint(b"state")
        named = [key for key in left(self.bucket, BLOB) if "/segments/" in key]
        await self.fill(holder, bytes(SEGMENT))
        await holder.read(lambda pieces: None)  # waits for what is on its way
        before = left(self.bucket, BLOB)
        old = time.time() + 60  # listings tell the mock's true times
        self.assertEqual(await self.store.sweep(1000.0), 0)
        self.assertEqual(await self.store.sweep(old), 0)  # held
        self.assertEqual(left(self.bucket, BLOB), before)
        self.advance(HOLD + 1)
        self.assertEqual(await self.store.sweep(1000.0), 0)
        self.assertEqual(await self.store.sweep(old), 1)
        self.assertEqual([key for key in left(self.bucket, BLOB) if "/segments/" in key], named)
        info = await self.other.peek(SESSION)
        self.assertEqual((info.offset, info.state, info.modified), (5, b"state", 1_000_000.0))
        with self.assertRaises(LostRace):  # awake again
            await holder.checkpoint(b"late")
        await holder.close()
        self.assertEqual(await self.store.sweep(old), 0)  # named
        await (await self.other.partial(SESSION)).commit(BLOB)
        self.assertEqual(await self.content(), b"saved")
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_sweep_of_an_end_that_was_cut(self) -> None:
        """Killed between the record that ends it and the removal of its segments."""
        holder = await self.store.partial(SESSION, create=True)
        await self.fill(holder, bytes(SEGMENT))
        await holder.checkpoint(b"")
        delete_many = self.bucket.delete_many

        def killed(keys: Sequence[str]) -> None:
            if keys:
                raise Unavailable("", "killed")

        self.patch(self.bucket, "delete_many", killed)
        with self.assertRaises(Unavailable):
            await holder.cancel()
        self.patch(self.bucket, "delete_many", delete_many)
        self.assertEqual(await self.store.sweep(1000.0), 0)
        self.assertEqual(await self.store.sweep(time.time() + 60), 1)
        self.assertEqual(left(self.bucket, BLOB), [])
        await holder.close()
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_partials_at_any_depth(self) -> None:
        paths = ["docker/a/_uploads/1", "docker/a/b/_uploads/2", "docker/3"]
        for path in (*paths, "other/4", "dockers/5"):
            await (await self.store.partial(path, create=True)).close()
        self.assertEqual(sorted(await self.store.partials_below("docker")), sorted(paths))

    async def test_the_janitor_finds_old_sessions(self) -> None:
        """They are among no children of the repositories."""
        await (await self.store.partial(SESSION, create=True)).close()
        policy = Policy(upload_expiry=1000)
        janitor = Janitor(self.store, Repositories(self.store), policy, self.clock)
        await janitor.sweep()
        self.assertEqual(await self.store.partials_below("docker"), [SESSION])
        self.advance(2000)
        await janitor.sweep()
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_a_server_without_multi_delete(self) -> None:
        self.mock.refuse = lambda environ: "501 NotImplemented" if environ["QUERY_STRING"] == "delete" else None
        for name in ("x", "y"):
            await self.store.put(f"a/{name}", b"1")
        await self.store.remove("a")
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_a_repeated_request_meets_its_own_success(self) -> None:
        """The first attempt was carried out, and its answer lost."""
        lost = [True]

        def refuse(environ: dict[str, Any]) -> str | None:
            if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("/once") and lost.pop():
                lost.append(False)
                fill(self.bucket, ["a/once"])
                return "500 InternalError"
            return None

        self.mock.refuse = refuse
        version = await self.store.put("a/once", b"1", if_absent=True)
        self.assertEqual(await self.store.read("a/once", 10), (b"1", version))

    async def test_cancel_leaves_nothing(self) -> None:
        await self.store.put(f"{SESSION}/startedat", b"2013")
        partial = await self.store.partial(SESSION, create=True)
        await self.fill(partial, bytes(SEGMENT))
        await partial.checkpoint(b"")
        await self.fill(partial, b"more")
        await partial.cancel()
        await partial.close()
        self.assertEqual(left(self.bucket, BLOB), [])
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
            self.advance(HOLD - 1)
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
        self.advance(HOLD + 1)
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
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_each_late_verb(self) -> None:
        for number, ended in ((number, ended) for number in range(4) for ended in (False, True)):
            path = f"{SESSION}-{number}-{ended}"
            holder = await self.store.partial(path, create=True)
            await self.fill(holder, bytes(SEGMENT))
            await holder.checkpoint(b"")
            await self.fill(holder, b"unsaved")
            self.advance(HOLD + 1)
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
            self.assertEqual(left(self.bucket, BLOB), [], path)

    async def test_a_stalled_commit_does_not_complete(self) -> None:
        """Overtaken between its copies and their completion."""
        holder = await self.store.partial(SESSION, create=True)
        await self.fill(holder, bytes(SEGMENT) + b"first")
        await holder.checkpoint(b"")
        complete = self.bucket.complete
        taken: list[IPartial] = []
        overtaking = S3Driver(self.bucket, ImmediatePool(), self.clock)

        def stalls(key: str, upload: str, etags: Sequence[str]) -> None:
            self.mock.now += COMMIT_HOLD + 1
            taken.append(result_of(overtaking.partial(SESSION)))
            complete(key, upload, etags)

        self.patch(self.bucket, "complete", stalls)
        with self.assertRaises(LostRace):
            await holder.commit("late")
        self.patch(self.bucket, "complete", complete)
        await holder.close()
        [second] = taken
        await second.commit(BLOB)
        self.assertEqual(await self.content(), bytes(SEGMENT) + b"first")
        self.assertEqual(left(self.bucket, BLOB), [])

    async def test_the_commit_of_much_is_held_for_longer(self) -> None:
        """As long as a slow server takes to join it, in which no request can renew the hold."""
        self.patch(s3_partial, "COMPLETE_RATE", SEGMENT // 100)
        holder = await self.store.partial(SESSION, create=True)
        await self.fill(holder, bytes(SEGMENT))
        complete, asked = self.bucket.complete, []
        overtaking = S3Driver(self.bucket, ImmediatePool(), self.clock)

        def slow(key: str, upload: str, etags: Sequence[str]) -> None:
            self.mock.now += COMMIT_HOLD + 90
            asked.append(self.failureResultOf(overtaking.partial(SESSION), Busy))
            self.assertEqual(result_of(overtaking.sweep(time.time() + 60)), 0)  # however long it takes
            complete(key, upload, etags)

        self.patch(self.bucket, "complete", slow)
        await holder.commit(BLOB)
        self.assertEqual(len(asked), 1)
        self.assertEqual(await self.content(), bytes(SEGMENT))
        self.assertEqual(left(self.bucket, BLOB), [])

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
        self.bucket.connection.name = "elsewhere"
        with self.assertRaises(Unavailable):
            await partial.checkpoint(b"")
        await partial.close()  # never fails
        for verb in (self.store.partial(SESSION), self.store.peek(SESSION), self.store.partials(SESSION)):
            with self.assertRaises(Unavailable):
                await verb

    async def test_each_refusal_is_an_outage(self) -> None:
        """Of credentials that have expired, a clock that is wrong, or a server in trouble: nothing is missing."""
        await self.store.put("a/one", b"1")
        for refusal in ("400 ExpiredToken", "403 InvalidAccessKeyId", "403 RequestTimeTooSkewed", "500 InternalError"):
            self.mock.refuse = bound(_refuse, refusal)
            for verb in (
                self.store.read("a/one", 9), self.store.open("a/one"), self.store.stat("a/one"),
                self.store.put("a/two", b"2", if_absent=True), self.store.list("a"), self.store.remove("a/one"),
                self.store.partial(SESSION, create=True), self.store.sweep(0.0),
            ):  # fmt: skip
                with self.assertRaises(Unavailable):
                    await verb
        self.mock.refuse = lambda environ: None
        self.assertEqual(left(self.bucket, BLOB), ["a/one"])

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
        self.assertEqual(set(page.entries + rest.entries), {Entry("one", False), Entry("b", True)})
        self.assertTrue((await self.store.stat("a")).is_directory)
        self.assertEqual((await self.store.stat("a/one")).size, 2)
        await self.store.remove("a")
        for gone in (self.store.remove("a"), self.store.stat("a"), self.store.read("a/one", 9)):
            with self.assertRaises(NotFound):
                await gone
