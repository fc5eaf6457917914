"""The local driver: the suite through a real pool, and what only a disk has."""

import errno
import os
import stat
import subprocess
import sys
import time
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.storage.wall import WallClock
from txregistry.concurrency import start
from txregistry.errors import LostRace, NoSpace, NotFound, ReadOnly, StorageError, Unavailable
from txregistry.interfaces import IPartial, IProvesFresh, IReader, ISendsFiles, IStorageDriver
from txregistry.storage import disk as disk_module
from txregistry.storage import local_files
from txregistry.storage.disk import file_system
from txregistry.storage.local import PAUSE, LocalDriver
from txregistry.storage.local_partial import KEPT
from txregistry.storage.pool import Pool
from txregistry.testing.drivers import DriverSuite
from txregistry.testing.faults import FaultyDisk
from txregistry.testing.pools import ImmediatePool, ManualPool, result_of
from txregistry.testing.suite import LARGE


def open_files(root):
    """What the descriptors of this process lead to, below the test's own root."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return sorted(path for path in found if path.startswith(root))


class LocalSuite(DriverSuite, TestCase):
    def make_driver(self):
        self.root = os.path.abspath(self.mktemp()) + "/store"
        self.pool = Pool(cast(IReactorFromThreads, reactor), size=3, small=3)
        self.addCleanup(self.pool.stop)
        return self.sibling(None)

    def sibling(self, driver):
        driver = LocalDriver(self.root, self.pool, WallClock())
        driver.prepare()
        return driver

    async def stall(self, driver, path):
        os.utime(f"{self.root}/{path}/data", (time.time() - 6,) * 2)

    async def fill(self, driver, prefix, names):
        os.makedirs(f"{self.root}/{prefix}")
        for name in names:
            with open(f"{self.root}/{prefix}/{name}", "wb"):
                pass

    async def test_another_process(self):
        """A real other process goes on with a partial object, and respects the hold of this one."""
        script = (
            "import sys\n"
            "from tests.storage.wall import WallClock\n"
            "from txregistry.errors import Busy\n"
            "from txregistry.storage.local import LocalDriver\n"
            "from txregistry.testing.pools import ImmediatePool, result_of\n"
            "driver = LocalDriver(sys.argv[1], ImmediatePool(), WallClock())\n"
            "driver.prepare()\n"
            "try:\n"
            "    partial = result_of(driver.partial('uploads/one'))\n"
            "except Busy:\n"
            "    sys.exit('busy')\n"
            "result_of(partial.write([b'there'], partial.offset))\n"
            "result_of(partial.checkpoint(partial.state + b' there'))\n"
        )

        def run():
            here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            done = subprocess.run(
                [sys.executable, "-c", script, self.root], capture_output=True, text=True, cwd=here, check=False
            )
            return done.stderr.strip()

        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await partial.write([b"here"], 0)
        await partial.checkpoint(b"here")
        self.assertEqual(await self.pool.run(run), "busy")
        await partial.close()
        self.assertEqual(await self.pool.run(run), "")
        partial = await driver.partial("uploads/one")
        self.assertEqual((partial.offset, partial.state), (9, b"here there"))
        await self.stall(driver, "uploads/one")
        self.assertEqual(await self.pool.run(run), "")
        await self.fails(LostRace, partial.write([b"!"], 9))
        await partial.close()
        partial = await driver.partial("uploads/one")
        await partial.commit("target")
        self.assertEqual(await self.contents(driver, "target"), b"heretherethere")

    async def test_no_leaks(self):
        """Every verb, failing or not, leaves no descriptor and no temporary file."""
        driver = self.make_driver()
        await driver.put("a/b", LARGE)
        await self.fails(LostRace, driver.put("a/b", b"", if_absent=True))
        await self.fails(NotFound, driver.open("a"))
        await self.fails(NotFound, driver.read("a", 10))
        reader = await driver.open("a/b")
        await self.range(reader, 0, reader.size)
        self.assertEqual(open_files(self.root), [f"{self.root}/a/b"])
        reader.close()
        ends = {
            "commit": lambda partial: partial.commit("c"),
            "cancel": lambda partial: partial.cancel(),
            "close": lambda partial: partial.close(),
        }
        for name, end in ends.items():
            partial = await driver.partial(f"uploads/{name}", create=True)
            await partial.write([b"1"], 0)
            await partial.checkpoint(b"")
            await end(partial)
            self.assertEqual(open_files(self.root), [])
        self.assertEqual(os.listdir(f"{self.root}/_txregistry/tmp/put"), [])
        self.assertEqual(os.listdir(f"{self.root}/_txregistry/tmp/removed"), [])


class LocalCase(SynchronousTestCase):
    def setUp(self):
        self.root = os.path.abspath(self.mktemp()) + "/store"
        self.disk = FaultyDisk()
        self.driver = self.make_driver()

    def make_driver(self, pool=None, disk=None):
        driver = LocalDriver(self.root, pool or ImmediatePool(), WallClock(), disk or self.disk)
        driver.prepare()
        return driver

    def get(self, deferred):
        return result_of(deferred)

    def fails(self, deferred, kind):
        return self.failureResultOf(deferred, kind).value

    def names(self, path):
        return sorted(os.listdir(f"{self.root}/{path}"))

    def age(self, path, seconds):
        os.utime(f"{self.root}/{path}", (time.time() - seconds,) * 2)


class LocalTests(LocalCase):
    def test_interfaces(self):
        verifyObject(IStorageDriver, self.driver)
        verifyObject(IProvesFresh, self.driver)
        partial = self.get(self.driver.partial("uploads/one", create=True))
        verifyObject(IPartial, partial)
        self.get(partial.commit("a"))
        reader = self.get(self.driver.open("a"))
        verifyObject(IReader, reader)
        verifyObject(ISendsFiles, reader)
        reader.close()

    def test_modes(self):
        """The umask alone decides, so that an old server of the same user can go on."""
        for mask in (0o022, 0o077, 0o002):
            before = os.umask(mask)
            try:
                self.get(self.driver.put(f"m{mask}/file", b""))
                partial = self.get(self.driver.partial(f"u{mask}/p", create=True))
                self.get(partial.commit(f"m{mask}/blob"))
            finally:
                os.umask(before)
            modes = [stat.S_IMODE(os.stat(f"{self.root}/m{mask}{name}").st_mode) for name in ("", "/file", "/blob")]
            self.assertEqual(modes, [0o777 & ~mask, 0o666 & ~mask, 0o666 & ~mask])

    def test_prepare(self):
        """The root is made; what makes it useless is told in one line."""
        self.assertTrue(os.path.isdir(self.root))
        with open(self.root + "-file", "wb"):
            pass
        for path in (self.root + "-file", self.root + "-file/below", "/proc/nothing"):
            error = self.assertRaises(Unavailable, LocalDriver(path, ImmediatePool(), WallClock()).prepare)
            self.assertIn(path, str(error))
            self.assertNotIn("\n", str(error))
        self.disk.fail("pwritev", OSError(errno.EROFS, "Read-only file system"))
        error = self.assertRaises(StorageError, self.make_driver)
        self.assertIn("Read-only file system", str(error))

    def test_an_outage_is_no_404(self):
        """A root that went away is unavailable, for reads and writes, and is not made again."""
        self.get(self.driver.put("a/b", b"1"))
        os.rename(self.root, self.root + "-gone")
        for deferred in (
            self.driver.read("a/b", 10),
            self.driver.open("a/b"),
            self.driver.stat("a/b"),
            self.driver.list("a"),
            self.driver.put("a/b", b"2"),
            self.driver.partial("uploads/one", create=True),
            self.driver.partial("uploads/one"),
            self.driver.remove("a/b"),
        ):
            self.fails(deferred, Unavailable)
        os.mkdir(self.root)
        self.fails(self.driver.read("a/b", 10), Unavailable)
        self.fails(self.driver.put("a/b", b"2"), Unavailable)
        self.assertEqual(os.listdir(self.root), [])

    def test_two_processes_make_the_root(self):
        """Workers start at the same moment, and each finds that the root is not there."""
        whole = FaultyDisk.make_directory

        def late(disk, path):
            os.makedirs(path, exist_ok=True)
            whole(disk, path)

        root = f"{self.root}-new/below"
        driver = LocalDriver(root, ImmediatePool(), WallClock(), FaultyDisk())
        self.patch(FaultyDisk, "make_directory", late)
        driver.prepare()
        self.assertTrue(os.path.isdir(root))

    def test_errors(self):
        """Each way in which a disk refuses has its type, and leaves nothing behind."""
        kinds = [
            (errno.ENOSPC, NoSpace),
            (errno.EDQUOT, NoSpace),
            (errno.EROFS, ReadOnly),
            (errno.EIO, Unavailable),
            (errno.EACCES, Unavailable),
            (errno.EMFILE, Unavailable),
        ]
        self.get(self.driver.put("a/b", b"old"))
        for number, kind in kinds:
            for call in ("pwritev", "sync_file", "rename"):
                self.disk.fail(call, OSError(number, "so it is"))
                self.fails(self.driver.put("a/b", b"new"), kind)
                self.assertEqual(self.get(self.driver.read("a/b", 10))[0], b"old")
            self.disk.fail("sync_directory", OSError(number, "so it is"))
            self.fails(self.driver.put("a/b", b"old"), kind)
            self.disk.fail("open", OSError(number, "so it is"))
            self.fails(self.driver.open("a/b"), kind)
        self.assertEqual(self.names("_txregistry/tmp/put"), [])
        self.assertEqual(open_files(self.root), [])

    def test_a_failed_write_gives_its_space_back(self):
        """Up to the last checkpoint, from which the next one goes on."""
        partial = self.get(self.driver.partial("uploads/one", create=True))
        for saved in (0, 4):
            if saved:
                self.get(partial.write([b"0123"], 0))
                self.get(partial.checkpoint(b"state"))
            self.get(partial.write([LARGE], saved))
            self.disk.fail("pwritev", OSError(errno.ENOSPC, "full"))
            self.fails(partial.write([LARGE], partial.offset), NoSpace)
            self.get(partial.close())
            self.assertEqual(os.path.getsize(f"{self.root}/uploads/one/data"), saved)
            partial = self.get(self.driver.partial("uploads/one"))
            self.assertEqual(partial.offset, saved)
        self.get(partial.cancel())

    def test_cached_reads_stay_in_place(self):
        """A small cached object needs no thread; a miss, a large one, and a network file system do."""
        self.get(self.driver.put("a", b"1"))
        self.get(self.driver.put("large", LARGE))
        pool = ManualPool()
        driver = self.make_driver(pool)
        self.assertEqual(self.get(driver.read("a", 10))[0], b"1")
        self.patch(FaultyDisk, "pread_cached", lambda self, fd, size, offset: None)
        waiting = driver.read("a", 10)
        self.assertNoResult(waiting)
        self.assertEqual(pool.waiting, ["small"])
        pool.flush()
        self.assertEqual(self.get(waiting)[0], b"1")
        waiting = driver.read("large", 10 << 20)
        self.assertNoResult(waiting)
        pool.flush()
        self.assertEqual(self.get(waiting)[0], LARGE)

    def test_names_are_looked_up_in_place(self):
        """So are those that are not there."""
        self.get(self.driver.put("a", b"1"))
        driver = self.make_driver(ManualPool())
        self.assertEqual(self.get(driver.stat("a")).size, 1)
        self.fails(driver.stat("b"), NotFound)
        reader = self.get(driver.open("a"))
        self.assertEqual((reader.size, open_files(self.root)), (1, [f"{self.root}/a"]))
        self.assertEqual(self.get(start(reader.chunks(0, 1).__anext__())), b"1")
        reader.close()
        self.fails(driver.open("b"), NotFound)
        self.fails(driver.open("_txregistry"), NotFound)
        self.assertEqual(open_files(self.root), [])

    def test_calls_in_place_pause(self):
        """However many follow each other, now and then others get their turn."""
        self.get(self.driver.put("a", b"1"))
        pool = ManualPool()
        driver = self.make_driver(pool)
        waiting = [driver.read("a", 10) for _ in range(10 * PAUSE)]
        self.assertEqual(pool.waiting, ["small"] * 10)
        waiting += [driver.stat("a") for _ in range(10 * PAUSE)]
        self.assertEqual(pool.waiting, ["small"] * 20)
        waiting += [driver.open("a") for _ in range(10 * PAUSE)]
        self.assertEqual(pool.waiting, ["small"] * 30)
        pool.flush()
        found = [self.get(each) for each in waiting]
        self.assertEqual(len(found), 30 * PAUSE)
        for reader in found[20 * PAUSE :]:
            reader.close()
        self.assertEqual(open_files(self.root), [])

    def test_network_file_systems(self):
        """There nothing is done in place."""
        self.get(self.driver.put("a", b"1"))
        for kind in ("nfs4", "fuse.sshfs", None):
            self.patch(disk_module, "file_system", lambda path, kind=kind: kind)
            pool = ManualPool()
            driver = self.make_driver(pool)
            self.assertNoResult(driver.read("a", 10))
            self.assertFalse(IProvesFresh.providedBy(driver))
            pool.flush()
            opening = driver.open("a")
            pool.flush()
            reader = self.get(opening)
            chunks = reader.chunks(0, 1)
            waiting = start(chunks.__anext__())
            self.assertEqual(pool.waiting, ["bulk"])
            pool.flush()
            self.assertEqual(self.get(waiting), b"1")
            reader.close()

    def test_mounts_are_read(self):
        """The longest mount point counts, the later one of two, with its blanks."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as mounts:
            mounts.write(
                "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
                "23 22 0:21 / /srv rw - xfs /dev/b rw\n"
                "24 22 0:22 / /srv rw master:1 shared:2 - nfs4 host:/ rw\n"
                "25 22 0:23 / /with\\040blank rw - cifs //host/share rw\n"
            )
        self.assertEqual(file_system("/srv/docker", path), "nfs4")
        self.assertEqual(file_system("/srvs", path), "ext4")
        self.assertEqual(file_system("/with blank/x", path), "cifs")
        self.assertIsNone(file_system("/srv", path + "-missing"))

    def test_what_is_there_now(self):
        """It is seen at once, however fast things follow each other."""
        self.assertIsNone(self.driver.read_now("tag/link", 10))
        self.assertIsNone(self.driver.read_now("nothing/at/all", 10))
        for data in (b"", b"sha256:a", b"sha256:b", LARGE, LARGE + b"1"):
            self.get(self.driver.put("tag/link", data))
            self.assertEqual(self.driver.read_now("tag/link", len(data)), data)
            self.assertIsNone(self.driver.read_now("tag/link", len(data) - 1) if data else None)
        self.assertIsNone(self.driver.read_now("tag", 10))
        self.assertEqual([self.driver.exists_now(path) for path in ("tag", "tag/link", "tag/x")], [True, True, False])

    def test_what_is_not_in_the_page_cache_is_not_waited_for(self):
        """Nor is a part of it that is there taken for the whole."""
        self.get(self.driver.put("link", b"1" * 8192))
        for found, seen in ((None, None), (b"1" * 4096, None), (b"1" * 8192, b"1" * 8192)):
            self.patch(FaultyDisk, "pread_cached", lambda self, fd, size, offset, found=found: found)
            self.assertEqual(self.driver.read_now("link", 8192), seen)

    def test_directories_are_synced_once(self):
        """Each on the path, outermost first, whoever made it; again once it was removed."""
        os.makedirs(f"{self.root}/x/y")
        self.disk.calls.clear()

        def synced():
            found = [path[len(self.root) + 1 :] for name, path in self.disk.calls if name == "sync_directory"]
            self.disk.calls.clear()
            return found

        self.get(self.driver.put("x/y/z/a", b""))
        self.assertEqual(synced(), ["", "x", "x/y", "x/y/z"])
        self.get(self.driver.put("x/y/z/b", b""))
        self.assertEqual(synced(), ["x/y/z"])
        self.get(self.driver.remove("x/y"))
        self.assertEqual(synced(), ["x"])
        self.get(self.driver.put("x/y/z/b", b""))
        self.assertEqual(synced(), ["x", "x/y", "x/y/z"])

    def test_directory_removed_by_another(self):
        """One that is remembered and gone is made and synced again, with all above it."""
        self.get(self.driver.put("x/y/z/a", b"1"))
        os.unlink(f"{self.root}/x/y/z/a")
        os.rmdir(f"{self.root}/x/y/z")
        os.rmdir(f"{self.root}/x/y")
        self.disk.calls.clear()
        self.get(self.driver.put("x/y/z/a", b"2"))
        self.assertEqual([name for name, _ in self.disk.calls].count("sync_directory"), 4)
        self.assertEqual(self.get(self.driver.read("x/y/z/a", 10))[0], b"2")

    def test_directory_removed_meanwhile(self):
        """What is put into a directory while one of the same name is removed rests on no memory of that one."""
        self.get(self.driver.put("x/y/a", b"1"))
        directories = self.driver._tree.directories
        with directories.removing("x"):
            self.disk.calls.clear()
            self.get(self.driver.put("x/y/b", b"2"))
            synced = [path[len(self.root) + 1 :] for name, path in self.disk.calls if name == "sync_directory"]
            self.assertEqual(synced, ["x/y", "", "x", "x/y"])
        self.assertFalse(directories.remembers("x"))

    def test_settle_once(self):
        """The same state of a file is synced once; another one again."""
        self.get(self.make_driver(disk=FaultyDisk()).put("a/b", b"1"))

        def syncs():
            self.disk.calls.clear()
            self.get(self.driver.settle("a/b"))
            return [name for name, _ in self.disk.calls if name.startswith("sync")]

        self.assertEqual(syncs(), ["sync_file", "sync_directory", "sync_directory"])
        self.assertEqual(syncs(), [])
        self.get(self.make_driver(disk=FaultyDisk()).put("a/b", b"2"))
        self.assertIn("sync_file", syncs())
        self.disk.fail("sync_file", OSError(errno.EIO, "broken"))
        self.get(self.make_driver(disk=FaultyDisk()).put("a/b", b"3"))
        self.fails(self.driver.settle("a/b"), Unavailable)
        self.assertIn("sync_file", syncs())

    def test_sweep(self):
        """Old temporary files go unless somebody holds them; removed directories always; nothing else."""
        held, name = self.driver._tree.temporary()
        self.addCleanup(os.close, held)
        held_name = os.path.basename(name)
        for name in ("old", "young"):
            with open(f"{self.root}/_txregistry/tmp/put/{name}", "wb"):
                pass
        os.makedirs(f"{self.root}/_txregistry/tmp/removed/left/below")
        partial = self.get(self.driver.partial("_txregistry/tmp/uuid", create=True))
        self.get(partial.close())
        self.age("_txregistry/tmp/put/old", 3700)
        self.age(f"_txregistry/tmp/put/{held_name}", 3700)
        self.age("_txregistry/tmp/uuid/data", 3700)
        self.assertEqual(self.get(self.driver.sweep(time.time() - 3600)), 2)
        self.assertEqual(self.names("_txregistry/tmp/put"), sorted([held_name, "young"]))
        self.assertEqual(self.names("_txregistry/tmp/removed"), [])
        self.assertEqual(self.get(self.driver.partials("_txregistry/tmp")), ["_txregistry/tmp/uuid"])

    def test_without_hard_links(self):
        """A file system that has none serves `if_absent` too."""
        self.disk.fail("link", OSError(errno.EPERM, "no links"))
        self.get(self.driver.put("a/b", b"1", if_absent=True))
        self.disk.fail("link", OSError(errno.EPERM, "no links"))
        self.fails(self.driver.put("a/b", b"2", if_absent=True), LostRace)
        self.assertEqual(self.get(self.driver.read("a/b", 10))[0], b"1")

    def test_a_put_needs_no_bulk_thread(self):
        """With every bulk thread busy and forty more uploads waiting for one, a manifest is still put."""
        pool = ManualPool()
        driver = self.make_driver(pool)
        uploads = [driver.partial(f"uploads/{number}", create=True) for number in range(40)]
        pool.flush()
        for upload in uploads:
            self.get(upload).write([b"1" * (KEPT + 1)], 0)
        self.assertEqual(pool.waiting, ["bulk"] * 40)
        driver.put("manifest", b"{}")
        self.fails(driver.stat("manifest"), NotFound)
        driver.list("")
        driver.move("manifest", "other")
        driver.remove("other")
        self.assertEqual(set(pool.waiting[40:]), {"small"})
        pool.flush()
        for upload in uploads:
            self.get(upload).close()
        pool.flush()


