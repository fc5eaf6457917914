"""The client leaves at every point where the server waits: before a job, and between a job and its result.

Whatever it was doing, afterwards no blob has bytes that are not its own, no file is open, nothing acknowledged is
missing, and another worker takes the same request from another client.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Generator

from twisted.trial.unittest import SynchronousTestCase

from tests.core import scenarios
from tests.core.local_store import Ask, Store, asking, foreign_blobs, memory_folder, open_files
from txregistry.errors import ClientGone
from txregistry.storage import local_files
from txregistry.testing.agent import Exchange
from txregistry.testing.pools import ManualPool

Scenario = Callable[[Ask], scenarios.Request]


class ClientLeaves(SynchronousTestCase):
    """Each test takes one kind of request through all positions at which its client may leave."""

    def setUp(self) -> None:
        # All reads by the pool, as on a network file system: then each of them is a position too.
        self.patch(local_files, "is_local", lambda _path: False)
        self.folder = memory_folder(self)
        self.template = f"{self.folder}/template"
        scenarios.fill(asking(Store("fresh", self.template)))

    def positions(self, scenario: Scenario) -> int:
        """Run the scenario again and again, each time leaving one position later; how many there were."""
        position = 0
        while self.leave_at(scenario, position):
            position += 1
        gc.collect()
        # Klein logs what a route raises after its client has left.
        unexpected = [failure for failure in self.flushLoggedErrors() if not failure.check(ClientGone)]
        self.assertEqual(unexpected, [])
        return position

    def leave_at(self, scenario: Scenario, position: int) -> bool:
        """Leave at this position; whether the request was still under way."""
        root = f"{self.folder}/store"
        shutil.copytree(self.template, root)
        asked = scenario(asking(Store("fresh", root)))
        pool = ManualPool()
        store = Store("left", root, pool)
        exchange = store.agent.start(asked.method, asked.target, asked.headers, length=len(asked.body))
        exchange.send(asked.body[: asked.sent])
        waits = self.waits(store, pool, exchange)
        under_way = all(next(waits, None) is not None for _ in range(position + 1))
        waits.close()
        exchange.lose()
        for _ in range(3):
            pool.flush()
            store.clock.advance(1)
        with self.subTest(scenario=scenario.__name__, position=position):
            self.look(root, asked)
        shutil.rmtree(root)
        return under_way

    def waits(self, store: Store, pool: ManualPool, exchange: Exchange) -> Generator[str, None, None]:
        """Stop wherever the server waits, until the response is there or it waits for the client alone."""
        quiet = 0
        yield "the request has arrived"
        while not exchange.response.called and quiet < 3:
            if not pool.waiting:
                quiet += 1
                store.clock.advance(1)
                continue
            quiet = 0
            pool.work()
            yield "the job has run"
            pool.deliver()
            yield "its result is known"

    def look(self, root: str, asked: scenarios.Request) -> None:
        self.assertEqual(open_files(root), [])
        self.assertEqual(foreign_blobs(root), [])
        self.assertEqual(os.listdir(f"{root}/_txregistry/tmp/put"), [])
        ask = asking(Store("fresh", root))
        self.assertEqual(scenarios.missing(ask), [])
        asked.retry(ask)
        self.assertEqual(scenarios.missing(ask), [])
        self.assertEqual(foreign_blobs(root), [])
        self.assertEqual(open_files(root), [])

    def try_all(self, least: int, *scenarios: Scenario) -> None:
        tried = {scenario.__name__: self.positions(scenario) for scenario in scenarios}
        total = sum(tried.values())
        each = ", ".join(f"{name} {count}" for name, count in tried.items())
        print(f"clients that left: {total} positions ({each}), foreign bytes 0")
        self.assertGreater(total, least, tried)

    def test_a_blob_in_one_put(self) -> None:
        self.try_all(36, scenarios.put_whole, scenarios.put_cut, scenarios.put_wrong)

    def test_a_blob_in_patches_and_a_put(self) -> None:
        self.try_all(47, scenarios.patch_whole, scenarios.patch_cut, scenarios.put_rest, scenarios.put_after_patch)

    def test_a_blob_in_one_post(self) -> None:
        self.try_all(33, scenarios.monolithic, scenarios.monolithic_cut)

    def test_the_beginning_and_the_end_of_a_session(self) -> None:
        self.try_all(15, scenarios.start_upload, scenarios.start_upload_sha512, scenarios.end_session)

    def test_a_manifest(self) -> None:
        self.try_all(65, scenarios.put_manifest, scenarios.move_tag, scenarios.put_referrer)

    def test_a_mount(self) -> None:
        self.try_all(7, scenarios.mount)

    def test_deletes(self) -> None:
        self.try_all(35, scenarios.delete_tag, scenarios.delete_manifest, scenarios.delete_blob)

    def test_a_pull(self) -> None:
        self.try_all(5, scenarios.pull)
