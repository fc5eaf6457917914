"""Two requests at one manifest, one of them in the middle of the other's work: a push, a delete, a move of a tag.

Both are told that they succeeded. So if one pushes what the other deletes, either the push came last, and manifest and
tag are there, or the delete did, and neither is; and a tag that was moved to another manifest is there in any case.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.core import scenarios
from tests.core.local_store import Ask, Store, asking, memory_folder
from tests.web.v2.base import sha256
from txregistry.interfaces import IPool
from txregistry.storage import local_files
from txregistry.testing.agent import Exchange
from txregistry.testing.pools import ManualPool

T = TypeVar("T")

MANIFEST = scenarios.REFERRER
TAGGED = "/v2/a/manifests/contended"
BY_DIGEST = f"/v2/a/manifests/{sha256(MANIFEST)}"


@implementer(IPool)
class TwoQueues:
    """A pool with a queue for each of two requests: what a job's result starts goes into the queue of that job."""

    def __init__(self) -> None:
        self._queues = (ManualPool(), ManualPool())
        self.number = 0

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        return self._queues[self.number].run(function, *args)

    def run_small(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        return self._queues[self.number].run_small(function, *args)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def step(self, number: int, most: int = 1000) -> None:
        """Run up to so many jobs of one queue."""
        self.number = number
        queue = self._queues[number]
        while queue.waiting and most:
            queue.step()
            most -= 1


class OneInTheOther(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(local_files, "is_local", lambda _path: False)
        self.folder = memory_folder(self)
        ask = asking(Store("fresh", f"{self.folder}/template"))
        scenarios.fill(ask)
        scenarios.expect(ask("PUT", TAGGED, scenarios.TYPE, MANIFEST).code, 201)

    def interleave(self, slow: scenarios.Request, quick: scenarios.Request, check: Callable[[Ask, int], None]) -> int:
        """Run one request in the middle of the other, at each of its jobs; how many there were."""
        steps = 0
        under_way = True
        while under_way:
            root = f"{self.folder}/store"
            shutil.copytree(f"{self.folder}/template", root)
            pool = TwoQueues()
            store = Store("raced", root, pool)
            first = self.begin(store, slow)
            pool.step(0, steps)
            under_way = not first.response.called
            pool.number = 1
            second = self.begin(store, quick)
            for _ in range(100):  # the one may have to wait for the other
                pool.step(1)
                pool.step(0, 1)
            for exchange, request in ((first, slow), (second, quick)):
                self.assertIn(self.successResultOf(exchange.response).code, {request.status, 404}, steps)
                exchange.lose()
            check(asking(Store("fresh", root)), steps)
            shutil.rmtree(root)
            steps += 1
        return steps

    def begin(self, store: Store, request: scenarios.Request) -> Exchange:
        exchange = store.agent.start(request.method, request.target, request.headers, length=len(request.body))
        exchange.send(request.body)
        return exchange

    def all_or_nothing(self, ask: Ask, steps: int) -> None:
        there, tagged = (ask("GET", target).code == 200 for target in (BY_DIGEST, TAGGED))
        listed = "contended" in ask("GET", "/v2/a/tags/list").json()["tags"]
        referrers = ask("GET", f"/v2/a/referrers/{sha256(scenarios.MANIFEST)}").json()["manifests"]
        self.assertEqual((tagged, listed, len(referrers) == 1), (there, there, there), steps)
        self.survived += there

    def moved(self, ask: Ask, steps: int) -> None:
        self.assertEqual(ask("GET", TAGGED).body, scenarios.MANIFEST, steps)
        self.assertEqual(ask("GET", BY_DIGEST).code, 404, steps)

    def test_a_push_and_a_delete(self) -> None:
        push = scenarios.request("PUT", TAGGED, scenarios.puts("contended", MANIFEST), MANIFEST, scenarios.TYPE)
        delete = scenarios.request("DELETE", BY_DIGEST, scenarios.deletes(BY_DIGEST), status=202)
        self.survived = 0
        tried = [self.interleave(push, delete, self.all_or_nothing), self.interleave(delete, push, self.all_or_nothing)]
        print(f"push and delete of one manifest: {sum(tried)} positions, there after {self.survived}, half of it never")
        self.assertGreater(min(tried), 10)
        self.assertGreater(self.survived, 0)

    def test_a_tag_that_moves_and_a_delete(self) -> None:
        kept = scenarios.MANIFEST
        move = scenarios.request("PUT", TAGGED, scenarios.puts("contended", kept), kept, scenarios.TYPE)
        delete = scenarios.request("DELETE", BY_DIGEST, scenarios.deletes(BY_DIGEST), status=202)
        tried = [self.interleave(move, delete, self.moved), self.interleave(delete, move, self.moved)]
        print(f"move of a tag and delete of what it named: {sum(tried)} positions, 0 lost")
        self.assertGreater(min(tried), 10)
