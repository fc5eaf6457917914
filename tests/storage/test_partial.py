"""Partial objects on disk, where the suite does not reach: failures, leftovers, and two requests on one session."""

import contextlib
import errno
import hashlib
import os
import random
import time
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.storage.wall import WallClock
from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NoSpace, NotFound, ReadOnly, Unavailable
from txregistry.storage import local_files
from txregistry.storage.disk import Disk
from txregistry.storage.local import LocalDriver
from txregistry.storage.local_partial import KEPT, UNSYNCED
from txregistry.storage.pool import Pool
from txregistry.testing.faults import FaultyDisk
from txregistry.testing.pools import ImmediatePool, ManualPool, result_of


class PartialCase(SynchronousTestCase):
    def setUp(self):
        self.root = os.path.abspath(self.mktemp()) + "/store"
        self.disk = FaultyDisk()
        self.driver = self.make_driver()

    def make_driver(self, pool=None, disk=None):
        driver = LocalDriver(self.root, pool or ImmediatePool(), WallClock(), disk or self.disk)
        driver.prepare()
        return driver

    def create(self, *pieces):
        partial = result_of(self.driver.partial("uploads/one", create=True))
        for piece in pieces:
            result_of(partial.write([piece], partial.offset))
        return partial

    def stall(self):
        os.utime(f"{self.root}/uploads/one/data", (time.time() - 6,) * 2)

    def read(self, path):
        return result_of(self.driver.read(path, 1 << 30))[0]


class LocalPartialTests(PartialCase):
    """What is different on a disk of this machine."""

    def setUp(self):
        super().setUp()
        if not self.driver._tree.local or not self.disk.boot():
            raise SkipTest("the tests are not on a file system of this machine")

    def data(self):
        with open(f"{self.root}/uploads/one/data", "rb") as file:
            return file.read()

    def synced(self):
        return [name for name, _ in self.disk.calls if name.startswith("sync_")]

    def test_a_small_batch_waits_for_the_next_job(self):
        partial = self.create(b"0123")
        self.assertEqual((self.data(), partial.offset), (b"", 4))
        result_of(partial.write([b"45", b"67"], 4))
        self.assertEqual((self.data(), partial.offset), (b"01234567", 8))
        result_of(partial.write([b"8"], 8))
        pieces: list[bytes] = []
        result_of(partial.read(pieces.extend))
        self.assertEqual(b"".join(pieces), b"012345678")
        result_of(partial.write([b"9"], 9))
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), b"0123456789")

    def test_what_waited_is_gone_without_a_checkpoint(self):
        partial = self.create(b"0123")
        result_of(partial.close())
        self.assertEqual((self.data(), result_of(self.driver.peek("uploads/one")).offset), (b"", 0))

    def test_only_small_ones_and_none_that_is_to_be_fed(self):
        partial = self.create(b"x" * (KEPT + 1))
        self.assertEqual(len(self.data()), KEPT + 1)
        fed: list[bytes] = []
        result_of(partial.write([b"y"], KEPT + 1, fed.extend))
        self.assertEqual((len(self.data()), fed), (KEPT + 2, [b"y"]))

    def test_a_write_that_fails_later(self):
        partial = self.create(b"0123")
        self.disk.fail("pwritev", OSError(errno.ENOSPC, "full"))
        self.failureResultOf(partial.checkpoint(b"state"), NoSpace)
        result_of(partial.close())
        self.assertEqual(result_of(self.driver.peek("uploads/one")).offset, 0)

    def test_a_small_checkpoint_is_not_synced(self):
        partial = self.create(b"0123")
        self.disk.calls.clear()
        result_of(partial.checkpoint(b"state"))
        self.assertEqual(self.synced(), [])
        result_of(partial.close())
        partial = result_of(self.driver.partial("uploads/one"))
        self.assertEqual((partial.offset, partial.state), (4, b"state"))
        result_of(partial.write([b"x" * UNSYNCED], 4))
        self.disk.calls.clear()
        result_of(partial.checkpoint(b"large"))
        self.assertEqual(self.synced(), ["sync_file", "sync_file"])
        result_of(partial.close())

    def test_after_another_boot(self):
        """What was not synced may be there in part, so nothing of it is believed."""
        result_of(self.create(b"0123").checkpoint(b"state"))
        large = result_of(self.driver.partial("uploads/two", create=True))
        result_of(large.write([b"x" * (UNSYNCED + 1)], 0))
        result_of(large.checkpoint(b"large"))
        self.patch(FaultyDisk, "boot", lambda _self: b"another")
        self.driver = self.make_driver()
        self.assertEqual(result_of(self.driver.peek("uploads/two")).offset, UNSYNCED + 1)
        self.assertEqual(result_of(self.driver.peek("uploads/one")).offset, 0)
        self.stall()
        partial = result_of(self.driver.partial("uploads/one"))
        self.assertEqual((partial.offset, partial.state), (0, b""))
        result_of(partial.write([b"ab"], 0))
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), b"ab")

    def test_where_the_kernel_tells_of_no_boot(self):
        self.patch(FaultyDisk, "boot", lambda _self: b"")
        self.driver = self.make_driver()
        partial = self.create(b"0123")
        self.disk.calls.clear()
        result_of(partial.checkpoint(b"state"))
        self.assertEqual(self.synced(), ["sync_file", "sync_file"])
        result_of(partial.cancel())

    def test_a_reopening_and_a_closing_need_no_thread(self):
        result_of(self.create(b"0123").checkpoint(b"state"))
        self.stall()
        pool = ManualPool()
        driver = self.make_driver(pool)
        taking = driver.partial("uploads/one")
        self.assertEqual(pool.waiting, ["bulk"])  # a copy
        pool.flush()
        result_of(result_of(taking).close())
        partial = result_of(driver.partial("uploads/one"))
        result_of(partial.close())
        self.assertEqual(pool.waiting, [])


