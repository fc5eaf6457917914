"""Groups that go down and come back around writes, overwrites and deletes: nothing old, nothing risen, nothing lost."""

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.base import Cluster
from tests.storage.elliptics.server import CLOSE_AFTER, CLOSE_BEFORE, WRITE
from txregistry.errors import LostRace, NoSpace, NotFound, ReadOnly, StorageError, Unavailable
from txregistry.storage.elliptics import watching
from txregistry.storage.elliptics.groups import quorum_of
from txregistry.storage.elliptics.stored import decode
from txregistry.storage.elliptics.wire import identify
from txregistry.testing.pools import result_of

LARGE = bytes(range(256)) * 1024


def outcome(deferred):
    """The result of a verb, or its error."""
    try:
        return result_of(deferred)
    except StorageError as error:
        return error


class RoundsTests(SynchronousTestCase):
    """Random servers die and return; what an answer says must be what the last acknowledged write said, or later.

    Two registries write. Each looks at the groups now and then, as it does every other second.
    """

    def rounds(self, version, groups, quorum, seed, filesystem=False, faults=False):
        cluster = Cluster(self, version, groups, filesystem)
        drivers = [cluster.watched(quorum), cluster.watched(quorum)]
        chance = random.Random(seed)
        if faults:
            faulty = random.Random(seed)

            def hook(command, group, body):
                return faulty.choice((CLOSE_BEFORE, CLOSE_AFTER, -5)) if faulty.random() < 0.01 else None

            for server in cluster.servers.values():
                server.hook = hook
        # For each path what may be there: what was acknowledged last, and all that was tried since without an answer.
        possible: dict[str, set[bytes | None]] = {}
        counts = {"acknowledged": 0, "refused": 0, "read": 0, "alone": 0}
        for number in range(100):
            for server in cluster.servers.values():
                if chance.random() < 0.4:
                    if server.is_up:
                        server.stop()
                    else:
                        server.start()
            for driver in drivers:
                if chance.random() < 0.5:
                    watching.beat(driver.tree)
            alone = sum(server.is_up for server in cluster.servers.values()) < groups
            path = f"d{chance.randrange(2)}/o{chance.randrange(3)}"
            driver = chance.choice(drivers)
            size = chance.choice((1, 70_000))
            new = None if chance.random() < 0.3 else b"%d " % number * size
            before = possible.setdefault(path, {None})
            done = outcome(driver.remove(path) if new is None else driver.put(path, new))
            if isinstance(done, NotFound):
                self.assertIn(None, before, f"round {number}: an acknowledged write is lost")
            elif isinstance(done, StorageError):
                self.assertIsInstance(done, Unavailable)
                before.add(new)
                counts["refused"] += 1
            else:
                possible[path] = {new}
                counts["acknowledged"] += 1
            for path, allowed in possible.items():
                found = outcome(chance.choice(drivers).read(path, 1 << 20))
                if isinstance(found, NotFound):
                    self.assertIn(None, allowed, f"round {number}: {path} is lost")
                elif not isinstance(found, Unavailable):
                    self.assertIn(found[0], allowed, f"round {number}: {path} is old, or has risen")
                    counts["read"] += 1
                    counts["alone"] += alone
                    if not alone:
                        possible[path] = {found[0]}  # and from now on it is this
        for server in cluster.servers.values():
            server.hook = None
            if not server.is_up:
                server.start()
        for path, allowed in possible.items():
            found = outcome(drivers[0].read(path, 1 << 20))
            self.assertIn(None if isinstance(found, NotFound) else found[0], allowed)
            directory, _, name = path.rpartition("/")
            listed = [entry.name for entry in result_of(drivers[1].list(directory)).entries]
            if not isinstance(found, NotFound):
                self.assertIn(name, listed)
        faulty_too = ", with faults," if faults else ","
        print(
            f"{groups} groups of {version}{faulty_too} each down and up again in 100 rounds: "
            f"{counts['acknowledged']} writes and deletes acknowledged, {counts['refused']} refused, "
            f"{counts['read']} reads, {counts['alone']} of them without a group; "
            "old state served 0, deleted things risen 0"
        )
        self.assertGreater(min(counts.values()), 10, counts)

    def test_two_groups(self):
        for seed in (1, 11):
            self.rounds("2.24", 2, None, seed)

    def test_groups_that_also_break_off(self):
        """In the middle of what is done, before and after it, or with a failure."""
        self.rounds("2.24", 2, None, 6, faults=True)
        self.rounds("3.0", 3, None, 6, faults=True)

    def test_two_groups_in_the_newest_version(self):
        self.rounds("3.0", 2, None, 5)

    def test_two_groups_that_must_both_take_a_write(self):
        self.rounds("2.24", 2, 2, 2)

    def test_three_groups_of_the_last_version(self):
        self.rounds("3.0", 3, None, 3)

    def test_two_groups_on_filesystems(self):
        self.rounds("2.24", 2, None, 4, filesystem=True)


