"""One of two groups alone: what goes on, what does not, and how a group that was away becomes whole again."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.base import Cluster
from tests.storage.elliptics.server import READ, SILENT, WRITE, write_as_original
from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.storage.elliptics import watching
from txregistry.storage.elliptics.driver import BEAT, EllipticsDriver
from txregistry.storage.elliptics.groups import BEHIND
from txregistry.storage.elliptics.wire import identify
from txregistry.testing.pools import ImmediatePool, result_of

LARGE = bytes(range(256)) * 1024
LARGER = LARGE * 5


class AloneTests(SynchronousTestCase):
    """Two groups, of which one makes a write."""

    version = "2.24"

    def cluster(self):
        return Cluster(self, self.version)

    def push(self, driver, name, data=LARGER):
        """What a push does: an upload in pieces, a record of it, a link, and a tag."""
        partial = result_of(driver.partial(f"up/{name}", create=True))
        for at in range(0, len(data), 300_000):
            result_of(partial.write([data[at : at + 300_000]], at))
            result_of(partial.checkpoint(b"s"))
        self.assertEqual(result_of(driver.peek(f"up/{name}")).offset, len(data))
        result_of(partial.commit(f"blobs/{name}"))
        result_of(driver.put(f"links/{name}", name.encode(), if_absent=True))
        result_of(driver.put("tags/latest", name.encode()))

    def pull(self, driver, name, data=LARGER):
        self.assertEqual(result_of(driver.read("tags/latest", 99))[0], name.encode())
        self.assertEqual(result_of(driver.read(f"links/{name}", 99))[0], name.encode())
        self.assertEqual(result_of(driver.read(f"blobs/{name}", 1 << 24))[0], data)
        self.assertIn(name, [entry.name for entry in result_of(driver.list("blobs")).entries])

    def test_pulls_and_pushes_go_on(self):
        """Whichever is killed; what is not there is not found, what is removed stays so."""
        for killed in (1, 2):
            cluster = self.cluster()
            driver = cluster.watched()
            self.push(driver, "one")
            result_of(driver.put("a/b", b"1"))
            cluster.servers[killed].stop()
            self.pull(driver, "one")
            self.failureResultOf(driver.read("a/none", 9), NotFound)
            self.failureResultOf(driver.put("a/b", b"2", if_absent=True), LostRace)
            self.push(driver, "two")
            result_of(driver.remove("a/b"))
            self.failureResultOf(driver.read("a/b", 9), NotFound)
            self.pull(driver, "two")
            # It comes back, and is made whole; then the other one goes.
            cluster.servers[killed].start()
            self.pull(driver, "two")
            self.assertGreater(watching.beat(driver.tree), 0)
            self.assertEqual(watching.beat(driver.tree), 0)
            cluster.servers[3 - killed].stop()
            self.pull(driver, "two")
            self.pull(driver, "two", LARGER)
            self.failureResultOf(driver.read("a/b", 9), NotFound)
            self.push(driver, "three", LARGE)
            self.pull(driver, "three", LARGE)

    def test_killed_in_the_middle_of_an_upload(self):
        for killed in (1, 2):
            cluster = self.cluster()
            driver = cluster.watched()
            partial = result_of(driver.partial("up/1", create=True))
            result_of(partial.write([LARGE], 0))
            cluster.servers[killed].stop()
            result_of(partial.write([LARGE], len(LARGE)))
            result_of(partial.checkpoint(b"s"))
            result_of(partial.close())
            partial = result_of(driver.partial("up/1"))
            self.assertEqual((partial.offset, partial.state), (2 * len(LARGE), b"s"))
            cluster.servers[killed].start()
            result_of(partial.write([LARGE], 2 * len(LARGE)))
            result_of(partial.commit("blob"))
            self.assertEqual(watching.beat(driver.tree) > 0, True)
            cluster.servers[3 - killed].stop()
            self.assertEqual(result_of(driver.read("blob", 1 << 24))[0], LARGE * 3)

    def test_one_that_returned_is_not_trusted_alone_before_it_has_everything(self):
        """It would serve what was overwritten, and what was deleted."""
        cluster = self.cluster()
        driver = cluster.watched()
        result_of(driver.put("a/b", b"old"))
        result_of(driver.put("a/gone", b"1"))
        cluster.servers[2].stop()
        result_of(driver.put("a/b", b"new"))
        result_of(driver.remove("a/gone"))
        cluster.servers[1].stop()
        cluster.servers[2].start()
        other = cluster.driver()
        for registry in (driver, other):
            watching.beat(registry.tree)
            for verb in (registry.read("a/b", 9), registry.read("a/gone", 9), registry.put("a/b", b"3"),
                         registry.put("a/new", b"3"), registry.list("a"), registry.read("a/none", 9),
                         registry.partial("up/1", create=True)):  # fmt: skip
                self.failureResultOf(verb, Unavailable)
        cluster.servers[1].start()
        self.assertEqual(result_of(other.read("a/b", 9))[0], b"new")
        watching.beat(other.tree)
        cluster.servers[1].stop()
        self.assertEqual(result_of(other.read("a/b", 9))[0], b"new")
        self.failureResultOf(other.read("a/gone", 9), NotFound)

    def test_a_restart_that_nobody_saw(self):
        """While a group was away another registry wrote without it; this one never used it meanwhile."""
        cluster = self.cluster()
        one, two = cluster.watched(), cluster.watched()
        result_of(one.put("a/b", b"old"))
        self.assertEqual(result_of(two.read("a/b", 9))[0], b"old")
        cluster.servers[2].stop()
        result_of(one.put("a/b", b"new"))
        cluster.servers[2].start()
        cluster.servers[1].stop()
        self.failureResultOf(two.read("a/b", 9), Unavailable)

    def test_what_another_registry_noted(self):
        """A group refused a write of another registry, and is up all the time."""
        cluster = self.cluster()
        one, two = cluster.watched(), cluster.watched()
        result_of(one.put("a/b", b"old"))
        cluster.servers[2].hook = lambda command, group, body: -28 if command == WRITE else None
        result_of(one.put("a/b", b"new"))
        watching.beat(two.tree)  # mends nothing, as nothing can be written
        cluster.servers[1].stop()
        self.failureResultOf(two.read("a/b", 9), Unavailable)
        cluster.servers[1].start()
        cluster.servers[2].hook = None
        self.assertGreater(watching.beat(two.tree), 0)
        cluster.servers[1].stop()
        self.assertEqual(result_of(two.read("a/b", 9))[0], b"new")

    def test_a_restart_of_the_registry_without_a_group(self):
        """The group that went on says so itself; the other one does not."""
        for alone in (1, 2):
            cluster = self.cluster()
            driver = cluster.watched()
            self.push(driver, "one")
            cluster.servers[3 - alone].stop()
            watching.beat(driver.tree)
            self.push(driver, "two")
            cluster.servers[alone].stop()
            cluster.servers[alone].start()
            again = cluster.driver()
            again.prepare()
            self.pull(again, "two")
            self.push(again, "three")
            cluster.servers[alone].stop()
            cluster.servers[3 - alone].start()
            self.assertIn(f"group {alone}", self.assertRaises(Unavailable, cluster.driver().prepare).reason)
            # Together again, the mark is taken back: from then on either may go on.
            cluster.servers[alone].start()
            watching.beat(again.tree)
            cluster.servers[alone].stop()
            cluster.servers[3 - alone].stop()
            cluster.servers[alone].start()
            self.assertRaises(Unavailable, cluster.driver().prepare)

    def test_an_empty_disk_is_no_whole_group(self):
        """Though nobody noted anything for it: it gets all there is before it is trusted."""
        cluster = self.cluster()
        driver = cluster.watched()
        self.push(driver, "one")
        result_of(driver.put("images/1/json", b"{}"))
        partial = result_of(driver.partial("up/open", create=True))
        result_of(partial.write([LARGE], 0))
        result_of(partial.checkpoint(b"s"))
        result_of(partial.close())
        self.empty(cluster, 2)
        self.pull(driver, "one")
        cluster.servers[1].stop()
        self.failureResultOf(driver.read("blobs/one", 1 << 24), Unavailable)
        self.failureResultOf(driver.read("a/none", 9), Unavailable)
        self.assertRaises(Unavailable, cluster.driver().prepare)
        cluster.servers[1].start()
        watching.beat(driver.tree)
        cluster.servers[1].stop()
        self.pull(driver, "one")
        self.assertEqual(result_of(driver.read("images/1/json", 9))[0], b"{}")
        self.assertEqual(result_of(driver.peek("up/open")).offset, len(LARGE))
        self.failureResultOf(driver.read("a/none", 9), NotFound)

    def empty(self, cluster, group):
        cluster.servers[group].stop()
        store = cluster.stores[group]
        store.records.clear()
        store.indexes.clear()
        store.tables.clear()
        cluster.servers[group].start()

    def test_an_empty_disk_in_a_store_of_the_original(self):
        """Its large layers are given to both groups anew, and found there without the index tables."""
        cluster = self.cluster()
        for path, data in (("images/1/json", b"{}"), ("images/1/layer", LARGER), ("images/2/_inprogress", b"")):
            write_as_original(cluster.stores[1], path, data)
        driver = cluster.watched()
        cluster.servers[1].stop()
        self.assertEqual([entry.name for entry in result_of(driver.list("images")).entries], ["1", "2"])
        self.assertEqual(result_of(driver.read("images/1/layer", 1 << 24))[0], LARGER)
        self.assertEqual(result_of(driver.read("images/2/_inprogress", 9))[0], b"")

    def test_the_note_comes_before_the_answer(self):
        """Where it cannot be noted that the other group missed a write, the write does not stand."""
        cluster = self.cluster()
        driver = cluster.watched()
        result_of(driver.put("a/b", b"old"))
        cluster.servers[2].stop()
        notes = identify("DOCKER", f"{BEHIND}/2")
        cluster.servers[1].hook = lambda command, group, body: (
            -5 if command == WRITE and body[64:128] == notes else None
        )
        self.failureResultOf(driver.put("a/b", b"new"), Unavailable)
        cluster.servers[1].hook = None
        result_of(driver.put("a/b", b"new"))

    def test_notes_that_come_while_others_are_worked_off_stay(self):
        cluster = self.cluster()
        driver = cluster.watched()
        cluster.servers[2].stop()
        result_of(driver.put("a/b", b"1"))
        cluster.servers[2].start()
        notes = identify("DOCKER", f"{BEHIND}/2")
        with driver.tree.job() as groups:
            keys, proof = groups.missed(2, 1)
            self.assertIn("a/b", keys)
            groups.remember("a/later", [2], [1])
            groups.forget(2, 1, proof)
            self.assertIn("a/later", groups.missed(2, 1)[0])
        watching.beat(driver.tree)
        self.assertEqual(cluster.stores[1].records[notes].data, b"\n")

    def test_a_slow_group_is_down_for_a_job(self):
        """It takes connections and does not answer in time: that costs the time once, and the other one answers."""
        cluster = self.cluster()
        driver = cluster.watched(timeout=0.2)
        self.push(driver, "one")
        cluster.servers[2].hook = lambda command, group, body: SILENT if command in (READ, WRITE) else None
        self.pull(driver, "one")
        self.push(driver, "two", LARGE)
        cluster.servers[2].hook = None
        self.pull(driver, "two", LARGE)
        watching.beat(driver.tree)
        cluster.servers[1].stop()
        self.pull(driver, "two", LARGE)

    def test_by_itself(self):
        """From `prepare` to `close` the groups are looked at every two seconds."""
        cluster, clock = self.cluster(), Clock()
        driver = EllipticsDriver(cluster.options(), (1, 2), ImmediatePool(), cluster.clock, timer=clock)
        driver.prepare()
        clock.advance(0)
        cluster.servers[2].stop()
        result_of(driver.put("a/b", LARGE))
        clock.advance(BEAT)
        cluster.servers[2].start()
        clock.advance(BEAT)
        cluster.servers[1].stop()
        self.assertEqual(result_of(driver.read("a/b", 1 << 20))[0], LARGE)
        result_of(driver.close())
        self.assertEqual(clock.getDelayedCalls(), [])


class NewestAloneTests(AloneTests):
    """The same on 3.0, which has no index tables."""

    version = "3.0"

    def test_an_empty_disk_in_a_store_of_the_original(self):
        """The original never ran on it."""
