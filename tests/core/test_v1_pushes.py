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
        self.steps = 0
        inner = MemoryDriver(Clock(), contents=contents)
        driver: Any = Steps(inner, self.waiting) if stepped else inner
        self.v1 = Registry(driver, Policy(), Shields(), Clock()).v1

    def step(self) -> bool:
        if self.waiting:
            self.steps += 1
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

    def test_one_that_sleeps_at_any_step_while_another_pushes(self) -> None:
        """It wakes up when all is over, and can only find that out."""
        data = image_json(A)
        packed = gzip.compress(LAYER, mtime=0)

        async def same(v1: Any, name: str) -> None:
            await v1.images.push_json(IMAGE, data, None)

        async def other(v1: Any, name: str) -> None:
            await v1.images.push_json(IMAGE, image_json(A, comment="other"), simple(data, packed))

        async def layer(v1: Any, name: str) -> None:
            await v1.layers.push(IMAGE, Body(packed), name)

        async def checksum(v1: Any, name: str) -> None:
            await v1.layers.push_checksum(IMAGE, Sent(simple(data, packed), None), name)

        for act in (same, other, layer, checksum):
            for begun in (False, True):
                for steps in range(200):
                    self.setUp()
                    awake, asleep = Worker(self.contents, stepped=False), Worker(self.contents)
                    name = ""
                    if begun or act in (layer, checksum):
                        name = result_of(start(awake.v1.images.push_json(IMAGE, data, None)))
                    if act is checksum:
                        name = result_of(start(awake.v1.layers.push(IMAGE, Body(packed), name)))
                    ended = start(act(asleep.v1, name))
                    while asleep.step() and asleep.steps < steps:
                        pass
                    client = Client(awake, data, LAYER, "simple")
                    self.assertTrue(client.content, (act, steps, client.outcome))
                    self.assertTrue(self.look(), (act, steps))
                    before = self.contents.objects[f"images/{A}/layer"].data
                    over = not asleep.waiting
                    while asleep.step():
                        if not self.look():
                            self.assertIn(f"images/{A}/_inprogress", self.contents.objects)
                    self.assertTrue(self.look(), (act, steps))
                    self.assertEqual(self.contents.objects[f"images/{A}/layer"].data, before)
                    self.assertEqual([path for path in self.contents.objects if "/attempts/" in path], [])
                    ended.addErrback(lambda failure: failure.trap(V1Error))
                    self.successResultOf(ended)
                    if over:
                        break
                self.assertTrue(over, "more steps than were tried")

    @given(
        st.integers(0, 2**32),
        st.sampled_from([0.5, 0.1, 0.02]),
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
            self.assertTrue(self.look())
        self.end(clients)

    @given(
        st.integers(0, 2**32),
        st.sampled_from([0.7, 0.3]),
        st.booleans(),
        st.lists(st.one_of(st.none(), st.integers(0, 40)), min_size=3, max_size=3),
    )
    @settings(deadline=None, derandomize=True, max_examples=600)
    def test_two_checksums_and_a_json_at_once(self, seed, switching, other, deaths) -> None:
        """Two layers wait, and their checksums come at one time, with a JSON, perhaps another one."""
        self.setUp()
        data = image_json(A)
        before = Worker(self.contents, stepped=False).v1
        result_of(start(before.images.push_json(IMAGE, data, None)))
        layers = [LAYER, gzip.compress(LAYER, mtime=0)]
        names = [result_of(start(before.layers.push(IMAGE, Body(layer), None))) for layer in layers]
        workers = [Worker(self.contents) for _ in range(3)]
        again = image_json(A, comment="another") if other else data
        outcomes: list[str | None] = [None, None, None]

        async def ask(n: int) -> None:
            try:
                if n == 2:
                    await workers[n].v1.images.push_json(IMAGE, again, None)
                else:
                    sent = Sent(simple(data, layers[n]), None)
                    await workers[n].v1.layers.push_checksum(IMAGE, sent, names[n])
                outcomes[n] = "done"
            except V1Error as error:
                outcomes[n] = error.message

        for n in range(3):
            start(ask(n))
        chance = Random(seed)
        turn = 0
        taken = [0, 0, 0]
        moving = {0, 1, 2}
        while moving:
            if turn not in moving or chance.random() < switching:
                turn = chance.choice(sorted(moving))
            limit = deaths[turn]
            taken[turn] += 1
            if (limit is not None and taken[turn] > limit) or not workers[turn].step():
                moving.discard(turn)
            self.look()
        finishers = [n for n in range(2) if outcomes[n] == "done"]
        self.assertLessEqual(len(finishers), 1)
        if finishers and deaths == [None, None, None]:
            self.assertTrue(self.look(), "a mark was left")
        if finishers:
            result_of(start(before.images.info(IMAGE)))
            self.assertTrue(self.look())
            self.assertEqual(self.contents.objects[f"images/{A}/layer"].data, layers[finishers[0]])
        if deaths == [None, None, None]:
            self.assertNotIn(None, outcomes)
            if not other:
                self.assertEqual(len(finishers), 1, outcomes)