class GroupTests(SynchronousTestCase):
    def raw(self, cluster, group, path):
        record = cluster.stores[group].records.get(identify("DOCKER", path))
        return record and decode(record.data, len(record.data), 0.0)

    def test_quorums(self):
        self.assertEqual([quorum_of(count) for count in (1, 2, 3, 4, 5)], [1, 1, 2, 3, 3])

    def test_what_a_group_missed_is_not_not_found(self):
        """With one of two groups down, nobody can know; that is no 404."""
        cluster = Cluster(self)
        driver = cluster.driver()
        result_of(driver.put("a/b", b"1"))
        cluster.servers[1].stop()
        for verb in (driver.read("a/b", 9), driver.read("a/none", 9), driver.open("a/none"), driver.stat("a/none"),
                     driver.list("a"), driver.partials("a"), driver.remove("a/b"), driver.settle("a/b"),
                     driver.move("a/b", "a/c"), driver.peek("a/x"), driver.partial("a/x"),
                     driver.put("a/b", b"", if_absent=True), driver.partial("a/x", create=True)):  # fmt: skip
            self.failureResultOf(verb, Unavailable)
        cluster.servers[2].stop()
        self.failureResultOf(driver.put("a/b", b"2"), Unavailable)

    def test_two_groups_that_must_both_take_a_write(self):
        """With one down reading goes on, and nothing is written into the other."""
        cluster = Cluster(self)
        driver = cluster.driver(2)
        result_of(driver.put("a/b", b"1"))
        result_of(driver.put("a/c", LARGE))
        for group in (1, 2):
            cluster.servers[group].stop()
            before = cluster.stores[3 - group].copy().records
            self.assertEqual(result_of(driver.read("a/b", 9))[0], b"1")
            self.assertEqual(result_of(driver.read("a/c", 1 << 20))[0], LARGE)
            self.failureResultOf(driver.read("a/d", 9), NotFound)
            self.assertEqual(len(result_of(driver.list("a")).entries), 2)
            for verb in (driver.put("a/b", b"2"), driver.put("a/b", b"2", if_absent=False), driver.remove("a/b")):
                self.failureResultOf(verb, Unavailable)
            self.failureResultOf(driver.put("a/b", b"2", if_absent=True), LostRace)
            after = cluster.stores[3 - group].records
            self.assertEqual(before[identify("DOCKER", "a/b")], after[identify("DOCKER", "a/b")])
            cluster.servers[group].start()

    def test_three_groups_go_on_with_two(self):
        cluster = Cluster(self, groups=3)
        driver = cluster.driver()
        result_of(driver.put("a/b", b"1"))
        cluster.servers[2].stop()
        result_of(driver.put("a/b", b"2"))
        result_of(driver.put("a/c", LARGE))
        self.assertEqual(result_of(driver.read("a/b", 9))[0], b"2")
        self.failureResultOf(driver.read("a/d", 9), NotFound)
        self.failureResultOf(driver.put("a/b", b"3", if_absent=True), LostRace)
        result_of(driver.remove("a/b"))
        cluster.servers[2].start()
        cluster.servers[1].stop()  # the stale group is needed now
        self.failureResultOf(driver.read("a/b", 9), NotFound)
        self.assertEqual(result_of(driver.read("a/c", 1 << 20))[0], LARGE)
        self.assertEqual([entry.name for entry in result_of(driver.list("a")).entries], ["c"])

    def test_an_object_is_listed_though_its_writer_saw_an_old_one(self):
        """The group that answers cannot tell that it missed the removal, so nothing is written into it alone."""
        cluster = Cluster(self)
        driver = cluster.watched()
        result_of(driver.put("a/b", b"old"))
        cluster.servers[2].hook = lambda command, group, body: -5 if command == WRITE else None
        result_of(driver.remove("a/b"))
        cluster.servers[2].hook = None
        cluster.servers[1].stop()
        self.failureResultOf(driver.put("a/b", b"new"), Unavailable)
        cluster.servers[1].start()
        result_of(driver.put("a/b", b"new"))
        self.assertEqual(result_of(driver.read("a/b", 9))[0], b"new")
        self.assertEqual([entry.name for entry in result_of(driver.list("a")).entries], ["b"])

    def test_a_version_that_cannot_be_spread_is_not_served(self):
        """The next reader might not find it."""
        cluster = Cluster(self, groups=3)
        driver = cluster.driver()
        cluster.servers[3].stop()
        result_of(driver.put("a/b", b"1"))
        cluster.servers[3].start()
        cluster.servers[2].stop()
        cluster.servers[3].hook = lambda command, group, body: -5 if command == WRITE else None
        self.failureResultOf(driver.read("a/b", 9), Unavailable)
        cluster.servers[3].hook = None
        self.assertEqual(result_of(driver.read("a/b", 9))[0], b"1")

    def test_a_stale_group_is_mended_by_a_reader(self):
        cluster = Cluster(self)
        driver = cluster.watched()
        result_of(driver.put("a/b", b"old"))
        cluster.servers[1].stop()
        result_of(driver.put("a/b", b"new"))
        cluster.servers[1].start()
        self.assertEqual(self.raw(cluster, 1, "a/b").data, b"old")
        self.assertEqual(result_of(driver.read("a/b", 9))[0], b"new")
        self.assertEqual(self.raw(cluster, 1, "a/b").data, b"new")

    def test_what_was_missed_is_noted_and_mended(self):
        """Small objects, large ones and names, without anybody reading them."""
        cluster = Cluster(self)
        driver = cluster.watched()
        cluster.servers[1].stop()
        result_of(driver.put("a/small", b"new"))
        result_of(driver.put("a/large", LARGE))
        self.assertEqual(watching.beat(driver.tree), 0)
        cluster.servers[1].start()
        self.assertEqual(result_of(driver.sweep(0.0)), 0)
        self.assertEqual(self.raw(cluster, 1, "a/small").data, b"new")
        self.assertEqual(self.raw(cluster, 2, "a/large"), self.raw(cluster, 1, "a/large"))
        cluster.servers[2].stop()
        cluster.servers[2].groups[2].records.clear()  # its disk is new
        cluster.servers[2].start()
        self.assertEqual(result_of(driver.read("a/large", 1 << 20))[0], LARGE)
        self.assertEqual(watching.beat(driver.tree), 0)

    def test_an_upload_goes_on_without_a_group(self):
        """It leaves the upload, and a group that counts has all bytes."""
        cluster = Cluster(self, groups=3)
        driver = cluster.driver()
        partial = result_of(driver.partial("up/1", create=True))
        result_of(partial.write([LARGE], 0))
        cluster.servers[1].stop()
        result_of(partial.write([LARGE], len(LARGE)))
        result_of(partial.checkpoint(b"s"))
        cluster.servers[1].start()
        result_of(partial.write([LARGE], 2 * len(LARGE)))
        result_of(partial.commit("blob"))
        opened = driver.tree.open("blob")
        self.assertEqual([segment.groups for segment in opened.segments], [(1, 2, 3), (2, 3)])
        cluster.servers[3].stop()
        self.assertEqual(result_of(driver.read("blob", 1 << 24))[0], LARGE * 3)

    def test_an_append_whose_answer_is_lost_is_not_there_twice(self):
        cluster = Cluster(self)
        driver = cluster.driver()
        partial = result_of(driver.partial("up/1", create=True))
        result_of(partial.write([LARGE], 0))
        lost: list[int] = []

        def hook(command, group, body):
            if command == WRITE and not lost and len(body) > len(LARGE):
                lost.append(group)
                return CLOSE_AFTER
            return None

        cluster.servers[1].hook = hook
        result_of(partial.write([LARGE[::-1]], len(LARGE)))
        self.assertEqual(lost, [1])
        seen: list[bytes] = []
        result_of(partial.read(seen.extend))
        self.assertEqual(b"".join(seen), LARGE + LARGE[::-1])
        result_of(partial.commit("blob"))
        self.assertEqual(result_of(driver.read("blob", 1 << 24))[0], LARGE + LARGE[::-1])

    def test_a_commit_asks_for_the_bytes(self):
        """A group that lost the data does not count, and where none has it nothing appears."""
        cluster = Cluster(self)
        driver = cluster.driver()
        for groups in ((1,), (1, 2)):
            partial = result_of(driver.partial(f"up/{len(groups)}", create=True))
            result_of(partial.write([LARGE], 0))
            for group in groups:
                for id_, record in list(cluster.stores[group].records.items()):
                    if record.data == LARGE:
                        del cluster.stores[group].records[id_]
            if len(groups) == 1:
                result_of(partial.commit("one"))
                self.assertEqual([s.groups for s in driver.tree.open("one").segments], [(2,)])
            else:
                self.failureResultOf(partial.commit("none"), Unavailable)
                self.failureResultOf(driver.open("none"), NotFound)

    def test_an_upload_without_enough_groups_fails(self):
        cluster = Cluster(self, groups=3)
        driver = cluster.driver()
        partial = result_of(driver.partial("up/1", create=True))
        cluster.servers[1].stop()
        cluster.servers[2].stop()
        self.failureResultOf(partial.write([LARGE], 0), Unavailable)
        result_of(partial.close())

    def test_full_and_read_only(self):
        cluster = Cluster(self)
        driver = cluster.driver()
        for status, error in ((-28, NoSpace), (-30, ReadOnly), (-5, Unavailable)):
            for server in cluster.servers.values():
                server.hook = lambda command, group, body, status=status: status if command == WRITE else None
            self.failureResultOf(driver.put("a", b"1"), error)

    def test_the_group_that_decides_breaks_off(self):
        """Before it was done or after, dead or not: it is asked again, and if it is dead the next one decides."""
        for wish in (CLOSE_BEFORE, CLOSE_AFTER):
            for dies in (False, True):
                cluster = Cluster(self)
                driver = cluster.watched()
                result_of(driver.put("a/b", b"1"))
                server, key = cluster.servers[1], identify("DOCKER", "a/b")
                cut: list[object] = []

                def hook(command, group, body, server=server, key=key, cut=cut, wish=wish, dies=dies):
                    if command == WRITE and body[64:128] == key and not cut:
                        cut.append(group)
                        if dies:
                            server.leave()
                        return wish
                    return None

                server.hook = hook
                _, version = result_of(driver.read("a/b", 9))
                result_of(driver.put("a/b", b"2", if_match=version))
                self.assertEqual(cut, [1])
                self.assertEqual(result_of(driver.read("a/b", 9))[0], b"2")
                server.stop()
                server.start()
                self.assertEqual(result_of(driver.read("a/b", 9))[0], b"2")
                self.assertEqual(self.raw(cluster, 2, "a/b"), self.raw(cluster, 1, "a/b"))

    def test_two_who_create_one_object(self):
        """The first group decides, the other follows, whichever of the drivers is slow."""
        cluster = Cluster(self)
        one, two = cluster.driver(), cluster.driver()
        second: list[object] = []

        def hook(command, group, body):
            # Between what the first one saw and its write the second one writes.
            if command == WRITE and len(body) < 400 and b"from one" in body and not second:
                second.append(None)
                second.append(outcome(two.put("a/b", b"from two", if_absent=True)))

        cluster.servers[1].hook = hook
        self.failureResultOf(one.put("a/b", b"from one", if_absent=True), LostRace)
        self.assertIsInstance(second[1], str)
        self.assertEqual(result_of(one.read("a/b", 99))[0], b"from two")
        self.assertEqual(self.raw(cluster, 2, "a/b"), self.raw(cluster, 1, "a/b"))