class CancelTests(LocalCase):
    """Whatever is cancelled, whenever: the job runs, nothing leaks, nothing foreign is written."""

    def setUp(self):
        self.patch(local_files, "is_local", lambda _path: False)  # so that each step is a job
        super().setUp()

    def moments(self):
        """Ways to run a job whose Deferred is cancelled before it, while it runs, and after it."""

        def before(pool, deferred):
            deferred.cancel()
            self.assertNoResult(deferred)
            pool.flush()

        def while_running(pool, deferred):
            pool.work()
            deferred.cancel()
            self.assertNoResult(deferred)
            pool.flush()

        return [before, while_running]

    def each(self, prepare, verb, check):
        for moment in self.moments():
            pool = ManualPool()
            driver = self.make_driver(pool)
            got = prepare(driver, pool)
            deferred = verb(driver, got)
            moment(pool, deferred)
            self.failureResultOf(deferred, CancelledError)
            check(driver, pool, got)
            pool.flush()
            self.assertEqual(open_files(self.root), [])
            self.assertEqual(self.names("_txregistry/tmp/put"), [])
            self.get(self.driver.remove("uploads").addErrback(lambda failure: failure.trap(NotFound)))

    def partial(self, driver, pool):
        creating = driver.partial("uploads/one", create=True)
        pool.flush()
        partial = self.get(creating)
        writing = partial.write([b"0123"], 0)
        pool.flush()
        self.get(writing)
        return partial

    def close(self, driver, pool, partial):
        partial.close()
        pool.flush()

    def test_open(self):
        self.get(self.driver.put("a", LARGE))
        self.each(lambda driver, pool: None, lambda driver, _: driver.open("a"), lambda *args: None)

    def test_create(self):
        self.each(
            lambda driver, pool: None,
            lambda driver, _: driver.partial("uploads/one", create=True),
            lambda *args: self.get(self.get(self.driver.partial("uploads/one")).close()),
        )

    def test_reopen(self):
        def prepare(driver, pool):
            self.close(driver, pool, self.partial(driver, pool))

        self.each(prepare, lambda driver, _: driver.partial("uploads/one"), lambda *args: None)

    def test_take_over(self):
        def prepare(driver, pool):
            partial = self.partial(driver, pool)
            self.age("uploads/one/data", 6)
            return partial

        self.each(prepare, lambda driver, _: driver.partial("uploads/one"), self.close)

    def test_put(self):
        def check(driver, pool, _):
            self.assertEqual(self.get(self.driver.read("a", 10 << 20))[0], LARGE)

        self.each(lambda driver, pool: None, lambda driver, _: driver.put("a", LARGE), check)

    def test_write(self):
        """The bytes are in, the tap was fed, and the offset says so: what comes next continues."""
        fed: list[bytes] = []

        def check(driver, pool, partial):
            self.assertEqual(partial.offset, 8)
            self.assertEqual(fed, [b"4567"])
            fed.clear()
            writing = partial.write([b"89"], 8)
            pool.flush()
            self.get(writing)
            committing = partial.commit("target")
            pool.flush()
            self.get(committing)
            self.assertEqual(self.get(self.driver.read("target", 100))[0], b"0123456789")

        self.each(self.partial, lambda driver, partial: partial.write([b"4567"], 4, fed.extend), check)

    def test_checkpoint(self):
        def check(driver, pool, partial):
            self.assertEqual(self.get(self.driver.peek("uploads/one")).state, b"saved")
            self.close(driver, pool, partial)

        self.each(self.partial, lambda driver, partial: partial.checkpoint(b"saved"), check)

    def test_read(self):
        self.each(self.partial, lambda driver, partial: partial.read(lambda pieces: None), self.close)

    def test_commit(self):
        def check(driver, pool, partial):
            self.assertEqual(self.get(self.driver.read("target", 100))[0], b"0123")
            self.fails(self.driver.peek("uploads/one"), NotFound)
            self.get(self.driver.remove("target"))

        self.each(self.partial, lambda driver, partial: partial.commit("target"), check)

    def test_drop(self):
        def check(driver, pool, partial):
            self.fails(self.driver.peek("uploads/one"), NotFound)

        self.each(self.partial, lambda driver, partial: partial.cancel(), check)

    def test_chunk_after_close(self):
        """A reader closed under a waiting read keeps its file until that has run, whatever is opened meanwhile."""
        self.get(self.driver.put("a", LARGE))
        self.get(self.driver.put("foreign", b"F" * 4096))
        self.patch(FaultyDisk, "pread_cached", lambda self, fd, size, offset: None)
        pool = ManualPool()
        driver = self.make_driver(pool)
        opening = driver.open("a")
        pool.flush()
        reader = self.get(opening)
        waiting = start(reader.chunks(0, 100).__anext__())
        reader.close()
        fd = os.open(f"{self.root}/foreign", os.O_RDONLY)
        self.addCleanup(os.close, fd)
        pool.flush()
        self.assertEqual(self.get(waiting), LARGE[:100])
        self.assertEqual(open_files(self.root), [f"{self.root}/foreign"])