class PartialTests(PartialCase):
    """As on a network file system, where each step is a job."""

    def setUp(self):
        self.patch(local_files, "is_local", lambda _path: False)
        super().setUp()

    def test_short_writes(self):
        """A system call that takes only some of the bytes is continued where it stopped."""
        whole = Disk.pwritev
        self.patch(
            FaultyDisk, "pwritev", lambda self, fd, pieces, at: whole(self, fd, [b"".join(pieces)[: 1 + at % 7]], at)
        )
        data = bytes(range(256))
        partial = self.create(data[:3], b"", data[3:100])
        result_of(partial.write([data[100:101], b"", data[101:250], data[250:]], 100))
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), data)

    def test_no_progress(self):
        """A system call that takes nothing is an error, not an endless loop."""
        partial = result_of(self.driver.partial("uploads/one", create=True))
        self.patch(FaultyDisk, "pwritev", lambda self, fd, pieces, at: 0)
        self.failureResultOf(partial.write([b"1"], 0), Unavailable)

    def test_failed_write(self):
        """Each kind of failure has its type; after it nothing more is written, and the next holder begins before it."""
        for number, kind in ((errno.ENOSPC, NoSpace), (errno.EROFS, ReadOnly), (errno.EIO, Unavailable)):
            partial = self.create(b"0123")
            result_of(partial.checkpoint(b"saved"))
            self.disk.fail("pwritev", OSError(number, "so it is"))
            self.failureResultOf(partial.write([b"4567"], 4), kind)
            self.assertRaises(AssertionError, partial.write, [b"4567"], 4)
            self.assertRaises(AssertionError, partial.checkpoint, b"")
            self.assertRaises(AssertionError, partial.commit, "target")
            result_of(partial.close())
            partial = result_of(self.driver.partial("uploads/one"))
            self.assertEqual((partial.offset, partial.state), (4, b"saved"))
            result_of(partial.cancel())

    def test_failed_fsync(self):
        """It fails the commit or the checkpoint, and is not tried again on that descriptor."""
        for verb in (lambda partial: partial.commit("target"), lambda partial: partial.checkpoint(b"new")):
            partial = self.create(b"0123")
            result_of(partial.checkpoint(b"saved"))
            self.disk.fail("sync_file", OSError(errno.EIO, "broken"))
            self.failureResultOf(verb(partial), Unavailable)
            self.assertRaises(AssertionError, verb, partial)
            result_of(partial.close())
            self.failureResultOf(self.driver.stat("target"), NotFound)
            self.assertEqual(result_of(self.driver.peek("uploads/one")).state, b"saved")
            result_of(self.driver.remove("uploads/one"))

    def test_failed_tap(self):
        """A hasher that fails leaves nothing that could be continued without it."""
        partial = self.create(b"0123")
        self.failureResultOf(partial.write([b"4"], 4, lambda pieces: divmod(1, 0)), ZeroDivisionError)
        self.assertRaises(AssertionError, partial.checkpoint, b"")
        result_of(partial.close())

    def test_one_job_at_a_time(self):
        """A second job before the first has ended is refused: their order would be chance."""
        pool = ManualPool()
        creating = self.make_driver(pool).partial("uploads/one", create=True)
        pool.flush()
        partial = result_of(creating)
        writing = partial.write([b"1"], 0)
        self.assertRaises(AssertionError, partial.write, [b"2"], 1)
        self.assertRaises(AssertionError, partial.commit, "target")
        pool.flush()
        result_of(writing)
        partial.close()
        pool.flush()

    def test_tail_of_an_earlier_holder(self):
        """What was written after the checkpoint is cut off at the commit, although nobody overwrote it."""
        partial = self.create(b"0123")
        result_of(partial.checkpoint(b""))
        result_of(partial.write([b"4567890"], 4))
        result_of(partial.close())
        partial = result_of(self.driver.partial("uploads/one"))
        result_of(partial.write([b"x"], 4))
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), b"0123x")

    def test_checkpoint_beyond_the_data(self):
        """A checkpoint that claims more than there is counts for nothing, now and when the data has grown again."""
        partial = self.create(b"0123")
        result_of(partial.checkpoint(b"saved"))
        result_of(partial.close())
        os.truncate(f"{self.root}/uploads/one/data", 3)
        self.assertEqual(result_of(self.driver.peek("uploads/one")).offset, 0)
        partial = result_of(self.driver.partial("uploads/one"))
        self.assertEqual((partial.offset, partial.state), (0, b""))
        result_of(partial.write([b"other bytes"], 0))
        result_of(partial.close())
        partial = result_of(self.driver.partial("uploads/one"))
        self.assertEqual((partial.offset, partial.state), (0, b""))
        result_of(partial.close())

    def test_garbled_checkpoint(self):
        partial = self.create(b"0123")
        result_of(partial.close())
        for garbage in (b"", b"x\ny", b"-1\nz", b"\xff\xfe"):
            with open(f"{self.root}/uploads/one/state", "wb") as file:
                file.write(garbage)
            partial = result_of(self.driver.partial("uploads/one"))
            self.assertEqual((partial.offset, partial.state), (0, b""))
            result_of(partial.close())

    def test_a_second_name(self):
        """A file that has one is never written to: it is copied first."""
        partial = self.create(b"0123")
        result_of(partial.checkpoint(b"saved"))
        result_of(partial.close())
        os.link(f"{self.root}/uploads/one/data", f"{self.root}/other")
        partial = result_of(self.driver.partial("uploads/one"))
        self.assertEqual((partial.offset, partial.state), (4, b"saved"))
        result_of(partial.write([b"4567"], 4))
        self.assertEqual(self.read("other"), b"0123")
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), b"01234567")

    def test_copy_without_help(self):
        """A file system that cannot copy inside the kernel is read and written."""
        data = random.Random(1).randbytes(3 << 20)
        stalled = self.create(data)
        result_of(stalled.checkpoint(b"saved"))
        self.stall()
        self.disk.fail("copy_range", OSError(errno.EXDEV, "not here"))
        partial = result_of(self.driver.partial("uploads/one"))
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), data)
        result_of(stalled.close())

    def test_takeover_that_fails(self):
        """The old holder keeps what it has, and no temporary file is left."""
        stalled = self.create(b"0123")
        result_of(stalled.checkpoint(b"saved"))
        for call in ("copy_range", "sync_file", "rename"):
            self.stall()
            self.disk.fail(call, OSError(errno.ENOSPC, "full"))
            self.failureResultOf(self.driver.partial("uploads/one"), NoSpace)
        self.assertEqual(os.listdir(f"{self.root}/_txregistry/tmp/put"), [])
        result_of(stalled.write([b"4"], 4))
        result_of(stalled.commit("target"))
        self.assertEqual(self.read("target"), b"01234")

    def test_holder_wakes_during_a_takeover(self):
        """One that moves a byte or saves while its file is copied keeps the object."""
        for wake in (lambda partial: partial.write([b"4"], 4), lambda partial: partial.checkpoint(b"new")):
            stalled = self.create(b"0123")
            result_of(stalled.checkpoint(b"saved"))
            self.stall()

            class WakingDisk(Disk):
                def copy_range(self, *args, wake=wake, stalled=stalled):
                    result_of(wake(stalled))
                    return super().copy_range(*args)

            self.failureResultOf(self.make_driver(disk=WakingDisk()).partial("uploads/one"), Busy)
            result_of(stalled.cancel())

    def test_taken_over_within_a_job(self):
        """A holder that loses its object in the middle of an fsync renames nothing any more."""
        test = self

        class SlowDisk(Disk):
            """Its fsync of data takes so long that another takes the object over meanwhile."""

            slow = False

            def sync_file(self, fd):
                super().sync_file(fd)
                if self.slow:
                    self.slow = False
                    test.stall()
                    taker = result_of(test.driver.partial("uploads/one"))
                    result_of(taker.write([b"taker"], 4))
                    result_of(taker.checkpoint(b"taker"))
                    result_of(taker.close())

        for verb in (lambda partial: partial.checkpoint(b"stalled"), lambda partial: partial.commit("target")):
            disk = SlowDisk()
            partial = result_of(self.make_driver(disk=disk).partial("uploads/one", create=True))
            result_of(partial.write([b"0123"], 0))
            result_of(partial.checkpoint(b""))
            result_of(partial.write([b"STALLED"], 4))
            disk.slow = True
            self.failureResultOf(verb(partial), LostRace)
            result_of(partial.close())
            self.failureResultOf(self.driver.stat("target"), NotFound)
            taker = result_of(self.driver.partial("uploads/one"))
            self.assertEqual((taker.offset, taker.state), (9, b"taker"))
            pieces: list[bytes] = []
            result_of(taker.read(pieces.extend))
            self.assertEqual(b"".join(pieces), b"0123taker")
            result_of(taker.cancel())

    def test_renames_under_the_lock(self):
        """`data` and `state` are renamed under the tree's lock, which is what excludes a takeover in between."""
        locked: list[str] = []
        tree = self.driver._tree
        real = tree.locked

        def watching(path):
            locked.append(path)
            return real(path)

        tree.locked = watching
        partial = self.create(b"0123")
        self.assertEqual(locked, [])
        result_of(partial.checkpoint(b"saved"))
        self.assertEqual(locked, ["uploads/one"])
        self.stall()
        taker = result_of(self.driver.partial("uploads/one"))
        self.assertEqual(locked, ["uploads/one"] * 2)
        result_of(taker.commit("target"))
        self.assertEqual(locked, ["uploads/one"] * 4)  # the commit, and the removal of the rest
        result_of(partial.close())

    def test_commit_into_a_removed_directory(self):
        """A directory that is remembered and gone is made again."""
        result_of(self.driver.put("blobs/aa/other", b""))
        partial = self.create(b"0123")
        os.unlink(f"{self.root}/blobs/aa/other")
        os.rmdir(f"{self.root}/blobs/aa")
        result_of(partial.commit("blobs/aa/data"))
        self.assertEqual(self.read("blobs/aa/data"), b"0123")

    def test_commit_stands_although_the_rest_stays(self):
        """What cannot be cleared away after the rename does not undo it."""
        partial = self.create(b"0123")
        self.disk.fail("rename", OSError(errno.EIO, "broken"), after=1)
        result_of(partial.commit("target"))
        self.assertEqual(self.read("target"), b"0123")
        self.failureResultOf(self.driver.partial("uploads/one"), NotFound)