class CutTests(SynchronousTestCase):
    """A process dies between two steps: here its servers refuse every write from the n-th on."""

    def cut(self, cluster, allowed):
        """Let so many more writes be taken."""
        left = [allowed]

        def hook(command, group, body):
            if command != WRITE:
                return None
            left[0] -= 1
            return -5 if left[0] < 0 else None

        for server in cluster.servers.values():
            server.hook = hook

    def heal(self, cluster):
        for server in cluster.servers.values():
            server.hook = None

    def swept(self, cluster, driver):
        cluster.clock.shift += 7200
        result_of(driver.sweep(cluster.clock.seconds() - 3600))

    def test_commit(self):
        """Whoever drops the dead upload does not take the bytes of what it had committed."""
        outcomes = set()
        for allowed in range(40):
            cluster = Cluster(self, groups=1)
            driver, other = cluster.driver(), cluster.driver()
            partial = result_of(driver.partial("up/1", create=True))
            result_of(partial.write([LARGE], 0))
            result_of(partial.checkpoint(b"s"))
            result_of(driver.put("up/1/startedat", b"now"))
            self.cut(cluster, allowed)
            done = outcome(partial.commit("blobs/b"))
            self.heal(cluster)
            cluster.clock.shift += 100
            gone = outcome(other.partial("up/1"))
            if isinstance(gone, NotFound):
                self.assertEqual(result_of(other.read("blobs/b", 1 << 20))[0], LARGE)
            else:
                result_of(gone.cancel())
            found = not isinstance(outcome(other.read("blobs/b", 1 << 20)), NotFound)
            self.swept(cluster, other)
            self.assertEqual(len(result_of(other.partials("up"))), 0)
            self.assertEqual(len(result_of(other.list("up")).entries), 0)
            if found:
                self.assertEqual(result_of(other.read("blobs/b", 1 << 20))[0], LARGE)
            outcomes.add((done is None, found))
            cluster.stop()
            if done is None:
                break
        self.assertEqual(outcomes, {(False, False), (False, True), (True, True)})

    def test_move(self):
        """The object is at one of the two paths, or at both; removing the one leaves the other."""
        outcomes = set()
        for allowed in range(40):
            cluster = Cluster(self, groups=1)
            driver = cluster.driver()
            result_of(driver.put("a/source", LARGE))
            self.cut(cluster, allowed)
            done = outcome(driver.move("a/source", "b/target"))
            self.heal(cluster)
            there = [path for path in ("a/source", "b/target") if not isinstance(outcome(driver.stat(path)), NotFound)]
            self.assertTrue(there)
            outcomes.add(tuple(there))
            if len(there) == 2:
                result_of(driver.remove("a/source"))
            self.swept(cluster, driver)
            self.assertEqual(result_of(driver.read(there[-1], 1 << 20))[0], LARGE)
            cluster.stop()
            if done is None:
                break
        self.assertEqual(outcomes, {("a/source",), ("a/source", "b/target"), ("b/target",)})

    def test_put(self):
        """Old or new, and once it is acknowledged it is listed."""
        for allowed in range(40):
            cluster = Cluster(self, groups=1)
            driver = cluster.driver()
            self.cut(cluster, allowed)
            done = outcome(driver.put("a/b/c", LARGE))
            self.heal(cluster)
            found = outcome(driver.read("a/b/c", 1 << 20))
            if not isinstance(found, NotFound):
                self.assertEqual(found[0], LARGE)
                self.assertEqual([entry.name for entry in result_of(driver.list("a/b")).entries], ["c"])
            result_of(driver.put("a/b/c", b"new"))
            self.assertEqual([entry.name for entry in result_of(driver.list("a/b")).entries], ["c"])
            self.assertEqual([entry.name for entry in result_of(driver.list("a")).entries], ["b"])
            cluster.stop()
            if not isinstance(done, StorageError):
                break
        self.assertGreater(allowed, 3)
