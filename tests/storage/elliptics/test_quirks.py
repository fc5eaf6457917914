"""What servers and their back-ends do in their own way, row by row, and that the driver does not stumble over it."""

import json
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.base import Cluster
from tests.storage.elliptics.server import CLOSE_AFTER, CLOSE_BEFORE, DEL, FIND, READ, SILENT, UPDATE, WRITE
from txregistry.concurrency import start
from txregistry.errors import NotFound, Unavailable
from txregistry.storage.elliptics.directories import LOGS
from txregistry.storage.elliptics.stored import TOMBSTONE, decode
from txregistry.storage.elliptics.wire import identify
from txregistry.testing.pools import result_of

LARGE = bytes(range(256)) * 8192  # two MiB
BACKENDS = (False, True)
APPEND, PREPARE, COMMIT, NOCSUM, PLAIN, SWAP = 0x2, 0x10, 0x20, 0x100, 0x200, 0x2000


def all_of(driver, path):
    """An object in chunks."""

    async def read():
        reader = await driver.open(path)
        return b"".join([piece async for piece in reader.chunks(0, reader.size)])

    return start(read())


class WriteTests(SynchronousTestCase):
    def upload(self, driver, path, pieces):
        partial = result_of(driver.partial("up/1", create=True))
        for piece in pieces:
            result_of(partial.write([piece], partial.offset))
        result_of(partial.checkpoint(b"state"))
        result_of(partial.commit(path))

    def everything(self, driver):
        """Each verb at least once."""
        for size in (0, 1, 70_000, len(LARGE)):
            result_of(driver.put("a/b", LARGE[:size]))
            self.assertEqual(result_of(driver.read("a/b", len(LARGE)))[0], LARGE[:size])
            self.assertEqual(result_of(all_of(driver, "a/b")), LARGE[:size])
            self.assertEqual(result_of(driver.stat("a/b")).size, size)
        self.upload(driver, "a/c", [LARGE, b"", LARGE[:1]])
        self.assertEqual(result_of(all_of(driver, "a/c")), LARGE + LARGE[:1])
        result_of(driver.partial("up/2", create=True).addCallback(lambda partial: partial.commit("a/empty")))
        self.assertEqual(result_of(driver.read("a/empty", 9))[0], b"")
        result_of(driver.move("a/c", "a/d"))
        result_of(driver.list("a"))
        result_of(driver.remove("a"))
        result_of(driver.sweep(time.time() + 100))

    def test_what_is_never_done(self):
        """No empty write, none at an offset, none prepared or plain, no read behind the end, no LOOKUP."""
        for filesystem in BACKENDS:
            cluster = Cluster(self, filesystem=filesystem)
            self.everything(cluster.driver())
            for server in cluster.servers.values():
                commands = {command for command, *_ in server.requests}
                self.assertEqual(commands - {READ, WRITE, DEL, UPDATE, FIND}, set())
                for command, flags, offset, size in server.requests:
                    if command == WRITE:
                        self.assertEqual((offset, flags & (PREPARE | COMMIT | PLAIN)), (0, 0))
                        self.assertGreater(size, 0)
                    if command == READ:
                        self.assertGreater(size, 0)
                self.assertEqual(server.reads_behind_the_end, 0)

    def test_a_shorter_object_replaces_a_longer_one(self):
        for filesystem in BACKENDS:
            driver = Cluster(self, filesystem=filesystem).driver()
            result_of(driver.put("a", b"abcdefgh"))
            result_of(driver.put("a", b"XX"))
            self.assertEqual(result_of(driver.read("a", 99))[0], b"XX")

    def test_checksums(self):
        """Bytes are appended and read without, small records written and read with them."""
        cluster = Cluster(self)
        driver = cluster.driver()
        self.upload(driver, "a/large", [LARGE])
        server = cluster.servers[1]
        appended = [flags for command, flags, _, size in server.requests if command == WRITE and size == len(LARGE)]
        self.assertEqual(appended, [APPEND | NOCSUM])
        swaps = [flags for command, flags, *_ in server.requests if command == WRITE and flags & SWAP]
        self.assertEqual(set(swaps), {SWAP})
        server.requests.clear()
        result_of(all_of(driver, "a/large"))
        self.assertEqual([flags for command, flags, *_ in server.requests], [0, NOCSUM, NOCSUM])

    def test_without_checksums(self):
        cluster = Cluster(self)
        driver = cluster.driver(checksums=False)
        result_of(driver.put("a", b"1"))
        result_of(driver.read("a", 1))
        flags = [flags & NOCSUM for command, flags, *_ in cluster.servers[1].requests if command in (READ, WRITE)]
        self.assertEqual(set(flags), {NOCSUM})

    def test_timestamps_that_are_lost(self):
        """The filesystem forgets when an object was written; its trailer does not."""
        for filesystem in BACKENDS:
            driver = Cluster(self, filesystem=filesystem).driver()
            result_of(driver.put("a", b"1"))
            self.assertTrue(abs(result_of(driver.stat("a")).modified - time.time()) < 100)
            self.assertTrue(abs(result_of(driver.open("a")).modified - time.time()) < 100)

    def test_removing_what_is_not_there(self):
        """One back-end says so, the other does not; garbage that is gone is gone."""
        for filesystem in BACKENDS:
            cluster = Cluster(self, filesystem=filesystem)
            driver = cluster.driver()
            result_of(driver.put("a", LARGE))
            result_of(driver.remove("a"))
            cluster.stores[1].records = {k: r for k, r in cluster.stores[1].records.items() if r.data != LARGE}
            self.assertEqual(result_of(driver.sweep(time.time() - 3600)), 0)
            self.assertEqual(result_of(driver.sweep(time.time() + 100)), 1)
            self.assertEqual(result_of(driver.sweep(time.time() + 100)), 0)
            left = [record.data for store in cluster.stores.values() for record in store.records.values()]
            self.assertNotIn(LARGE, left)
            self.failureResultOf(driver.remove("a"), NotFound)