class TwoOnOneSessionTests(TestCase):
    async def test_digests_hold(self):
        """Requests that stall, wake, and take each other's session over: what is committed has its hasher's digest."""
        root = os.path.abspath(self.mktemp()) + "/store"
        pool = Pool(cast(IReactorFromThreads, reactor), 4, 2)
        self.addCleanup(pool.stop)
        drivers = [LocalDriver(root, pool, WallClock()) for _ in range(2)]
        for driver in drivers:
            driver.prepare()
        rng = random.Random(7)
        committed: dict[str, str] = {}
        replaced: list[str] = []

        async def turns(most):
            for _ in range(rng.randrange(most)):
                await pool.run_small(int)

        async def request(number, path, name):
            hasher = hashlib.sha256()

            def feed(pieces):
                for piece in pieces:
                    hasher.update(piece)

            await turns(10)
            for _ in range(50):
                try:
                    partial = await drivers[number % 2].partial(path)
                    break
                except Busy:
                    await turns(4)
                except NotFound:
                    return
            else:
                return
            try:
                await partial.read(feed)
                for step in range(4):
                    await partial.write([bytes([65 + number]) * rng.randrange(1, 3000)], partial.offset, feed)
                    if step % 2:
                        await partial.checkpoint(b"%d" % number)
                    with contextlib.suppress(FileNotFoundError):  # it looks stalled from now on
                        os.utime(f"{root}/{path}/data", (1, 1))
                    await turns(6)
                await partial.commit(f"blobs/{name}")
                committed[f"blobs/{name}"] = hasher.hexdigest()
            except LostRace:
                replaced.append(name)
            finally:
                await partial.close()

        for session in range(30):
            path = f"uploads/{session}"
            await (await drivers[0].partial(path, create=True)).close()
            await gatherResults([start(request(number, path, f"{session}-{number}")) for number in range(6)])
        self.assertGreater(len(committed), 20)
        self.assertGreater(len(replaced), 0)
        for path, digest in committed.items():
            found = (await drivers[0].read(path, 1 << 20))[0]
            self.assertEqual(hashlib.sha256(found).hexdigest(), digest)
        self.assertEqual(os.listdir(f"{root}/_txregistry/tmp/put"), [])
