"""What the original driver left in a store is listed, read, replaced and removed; what is written now, it can list."""

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.base import Cluster
from tests.storage.elliptics.server import READ, write_as_original
from txregistry.errors import LostRace, NotFound
from txregistry.storage.elliptics.wire import identify
from txregistry.testing.pools import result_of

LAYER = bytes(range(256)) * 2048
FILES = {
    "images/1111/json": b'{"id": "1111"}',
    "images/1111/layer": LAYER,
    "images/2222/_inprogress": b"",
    "repositories/library/alpine/tag_latest": b"1111",
}


class OriginalTests(SynchronousTestCase):
    version = "2.24"

    def adopted(self, groups=(1, 2)):
        cluster = Cluster(self, self.version)
        for group in groups:
            for path, data in FILES.items():
                write_as_original(cluster.stores[group], path, data)
        return cluster, cluster.driver()

    def names(self, driver, path):
        return {entry.name: entry.is_directory for entry in result_of(driver.list(path)).entries}

    def test_listed(self):
        _, driver = self.adopted()
        self.assertEqual(self.names(driver, ""), {"images": True, "repositories": True})
        self.assertEqual(self.names(driver, "images"), {"1111": True, "2222": True})
        self.assertEqual(self.names(driver, "images/1111"), {"json": False, "layer": False})
        self.assertEqual(self.names(driver, "repositories/library"), {"alpine": True})
        self.assertEqual(self.names(driver, "repositories/library/alpine"), {"tag_latest": False})

    def test_a_group_that_missed_it_hides_nothing(self):
        """The first group to answer does not decide alone."""
        for groups in ((1,), (2,)):
            cluster, driver = self.adopted(groups)
            self.test_of(driver)
            self.assertEqual(cluster.stores[1].records[identify("DOCKER", "images/1111/json")].data,
                             cluster.stores[2].records[identify("DOCKER", "images/1111/json")].data)  # fmt: skip

    def test_of(self, driver=None):
        driver = driver or self.adopted()[1]
        self.assertEqual(self.names(driver, "images/1111"), {"json": False, "layer": False})
        for path, data in FILES.items():
            self.assertEqual(result_of(driver.read(path, 1 << 20))[0], data, path)
            self.assertEqual(result_of(driver.stat(path)).size, len(data))

    def test_directories_are_no_objects(self):
        _, driver = self.adopted()
        for path in ("images", "images/1111", "repositories/library"):
            self.failureResultOf(driver.read(path, 99), NotFound)
            self.assertTrue(result_of(driver.stat(path)).is_directory)

    def test_a_layer_is_read_in_ranges_without_checksums(self):
        cluster, driver = self.adopted()
        reader = result_of(driver.open("images/1111/layer"))
        self.assertEqual(reader.size, len(LAYER))
        cluster.servers[1].requests.clear()
        chunks = reader.chunks(1000, 1010)
        self.assertEqual(self.successResultOf(self.first(chunks)), LAYER[1000:1010])
        self.assertEqual(cluster.servers[1].requests, [(READ, 0x100, 1000, 10)])

    def first(self, chunks):
        from txregistry.concurrency import start

        return start(chunks.__anext__())

    def test_replaced_and_removed(self):
        """Also in a group that slept meanwhile, whose index still has it."""
        cluster, driver = self.adopted()
        tag = "repositories/library/alpine/tag_latest"
        self.failureResultOf(driver.put(tag, b"2222", if_absent=True), LostRace)
        _, version = result_of(driver.read(tag, 99))
        result_of(driver.put(tag, b"2222", if_match=version))
        self.assertEqual(result_of(driver.read(tag, 99))[0], b"2222")
        result_of(driver.put("images/1111/layer", b"short"))
        self.assertEqual(result_of(driver.read("images/1111/layer", 99))[0], b"short")
        indexes = {table: dict(objects) for table, objects in cluster.stores[2].indexes.items()}
        records = dict(cluster.stores[2].records)
        result_of(driver.remove(tag))
        result_of(driver.remove("images/1111"))
        logs = {id_: record for id_, record in cluster.stores[2].records.items() if b'["' in record.data[:2]}
        cluster.stores[2].indexes, cluster.stores[2].records = indexes, {**records, **logs}
        self.failureResultOf(driver.read(tag, 99), NotFound)
        self.failureResultOf(driver.stat("repositories"), NotFound)
        self.assertEqual(self.names(driver, "images"), {"2222": True})
        self.failureResultOf(driver.remove("images/1111"), NotFound)

    def test_moved(self):
        _, driver = self.adopted()
        result_of(driver.move("images/1111/layer", "images/3333/layer"))
        self.assertEqual(result_of(driver.read("images/3333/layer", 1 << 20))[0], LAYER)
        self.failureResultOf(driver.read("images/1111/layer", 1 << 20), NotFound)

    def test_what_is_written_now_is_in_its_indexes(self):
        """Of V1 alone, with markers, and out again when it is removed."""
        cluster = Cluster(self, self.version)
        driver = cluster.driver()
        result_of(driver.put("images/1111/json", b"{}"))
        result_of(driver.put("docker/registry/v2/x", b"{}"))
        with driver.tree.sessions.lend() as session:
            for group in (1, 2):
                self.assertEqual(session.find_indexes(group, ["docker", "images/1111"]), [b"images/1111/json"])
                self.assertEqual(session.find_indexes(group, ["docker", "images"]), [b"images/1111"])
                self.assertEqual(session.find_indexes(group, ["docker", ""]), [b"images"])
                marker = cluster.stores[group].records[identify("DOCKER", "images/1111")]
                self.assertEqual(marker.data, b"DIRECTORY")
                self.assertEqual(session.find_indexes(group, ["docker", "docker/registry/v2"]), [])
        result_of(driver.remove("images/1111/json"))
        with driver.tree.sessions.lend() as session:
            self.assertEqual(session.find_indexes(1, ["docker", "images/1111"]), [])

    def test_a_server_that_lost_its_indexes(self):
        """They lie in its memory for a while; what was written now is listed without them."""
        cluster = Cluster(self, self.version)
        driver = cluster.driver()
        result_of(driver.put("images/1111/json", b"{}"))
        for store in cluster.stores.values():
            store.indexes.clear()
        self.assertEqual(self.names(driver, "images/1111"), {"json": False})
        self.assertEqual(self.names(driver, "images"), {"1111": True})


class LaterTests(OriginalTests):
    """The same on 2.26, whose tables have another layout."""

    version = "2.26"
