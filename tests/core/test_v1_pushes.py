"""Two clients push one V1 image through two workers, whose steps are mixed at will and end at any of them.

Whatever happens, a finished image is whole and has the checksum of its bytes; who was told so finds it; nobody honest
is refused; and nobody can leave it so that a next client could not push it.
"""

from __future__ import annotations

import gzip
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.v1.base import A, archive, image_json, simple, tarsum
from txregistry.concurrency import Shields, start
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.core.v1.layers import Sent
from txregistry.errors import V1Conflict, V1Error
from txregistry.model.v1.names import ImageId
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.testing.pools import result_of

IMAGE = ImageId(A)
LAYER = archive()
VERBS = {"read", "put", "stat", "list", "move", "remove", "settle", "open"}


class Body:
    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data

    async def batches(self, size: int) -> AsyncIterator[list[bytes]]:
        yield [self._data]


class Steps:
    """Something that stores, whose every call waits to be let through; none is once it has crashed."""

    def __init__(self, inner: Any, waiting: deque[Callable[[], None]], verbs: set[str] = VERBS) -> None:
        self._inner = inner
        self._waiting = waiting
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._verbs:
            return found

        def later(*args: Any, **more: Any) -> Deferred[Any]:
            result: Deferred[Any] = Deferred()
            self._waiting.append(lambda: found(*args, **more).addBoth(result.callback))
            return result

        return later

    async def partial(self, path: str, create: bool = False) -> Any:
        return Steps(await self._inner.partial(path, create=create), self._waiting, {"commit", "cancel"})


class Worker:
    """A process, with a registry over a store that others use, too."""

    def __init__(self, contents: Contents, stepped: bool = True) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        inner = MemoryDriver(Clock(), contents=contents)
        driver: Any = Steps(inner, self.waiting) if stepped else inner
        self.v1 = Registry(driver, Policy(), Shields(), Clock()).v1

    def step(self) -> bool:
        if self.waiting:
            self.waiting.popleft()()
            return True
        return False


class Client:
    """Pushes the image; `outcome` is what it comes to think, None as long as it knows nothing."""

    def __init__(self, worker: Worker, data: bytes, layer: bytes, road: str) -> None:
        self.worker = worker
        self.data, self.layer, self.road = data, layer, road
        self.outcome: str | None = None
        start(self._run())

    async def _run(self) -> None:
        try:
            await self._push()
            self.outcome = "pushed"
        except V1Conflict as error:
            self.outcome = error.message
        except V1Error as error:
            self.outcome = f"refused: {error.message}"

    async def _push(self) -> None:
        v1 = self.worker.v1
        total = simple(self.data, self.layer)
        session = await v1.images.push_json(IMAGE, self.data, total if self.road == "announced" else None)
        session = await v1.layers.push(IMAGE, Body(self.layer), session)
        if self.road != "announced":
            total = tarsum(self.data, self.layer) if self.road == "tarsum" else total
            await v1.layers.push_checksum(IMAGE, Sent(total, None), session)

    @property
    def content(self) -> bool:
        return self.outcome in ("pushed", "Image already exists")


class Pushes(SynchronousTestCase):
    def setUp(self) -> None:
        self.contents = Contents()

    def look(self) -> bool:
        """Look at what lies there; whether the image is finished."""
        files = {path.removeprefix(f"images/{A}/"): one.data for path, one in self.contents.objects.items()}
        if "_inprogress" in files or "layer" not in files or "json" not in files:
            return False
        data, layer = files["json"], files["layer"]
        self.assertIn(files["_checksum"].decode(), (simple(data, layer), tarsum(data, layer)))
        self.assertEqual(json.loads(files["ancestry"])[0], A)
        known = json.loads(files[f"_txregistry/index/v1/{A}"])
        self.assertEqual(known["digest"], "sha256:" + sha256(layer).hexdigest())
        return True

    def end(self, clients: list[Client]) -> None:
        """Look for what was promised, and push once more."""
        finished = self.look()
        fresh = Worker(self.contents, stepped=False)
        if any(client.outcome == "pushed" for client in clients):
            result_of(start(fresh.v1.images.info(IMAGE)))
            self.assertTrue(self.look())
        again = Client(fresh, image_json(A, comment="again"), LAYER, "simple")
        if finished:
            self.assertEqual(again.outcome, "Image already exists")
        self.assertTrue(again.content, again.outcome)
        self.assertTrue(self.look())
        # A layer that came in after the end and whose worker died just then waits for the sweep.
        if any(client.outcome is None for client in clients):
            result_of(start(fresh.v1.layers.sweep(1e12)))
        self.assertEqual([path for path in self.contents.objects if "/attempts/" in path], [])

    def test_one_client_that_dies_at_any_step(self) -> None:
        for road in ("announced", "simple", "tarsum"):
            steps = 0
            while True:
                self.setUp()
                worker = Worker(self.contents)
                client = Client(worker, image_json(A), LAYER, road)
                if not all(worker.step() for _ in range(steps)):
                    break
                self.look()
                self.end([client])
                steps += 1
            self.assertEqual(client.outcome, "pushed")
            self.assertGreater(steps, 20)

    @given(
        st.integers(0, 2**32),
        st.sampled_from([0.5, 0.2, 0.05]),
        st.tuples(*[st.sampled_from(["announced", "simple", "tarsum"])] * 2),
        st.booleans(),
        st.booleans(),
        st.tuples(*[st.one_of(st.none(), st.integers(0, 120))] * 2),
    )
    @settings(deadline=None, derandomize=True, max_examples=300)
    def test_two_clients(self, seed, switching, roads, same_json, same_layer, deaths) -> None:
        self.setUp()
        workers = [Worker(self.contents) for _ in range(2)]
        data = [image_json(A), image_json(A, **({} if same_json else {"comment": "other"}))]
        layers = [LAYER, LAYER if same_layer else gzip.compress(LAYER, mtime=0)]
        clients = [
            Client(workers[n], data[n], layers[n], roads[n]) for n in range(2)
        ]
        taken = [0, 0]

        def step(n: int) -> bool:
            if deaths[n] is not None and taken[n] >= deaths[n]:
                return False
            taken[n] += 1
            moved = workers[n].step()
            self.look()
            return moved

        # Taking turns at random finds more than what Hypothesis would make up: all of a push has to be mixed.
        chance = Random(seed)
        turn = 0
        for _ in range(400):
            if chance.random() < switching:
                turn = 1 - turn
            step(turn)
        while step(0) or step(1):
            pass
        if deaths == (None, None):
            outcomes = [client.outcome for client in clients]
            self.assertNotIn(None, outcomes)
            if same_json:
                self.assertTrue(all(client.content for client in clients), outcomes)
            self.assertIn("pushed", outcomes)
        self.end(clients)