class DamageTests(SynchronousTestCase):
    def damage(self, cluster, group, path):
        cluster.stores[group].records[identify("DOCKER", path)].damaged = True

    def test_a_damaged_record_is_read_elsewhere_and_mended(self):
        cluster = Cluster(self, groups=3)
        driver = cluster.driver()
        result_of(driver.put("a", b"1"))
        self.damage(cluster, 1, "a")
        self.assertEqual(result_of(driver.read("a", 9))[0], b"1")
        self.assertFalse(cluster.stores[1].records[identify("DOCKER", "a")].damaged)

    def test_a_record_that_is_damaged_everywhere_is_no_404(self):
        cluster = Cluster(self)
        driver = cluster.driver()
        result_of(driver.put("a", b"1"))
        self.damage(cluster, 1, "a")
        self.damage(cluster, 2, "a")
        self.failureResultOf(driver.read("a", 9), Unavailable)

    def test_bytes_that_one_group_lost_come_from_the_other(self):
        """Cut off, gone, or broken off in the middle of the answer."""
        for number in range(3):
            cluster = Cluster(self)
            driver = cluster.driver()
            result_of(driver.put("a", LARGE))
            records = cluster.stores[1].records
            (key,) = [id_ for id_, record in records.items() if record.data == LARGE]
            if number == 0:
                records[key].data = LARGE[:1000]
            elif number == 1:
                del records[key]
            else:
                cluster.servers[1].cut_reads = 100_000
            self.assertEqual(result_of(all_of(driver, "a")), LARGE)

    def test_a_cut_copy_is_not_read_behind_its_end(self):
        """One back-end would never answer that, and each range would wait as long as an answer may take."""
        for filesystem in BACKENDS:
            cluster = Cluster(self, filesystem=filesystem)
            result_of(cluster.driver().put("a", LARGE))
            for record in cluster.stores[1].records.values():
                if record.data == LARGE:
                    record.data = LARGE[:1000]
            driver = cluster.driver()
            reader = result_of(driver.open("a"))
            for at in (1 << 20, 1000, 999, 0):
                piece = start(reader.chunks(at, at + 10).__anext__())
                self.assertEqual(result_of(piece), LARGE[at : at + 10])
            self.assertEqual(cluster.servers[1].reads_behind_the_end, 0)

    def test_a_short_object_is_never_given_for_a_whole_one(self):
        cluster = Cluster(self)
        driver = cluster.driver()
        result_of(driver.put("a", LARGE))
        for store in cluster.stores.values():
            for record in store.records.values():
                if record.data == LARGE:
                    record.data = LARGE[: 1 << 20]
        self.failureResultOf(all_of(driver, "a"), Unavailable)
        self.failureResultOf(driver.read("a", len(LARGE)), Unavailable)


