"""The Swift driver on a Swift in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.storage.swift.base import SmallSegments, driver_on, server_of
from tests.storage.swift.fake import FakeSwift, Reply, Request, Stored
from txregistry.concurrency import start
from txregistry.errors import NoSpace, NotFound, Unavailable
from txregistry.interfaces import IHidesPartials
from txregistry.storage.swift import segments
from txregistry.storage.swift.driver import SwiftDriver
from txregistry.storage.swift.locks import LOCKS
from txregistry.storage.swift.segments import LARGEST, SMALLEST, Memory, group_of, segment_size
from txregistry.testing.drivers import DriverSuite


class SuiteTests(DriverSuite, TestCase):
    """What every engine must do."""

    def make_driver(self):
        return driver_on(FakeSwift())

    def sibling(self, driver):
        return driver_on(server_of(driver))

    async def stall(self, driver, path):
        server_of(driver).now += 8


class PartialTests(SmallSegments):
    def test_below(self) -> None:
        """The janitor finds old sessions, which are among no children of the repositories."""
        paths = ["docker/a/_uploads/1", "docker/a/b/_uploads/2", "docker/3"]
        for path in (*paths, "other/4", "dockers/5"):
            partial = self.successResultOf(self.driver.partial(path, create=True))
            self.successResultOf(partial.close())
        self.assertTrue(IHidesPartials.providedBy(self.driver))
        found = self.driver.partials_below("docker").addCallback(sorted)
        self.assertEqual(self.successResultOf(found), sorted(paths))


class LargeTests(SmallSegments):
    def test_sizes_around_the_ends_of_segments_and_manifests(self) -> None:
        for size in (0, 1, 99, 100, 101, 119, 120, 121, 240, 480, 481, 600, 1920, 1921, 5000):
            data = bytes(number % 251 for number in range(size))
            self.run_all(self.upload("u/1", "blob", data))
            self.assertEqual(self.run_all(self.content("blob")), data)
            self.assertEqual(self.run_all(self.content("blob", size // 3)), data[size // 3 :])
            self.assertEqual([key for key in self.keys() if not key.startswith(("blob", segments.SEGMENTS))], [])
            self.successResultOf(self.driver.remove("blob"))
            self.assertEqual(self.keys(), [], size)

    def test_replaced_and_moved_objects_leave_nothing(self) -> None:
        self.run_all(self.upload("u/1", "a", b"1" * 500))
        self.run_all(self.upload("u/2", "b", b"2" * 500))
        self.successResultOf(self.driver.move("a", "b"))
        self.assertEqual(self.run_all(self.content("b")), b"1" * 500)
        self.successResultOf(self.driver.sweep(self.server.now + 1))
        self.assertEqual(self.run_all(self.content("b")), b"1" * 500)
        self.run_all(self.upload("u/3", "b", b"3"))
        self.successResultOf(self.driver.sweep(self.server.now + 1))
        self.assertEqual(self.keys(), ["b"])

    def test_a_move_cut_short_keeps_the_segments(self) -> None:
        self.run_all(self.upload("u/1", "a", b"1" * 500))
        self.server.fault = lambda request: (403, {}, b"") if request.method == "DELETE" else None
        self.failureResultOf(self.driver.move("a", "b"), Unavailable)
        self.server.fault = lambda _: None
        self.successResultOf(self.driver.remove("a"))
        self.assertEqual(self.run_all(self.content("b")), b"1" * 500)
        self.successResultOf(self.driver.remove("b"))
        self.assertEqual(self.keys(), [])

    def test_a_directory_with_large_objects(self) -> None:
        for number in range(3):
            self.run_all(self.upload(f"u/{number}", f"d/e/{number}", b"x" * 300))
        self.successResultOf(self.driver.remove("d"))
        self.assertEqual(self.keys(), [])

    def test_what_a_dead_process_leaves_is_swept(self) -> None:
        partial: Any = self.successResultOf(self.driver.partial("d/u/1", create=True))
        self.successResultOf(partial.write([b"x" * 250], 0))
        self.successResultOf(partial.checkpoint(b""))
        self.successResultOf(partial.write([b"x" * 250], 250))
        self.successResultOf(self.driver.sweep(self.server.now + 1))
        self.assertEqual(len([key for key in self.keys() if key.startswith(segments.SEGMENTS)]), 2)
        self.successResultOf(self.driver.remove("d"))
        self.assertEqual(self.keys(), [])
        late = f"some/ röot/{group_of('d/u/1')}late"
        self.server.containers["c"][late] = Stored(b"x", self.server.now)
        self.assertEqual(self.successResultOf(self.driver.sweep(self.server.now - 1)), 0)
        self.assertEqual(self.successResultOf(self.driver.sweep(self.server.now + 1)), 1)

    def test_bytes_in_memory_are_sent_when_it_is_short(self) -> None:
        memory = Memory(limit=200)
        driver = SwiftDriver(self.driver.container, self.driver.pool, self.driver.clock, memory)
        held: list[Any] = [self.successResultOf(driver.partial(f"u/{number}", create=True)) for number in range(6)]
        for at in range(0, 240, 60):
            for number, partial in enumerate(held):
                self.successResultOf(partial.write([b"%d" % number * 60], at))
                self.assertFalse(memory.exceeded)
        self.assertLessEqual(len([key for key in self.keys() if key.startswith(segments.SEGMENTS)]), 6 * 3)
        for number, partial in enumerate(held):
            self.successResultOf(partial.commit(f"b/{number}"))
            self.assertEqual(self.run_all(self.content(f"b/{number}")), b"%d" % number * 240)

    def test_segments_grow(self) -> None:
        for begin, size in ((0, SMALLEST), (8 << 30, SMALLEST + (1 << 20)), (5 << 40, LARGEST)):
            self.patch(segments, "SMALLEST", SMALLEST)
            self.patch(segments, "LARGEST", LARGEST)
            self.assertEqual(segment_size(begin), size)
        at = count = 0
        while at < 5 << 40:
            at, count = at + segment_size(at), count + 1
        self.assertLess(count, 200_000)


class OutageTests(SynchronousTestCase):
    """What the answers of the server mean."""

    def setUp(self) -> None:
        self.server = FakeSwift()
        self.driver = driver_on(self.server)
        self.successResultOf(self.driver.put("a/b", b"data" * 1000))
        self.requests = 0

    def answer(self, status: int, times: int = 1_000_000, method: str = "") -> None:
        """Let the next requests for the container be answered so."""
        left = [times]

        def fault(request: Request) -> Reply | None:
            if not request.path.startswith("c") or not left[0] or method not in ("", request.method):
                return None
            left[0] -= 1
            self.requests += 1
            return status, {}, b"no"

        self.server.fault = fault

    def test_nothing_but_a_404_is_an_absence(self) -> None:
        for status in (400, 401, 403, 408, 409, 422, 429, 498, 499, 500, 502, 503, 504, 599):
            self.answer(status)
            for attempt in (
                self.driver.read("a/b", 5000),
                self.driver.open("a/b"),
                self.driver.stat("a/b"),
                self.driver.list("a"),
                self.driver.put("x", b"1"),
                self.driver.put("x", b"1", if_absent=True),
                self.driver.remove("a/b"),
                self.driver.move("a/b", "x"),
                self.driver.partial("u/1", create=True),
                self.driver.partial("u/1"),
                self.driver.peek("u/1"),
                self.driver.settle("a/b"),
                self.driver.partials("u"),
            ):
                self.failureResultOf(attempt, Unavailable)
        self.server.fault = lambda _: None
        self.assertEqual(self.successResultOf(self.driver.read("a/b", 5000))[0], b"data" * 1000)

    def test_what_passes_is_tried_again(self) -> None:
        for status in (408, 409, 422, 429, 498, 499, 500, 502, 503, 504):
            self.answer(status, times=3)
            self.assertEqual(self.successResultOf(self.driver.read("a/b", 5000))[0], b"data" * 1000)
        self.answer(403, times=1)
        self.failureResultOf(self.driver.read("a/b", 5000), Unavailable)

    def test_a_container_that_is_gone_is_an_outage(self) -> None:
        driver = driver_on(self.server)  # which has not seen it
        self.server.containers.clear()
        for attempt in (driver.read("a/b", 10), driver.stat("a/b"), driver.put("x", b""), driver.list("")):
            self.failureResultOf(attempt, Unavailable)

    def test_a_full_store(self) -> None:
        for status in (413, 507):
            self.answer(status)
            self.failureResultOf(self.driver.put("x", b"1"), NoSpace)

    def test_a_refused_token_is_renewed_once(self) -> None:
        self.server.tokens.clear()
        self.assertEqual(self.successResultOf(self.driver.read("a/b", 5000))[0], b"data" * 1000)
        self.server.log.clear()
        self.answer(401)
        self.failureResultOf(self.driver.read("a/b", 5000), Unavailable)
        self.assertEqual(self.requests, 2)

    def test_a_put_that_met_itself(self) -> None:
        """Its first attempt arrived, and the answer to it did not."""
        first: list[Request] = []

        def fault(request: Request) -> Reply | None:
            if request.method != "PUT" or first:
                return None
            first.append(request)
            self.server.containers["c"][request.path.partition("/")[2]] = Stored(request.body, self.server.now)
            return 503, {}, b""

        self.server.fault = fault
        self.successResultOf(self.driver.partial("u/1", create=True))
        self.assertEqual(len(first), 1)

    def test_answers_that_are_cut_off(self) -> None:
        self.server.cut = (1234, 2)
        self.assertEqual(self.successResultOf(self.driver.read("a/b", 5000))[0], b"data" * 1000)
        self.server.cut = (1234, 1000)
        self.failureResultOf(self.driver.read("a/b", 5000), Unavailable)

    async def _all(self, path: str) -> bytes:
        reader = await self.driver.open(path)
        return b"".join([piece async for piece in reader.chunks(0, reader.size)])

    def test_a_broken_read_goes_on_where_it_broke(self) -> None:
        data = bytes(range(256)) * 4000
        self.successResultOf(self.driver.put("large", data))
        self.server.cut = (150_000, 6)
        self.assertEqual(self.successResultOf(start(self._all("large"))), data)
        self.assertEqual(self.server.cut[1], 0)
        self.server.cut = (0, 1000)
        self.failureResultOf(start(self._all("large")), Unavailable)

    def test_a_broken_read_does_not_go_on_with_another_version(self) -> None:
        self.successResultOf(self.driver.put("large", b"1" * 500_000))
        reader: Any = self.successResultOf(self.driver.open("large"))
        chunks = reader.chunks(0, reader.size)
        self.successResultOf(start(chunks.__anext__()))
        self.successResultOf(self.driver.put("large", b"2" * 500_000))
        self.server.cut = (0, 0)
        chunks._stream._cut = chunks._stream._at
        self.failureResultOf(start(chunks.__anext__()), Unavailable)

    def test_no_stream_stays_open(self) -> None:
        http: Any = self.driver.container.connection.http
        self.answer(503, times=2)
        self.successResultOf(self.driver.read("a/b", 5000))
        self.failureResultOf(self.driver.read("a/b", 5))
        self.successResultOf(start(self._all("a/b")))
        reader: Any = self.successResultOf(self.driver.open("a/b"))
        reader.chunks(0, 10).close()
        self.successResultOf(self.driver.open("a/b")).close()
        self.assertEqual([stream for stream in http.streams if not stream.closed], [])

    def test_leases_of_the_dead_end(self) -> None:
        """A process that died with one keeps others waiting only for a time, and the sweep removes it."""
        died = []

        def fault(request: Request) -> Reply | None:
            if LOCKS in request.path and request.method == "DELETE":
                died.append(request)
                return 403, {}, b""
            return None

        self.server.fault = fault
        self.failureResultOf(self.driver.put("x", b"1", if_absent=True), Unavailable)
        self.server.fault = lambda _: None
        self.assertEqual(len(died), 1)
        version = self.successResultOf(self.driver.read("x", 10))[1]
        begin = self.server.now
        self.successResultOf(driver_on(self.server).put("x", b"2", if_match=version))
        self.assertGreater(self.server.now - begin, 5)
        self.assertEqual([name for name in self.server.containers["c"] if LOCKS in name], [])

    def test_a_lease_that_is_nearly_over(self) -> None:
        def slow(request: Request) -> Reply | None:
            if request.method == "HEAD" and request.path.endswith("/x"):
                self.server.now += 6
            return None

        self.server.fault = slow
        self.failureResultOf(self.driver.put("x", b"1", if_absent=True), Unavailable)
        self.server.fault = lambda _: None
        self.failureResultOf(self.driver.stat("x"), NotFound)
        self.assertEqual([name for name in self.server.containers["c"] if LOCKS in name], [])
