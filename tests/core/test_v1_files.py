"""The work behind lists of files and diffs: in threads, shared by those who ask, bounded, and ended in the end."""

from __future__ import annotations

import gzip
import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.model.archives import END, member
from txregistry.concurrency import Shields, start
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.core.v1 import file_lists
from txregistry.core.v1.diffs import POLL, QUEUE_LIMIT, RETRY
from txregistry.errors import TooManyRequests, Unavailable, V1Error
from txregistry.model.v1.files import FileLister
from txregistry.model.v1.names import ImageId
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.testing.pools import ManualPool

A, B, C = (ImageId(letter * 64) for letter in "abc")
LAYER = member(b"./a") + member(b"./b") + END


class Queue:
    """A shared queue; while it is `broken` nobody reaches it."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.broken = self.closed = False
        self.asked = 0

    async def push(self, image_id: str) -> None:
        await self._reach()
        self.held.append(image_id)

    async def pop(self) -> str | None:
        await self._reach()
        return self.held.pop(0) if self.held else None

    async def echo(self, key: bytes, value: bytes) -> bytes | None:
        await self._reach()
        return value

    async def close(self) -> None:
        self.closed = True

    async def _reach(self) -> None:
        self.asked += 1
        await (fail(OSError("gone")) if self.broken else succeed(None))


class Case(SynchronousTestCase):
    queue: Queue | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.contents = Contents()
        self.pool = ManualPool()
        driver = MemoryDriver(self.clock, contents=self.contents)
        self.v1 = Registry(driver, Policy(), Shields(), self.clock, self.pool, self.queue).v1

    def store(self, path: str, data: bytes) -> None:
        self.successResultOf(MemoryDriver(self.clock, contents=self.contents).put(path, data))

    def stored(self, path: str) -> bytes | None:
        found = self.contents.objects.get(path)
        return None if found is None else found.data

    def image(self, image: ImageId, *ancestors: ImageId, layer: bytes = LAYER) -> None:
        self.store(f"images/{image}/json", json.dumps({"id": image.text}).encode())
        self.store(f"images/{image}/ancestry", json.dumps([one.text for one in (image, *ancestors)]).encode())
        self.store(f"images/{image}/layer", layer)

    def files(self, image: ImageId) -> Deferred[Any]:
        return start(self.v1.file_lists.open(image))

    def diff(self, image: ImageId) -> Any:
        """What is there now; asking puts the image into the queue."""
        found = self.successResultOf(start(self.v1.diffs.open(image)))
        return None if found is None else json.loads(self.stored(f"images/{image}/_diff") or b"")

    def stop(self) -> Deferred[None]:
        return start(self.v1.stop())


class ListTests(Case):
    def test_the_layer_is_read_by_jobs_of_the_bulk_lane(self) -> None:
        self.image(A, layer=member(b"big", bytes(1_000_000)) + END)
        done = self.files(A)
        jobs = 0
        while self.pool.waiting:
            self.assertEqual(self.pool.waiting, ["bulk"])
            self.pool.step()
            jobs += 1
        self.assertGreater(jobs, 5)
        self.assertEqual(self.successResultOf(done).size, len(self.stored(f"images/{A}/_files") or b""))

    def test_all_who_ask_wait_for_one_work(self) -> None:
        self.image(A)
        asking = [self.files(A) for _ in range(3)]
        self.assertEqual(len(self.pool.waiting), 1)
        self.pool.flush()
        for one in asking:
            self.successResultOf(one).close()

    def test_a_client_that_leaves_ends_nothing(self) -> None:
        self.image(A)
        gone, stays = self.files(A), self.files(A)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.pool.flush()
        self.successResultOf(stays)
        alone = self.files(B)
        self.failureResultOf(alone, V1Error)
        self.image(B)
        alone = self.files(B)
        alone.cancel()
        self.failureResultOf(alone, CancelledError)
        self.pool.flush()
        self.assertIsNotNone(self.stored(f"images/{B}/_files"))

    def test_few_at_a_time(self) -> None:
        images = [ImageId(f"{n:064x}") for n in range(file_lists.WORKERS + file_lists.WAITING)]
        for image in (*images, A):
            self.image(image)
        asking = [self.files(image) for image in images]
        self.assertEqual(len(self.pool.waiting), file_lists.WORKERS)
        self.failureResultOf(self.files(A), TooManyRequests)
        self.pool.flush()
        for one in asking:
            self.successResultOf(one)
        again = self.files(A)
        self.pool.flush()
        self.successResultOf(again)

    def test_a_refusal_is_remembered_but_not_for_ever(self) -> None:
        self.image(A, layer=b"x" * 2000)
        for _ in range(2):
            refused = self.files(A)
            self.pool.flush()
            self.assertEqual(self.failureResultOf(refused, V1Error).value.message, "Layer format not supported")
        self.failureResultOf(self.files(A), V1Error)
        self.assertEqual(self.pool.waiting, [])
        self.image(A)
        self.clock.advance(61)
        mended = self.files(A)
        self.pool.flush()
        self.successResultOf(mended)

    def test_what_is_remembered_is_bounded(self) -> None:
        refusals = file_lists.Refusals(self.clock)
        for n in range(2000):
            refusals.note(str(n), V1Error(message="no"))
        refusals.check("0")
        self.assertRaises(V1Error, refusals.check, "1999")
        self.assertRaises(V1Error, refusals.check, "1000")

    def test_a_layer_with_too_many_files_is_refused_without_being_held(self) -> None:
        self.patch(file_lists, "FileLister", lambda: FileLister(most=10_000))
        self.image(A, layer=gzip.compress(member(b"name" * 20) * 2000 + END))
        refused = self.files(A)
        self.pool.flush()
        error = self.failureResultOf(refused, V1Error).value
        self.assertEqual(error.message, "Layer has too many files to list")
        self.assertIsNone(self.stored(f"images/{A}/_files"))

    def test_a_layer_that_is_replaced_meanwhile(self) -> None:
        self.image(A)
        asked = self.files(A)
        self.clock.advance(1)
        self.image(A, layer=member(b"other") + END)
        self.pool.flush()
        self.failureResultOf(asked, V1Error)
        self.assertIsNone(self.stored(f"images/{A}/_files"))
        asked = self.files(A)
        self.pool.flush()
        self.successResultOf(asked)

    def test_stop_waits_for_the_job_and_no_longer(self) -> None:
        self.image(A, layer=member(b"big", bytes(1_000_000)) + END)
        self.image(B)
        asked = [self.files(A), self.files(B)]
        self.pool.work()
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.pool.deliver()
        self.pool.step()
        self.successResultOf(stopped)
        self.assertEqual(self.pool.waiting, [])
        for one in asked:
            self.failureResultOf(one, Unavailable)


class DiffTests(Case):
    def test_one_after_the_other(self) -> None:
        for image in (A, B, C):
            self.image(image)
            self.assertIsNone(self.diff(image))
        self.clock.advance(0)
        while self.pool.waiting:
            self.assertEqual(len(self.pool.waiting), 1)
            self.pool.step()
        for image in (A, B, C):
            self.assertEqual(len(self.diff(image)["created"]), 2)

    def test_ancestors(self) -> None:
        self.image(A, layer=member(b"a") + END)
        self.image(B, A, layer=member(b".wh.a") + member(b"b") + END)
        self.image(C, B, A, layer=member(b"./a") + member(b"./b") + member(b"./c") + END)
        self.diff(C)
        self.clock.advance(0)
        self.pool.flush()
        found = {part: list(names) for part, names in self.diff(C).items()}
        self.assertEqual(found, {"deleted": [], "changed": ["/b"], "created": ["/a", "/c"]})

    def test_farther_layers_are_not_read_for_nothing(self) -> None:
        self.image(A, layer=b"no archive")
        self.image(B, A)
        self.image(C, B, A)
        self.diff(C)
        self.clock.advance(0)
        self.pool.flush()
        self.assertEqual(list(self.diff(C)["changed"]), ["/a", "/b"])

    def test_the_queue_is_bounded_and_forgets_the_oldest(self) -> None:
        images = [ImageId(f"{n:064x}") for n in range(QUEUE_LIMIT + 1)]
        for image in images:
            self.image(image)
            self.assertIsNone(self.diff(image))
        self.clock.advance(0)
        self.pool.flush()
        self.assertIsNone(self.stored(f"images/{images[0]}/_diff"))
        self.assertIsNotNone(self.stored(f"images/{images[1]}/_diff"))
        self.assertIsNotNone(self.stored(f"images/{images[-1]}/_diff"))

    def test_images_that_are_removed_meanwhile(self) -> None:
        self.image(A)
        self.image(B, A)
        self.diff(B)
        del self.contents.objects[f"images/{A}/layer"]
        self.clock.advance(0)
        self.pool.flush()
        self.failureResultOf(start(self.v1.diffs.open(B)), V1Error)

    def test_a_store_that_is_away_for_a_while(self) -> None:
        self.image(A)
        self.diff(A)
        patch = self.patch(MemoryDriver, "open", lambda *_: fail(Unavailable("", "away")))
        self.clock.advance(0)
        patch.restore()
        self.diff(A)
        self.clock.advance(0)
        self.pool.flush()
        self.assertIsNotNone(self.diff(A))

    def test_stop_in_the_middle(self) -> None:
        self.image(A)
        self.diff(A)
        self.clock.advance(0)
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.pool.flush()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.stored(f"images/{A}/_diff"))


class SharedQueueTests(Case):
    def setUp(self) -> None:
        self.queue = Queue()
        super().setUp()
        self.image(A)
        self.image(B, A)

    def work(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.pool.flush()

    def test_what_others_put_there(self) -> None:
        assert self.queue is not None
        self.v1.start()
        self.queue.held = ["../x", "", B.text, "f" * 64]
        self.work(POLL)
        self.assertIsNotNone(self.stored(f"images/{B}/_diff"))
        self.assertEqual(self.queue.held, [])
        self.queue.held = [A.text]
        self.work(POLL)
        self.assertIsNotNone(self.stored(f"images/{A}/_diff"))

    def test_what_is_asked_for_is_put_there(self) -> None:
        assert self.queue is not None
        self.v1.start()
        self.assertIsNone(self.diff(B))
        self.assertEqual(self.queue.held, [B.text])
        self.work(0)
        self.assertIsNotNone(self.diff(B))

    def test_one_that_cannot_be_reached(self) -> None:
        assert self.queue is not None
        self.queue.broken = True
        self.v1.start()
        self.assertIsNone(self.diff(B))
        self.work(0)
        self.assertIsNotNone(self.diff(B))
        asked = self.queue.asked
        self.work(RETRY - 1)
        self.assertEqual(self.queue.asked, asked)
        self.queue.broken = False
        self.queue.held = [A.text]
        self.work(2)
        self.work(POLL)
        self.assertIsNotNone(self.stored(f"images/{A}/_diff"))

    def test_stop(self) -> None:
        assert self.queue is not None
        self.v1.start()
        self.diff(B)
        self.successResultOf(self.stop())
        self.assertTrue(self.queue.closed)
        self.assertEqual((self.queue.held, self.clock.getDelayedCalls()), ([B.text], []))