class OutageTests(SynchronousTestCase):
    def test_no_fault_is_a_404(self):
        """Refused, cut before and after, silent, and every status but one."""
        cluster = Cluster(self)
        driver = cluster.driver(timeout=0.2)
        result_of(driver.put("a/b", b"1"))
        for wish in (CLOSE_BEFORE, CLOSE_AFTER, SILENT, -110, -6, -5, -84, -22, -95, -104):
            for server in cluster.servers.values():
                server.hook = lambda command, group, body, wish=wish: wish
            for verb in (driver.read("a/b", 9), driver.stat("a/b"), driver.open("a/b"), driver.list("a"),
                         driver.remove("a/b"), driver.put("a/b", b"2"), driver.peek("a/p")):  # fmt: skip
                self.failureResultOf(verb, Unavailable)
        for server in cluster.servers.values():
            server.hook = None
        self.assertEqual(result_of(driver.read("a/b", 9))[0], b"1")

    def test_slow_is_not_down(self):
        cluster = Cluster(self)
        driver = cluster.driver()
        for server in cluster.servers.values():
            server.hook = lambda command, group, body: time.sleep(0.02)
        result_of(driver.put("a/b", b"1"))
        self.assertEqual(result_of(driver.read("a/b", 9))[0], b"1")

    def test_start(self):
        """Whether enough groups answer is seen at once, in one line."""
        cluster = Cluster(self)
        cluster.driver().prepare()
        cluster.servers[2].stop()
        cluster.driver(1).tree.sessions.close()
        error = self.assertRaises(Unavailable, cluster.driver().prepare)
        self.assertIn("group 2", error.reason)
        self.assertNotIn("\n", error.reason)
        three = Cluster(self, groups=3)
        three.servers[1].stop()
        three.driver().prepare()

    def test_a_removal_that_was_cut(self):
        """The object went and its name stayed: removing it again takes that too."""
        cluster = Cluster(self, groups=1)
        driver = cluster.driver()
        result_of(driver.put("a/b", b"1"))
        cluster.servers[1].hook = lambda command, group, body: -5 if command == WRITE and b'"-"' in body else None
        self.failureResultOf(driver.remove("a/b"), Unavailable)
        cluster.servers[1].hook = None
        self.failureResultOf(driver.read("a/b", 9), NotFound)
        result_of(driver.remove("a/b"))
        self.assertEqual(result_of(driver.list("a")).entries, ())
        self.assertEqual(result_of(driver.list("")).entries, ())


class DirectoryTests(SynchronousTestCase):
    def lines(self, cluster, group, directory):
        key = identify("DOCKER", f"{LOGS}/{directory}")
        return [json.loads(line) for line in cluster.stores[group].records[key].data.splitlines()]

    def test_what_is_taken_out_has_the_stamp_of_its_tombstone(self):
        """So whoever puts the object again, and has seen the tombstone, is later, whatever the clocks say."""
        cluster = Cluster(self)
        driver = cluster.driver()
        for partial in (False, True):
            if partial:
                held = result_of(driver.partial("a/b", create=True))
                result_of(held.cancel())
                key = identify("DOCKER", "_txregistry/state/elliptics/partials/a/b")
            else:
                result_of(driver.put("a/b", b"1"))
                result_of(driver.remove("a/b"))
                key = identify("DOCKER", "a/b")
            for group, store in cluster.stores.items():
                stone = decode(store.records[key].data, len(store.records[key].data), 0.0)
                self.assertEqual(stone.kind, TOMBSTONE)
                kind = "p" if partial else "f"
                found = [line for line in self.lines(cluster, group, "a") if line[0] == "-" and line[2] == kind]
                self.assertEqual(found, [["-", stone.stamp[0], kind, "b"]])

    def test_an_object_put_again_at_once_is_listed(self):
        """By another registry, whose clock is behind: the line that takes it out comes late."""
        cluster = Cluster(self)
        one = cluster.driver()
        result_of(one.put("a/b", b"1"))
        late: list[object] = []

        def hook(command, group, body):
            if command == WRITE and body[208:].startswith(b'["-"') and not late:
                late.append(group)
                cluster.clock.shift = -60.0
                result_of(cluster.driver().put("a/b", b"2"))
                cluster.clock.shift = 0.0

        cluster.servers[1].hook = hook
        result_of(one.remove("a/b"))
        self.assertEqual(late, [1])
        self.assertEqual(result_of(one.read("a/b", 9))[0], b"2")
        self.assertEqual([entry.name for entry in result_of(one.list("a")).entries], ["b"])

    def test_logs_do_not_grow_for_ever(self):
        cluster = Cluster(self)
        driver = cluster.driver()
        for number in range(300):
            result_of(driver.put("a/b", b"%d" % number))
            result_of(driver.remove("a/b"))
        for store in cluster.stores.values():
            self.assertTrue(max(len(record.data) for record in store.records.values()) < 64_000)
        result_of(driver.put("a/c", b"1"))
        self.assertEqual([entry.name for entry in result_of(driver.list("a")).entries], ["c"])

    def test_two_who_write_into_one_directory(self):
        cluster = Cluster(self)
        one, two = cluster.watched(), cluster.driver()
        cluster.servers[1].stop()
        result_of(one.put("a/b", b"1"))
        cluster.servers[1].start()
        result_of(two.put("a/c", b"1"))
        self.assertEqual([entry.name for entry in result_of(one.list("a")).entries], ["b", "c"])
        lines = [cluster.stores[g].records[identify("DOCKER", "_txregistry/state/elliptics/directories/a")].data
                 for g in (1, 2)]  # fmt: skip
        self.assertEqual(sorted(lines[0].splitlines()), sorted(lines[1].splitlines()))
