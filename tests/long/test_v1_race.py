"""Two clients push one V1 image through two processes on one store, of which one is killed at every step of a push."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.long.server import Server
from tests.long.test_workers import children, inodes
from tests.web.v1.base import archive, image_json, simple, tarsum

SEED = 2013
REPOSITORY = "raced/image"
#: Rounds in which nobody waits for anybody, and the time of the kill is random.
AT_ONCE = 30
#: A parent waits longer and longer before it replaces workers that are killed again and again.
KILLS_OF_A_PARENT = 4
WORKERS = 2
#: What docker takes for "somebody has pushed it already".
EXISTS = "Image already exists"
#: Where the other client is when one is stopped: its place in the list of steps.
MEANWHILE = ("looked", "json answered", "layer half", "layer answered")


class Refused(Exception):
    """An answer after which docker gives up a push."""


class Gone(Exception):
    """The server has closed the connection without an answer."""


class Push:
    """A push as docker does it, on one connection, which stops wherever it is told to; `acknowledged` when finished."""

    def __init__(self, server: Server, image: str, layer: bytes) -> None:
        self.server = server
        self.image, self.layer = image, layer
        self.data = image_json(image)
        self.acknowledged = False
        self.cookie = ""
        self.connection = server.connect()
        self.connection.connect()
        self._left = self._walk()

    def _walk(self) -> Iterator[str]:
        """The push; the names of its steps."""
        path = f"/v1/images/{self.image}"
        status, text = yield from self._ask("GET", f"{path}/json", name="looked")
        if status != 200:
            status, text = yield from self._ask("PUT", f"{path}/json", self.data, name="json")
            if status == 200:
                status, text = yield from self._ask("PUT", f"{path}/layer", self.layer, name="layer")
                if status != 200:
                    raise Refused("layer", status, text)
                sums = {"X-Docker-Checksum": tarsum(self.data, self.layer)}
                sums["X-Docker-Checksum-Payload"] = simple(self.data, self.layer)
                status, text = yield from self._ask("PUT", f"{path}/checksum", b"", sums, name="checksum")
            if status != 200 and text != EXISTS:
                raise Refused("json or checksum", status, text)
        self.acknowledged = True
        tag = f"/v1/repositories/{REPOSITORY}/tags/{self.image[:16]}"
        status, text = yield from self._ask("PUT", tag, json.dumps(self.image).encode(), name="tag")
        if status != 200:
            raise Refused("tag", status, text)

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, name: str = ""
    ) -> Generator[str, None, tuple[int, str]]:
        """One request, in steps; its status and the text of its error."""
        with self._closing():
            if self.connection.sock is None:
                self.connection.connect()
            self.connection.putrequest(method, path)
            if method == "PUT":
                self.connection.putheader("Content-Length", str(len(body)))
            for header, value in {**(headers or {}), **({"Cookie": self.cookie} if self.cookie else {})}.items():
                self.connection.putheader(header, value)
            self.connection.endheaders()
        if method == "PUT":
            if body:
                yield f"{name} begun"
                self._send(body[: len(body) // 2])
                yield f"{name} half"
                self._send(body[len(body) // 2 :])
            yield f"{name} sent"
        with self._closing():
            response = self.connection.getresponse()
            found = response.read()
        if (cookie := response.getheader("Set-Cookie")) is not None:
            self.cookie = cookie.partition(";")[0]
        yield name if method == "GET" else f"{name} answered"
        error = json.loads(found)["error"] if response.status >= 400 else ""
        return response.status, error

    def _send(self, data: bytes) -> None:
        # A server that has answered already need not read on.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.sock.sendall(data)

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise Gone from error

    def until(self, step: str) -> bool:
        """Go on up to a step; whether it came."""
        return any(name == step for name in self._left)

    def finish(self) -> None:
        """Go on to the end."""
        for _ in self._left:
            pass
        self.connection.close()

    def names(self) -> list[str]:
        """The steps that are left, all of which are done."""
        found = list(self._left)
        self.connection.close()
        return found


class RaceTests(SynchronousTestCase):
    """What went wrong is counted over all rounds, and printed."""

    def setUp(self) -> None:
        self.rng = random.Random(SEED)
        self.folder = Path(self.mktemp()).resolve()
        self.root = self.folder / "store"
        self.rounds = 0
        self.wrong: list[str] = []
        self.refused: list[str] = []
        self.stuck: list[str] = []
        self.lost: list[str] = []

    def serve(self, label: str, **config: int) -> Server:
        server = Server(str(self.folder / label), storage=str(self.root), config=config or None)
        server.start()
        self.addCleanup(server.stop)
        return server

    def new_image(self, is_same: bool) -> tuple[str, bytes, bytes]:
        """An id, and the layers of the two clients: the same bytes, or the same files compressed in two ways."""
        plain = archive("data", self.rng.randbytes(20_000).hex().encode())
        layer = gzip.compress(plain, 9, mtime=0)
        return self.rng.randbytes(32).hex(), layer, layer if is_same else gzip.compress(plain, 1, mtime=1)

    def steps(self, server: Server) -> list[str]:
        image, layer, _ = self.new_image(True)
        steps = Push(server, image, layer).names()
        self.assertEqual(len(steps), 15, steps)
        return steps

    # -- a round ----------------------------------------------------------------------------------------------------

    def go(self, push: Push, step: str | None, when: str) -> None:
        """Let a client go on up to a step, or to its end; it counts if it is refused, not if the server is gone."""
        try:
            if step is None:
                push.finish()
            else:
                push.until(step)
        except Refused as refusal:
            self.refused.append(f"{when}: {refusal}")
        except Gone:
            push.connection.close()

    def stop_at(self, first: Push, second: Push, step: str, meanwhile: str) -> None:
        """Bring one client to the step at which its server is to die, and the other one to where it is meanwhile."""
        when = f"{step}, {meanwhile}"
        if self.rng.random() < 0.5:
            self.go(second, meanwhile, when)
            self.go(first, step, when)
        else:
            self.go(first, step, when)
            self.go(second, meanwhile, when)
        if not step.endswith("answered"):
            time.sleep(self.rng.random() ** 3 * 0.02)

    def judge(self, image: str, pushes: tuple[Push, Push], servers: tuple[Server, Server], when: str) -> None:
        """What was acknowledged before the kill is there; the other client comes to its end, and a second try does."""
        first, second = pushes
        self.rounds += 1
        if first.acknowledged and not self.is_finished(image, servers[1]):
            self.lost.append(when)
        self.go(second, None, when)
        if not second.acknowledged:
            self.refused.append(f"{when}: the other one did not come to its end")
        self.look(image, pushes, servers[1], when)
        again = Push(servers[0], image, first.layer)
        self.go(again, None, f"{when}, again")
        if not again.acknowledged:
            self.refused.append(f"{when}: the second try did not come to its end")
        self.look(image, pushes, servers[0], f"{when}, again")

    def is_finished(self, image: str, server: Server) -> bool:
        return server.request("GET", f"/v1/images/{image}/json").status == 200

    def look(self, image: str, pushes: tuple[Push, Push], server: Server, when: str) -> None:
        """The image can be pulled, and its files belong together."""
        data, layers = pushes[0].data, {push.layer for push in pushes}
        folder = self.root / "images" / image
        if not self.is_finished(image, server) or (folder / "_inprogress").exists():
            self.stuck.append(when)
            return
        layer = server.request("GET", f"/v1/images/{image}/layer").body
        total = (folder / "_checksum").read_text()
        good = layer in layers and total in {simple(data, layer), tarsum(data, layer)}
        if not good or (folder / "layer").read_bytes() != layer or (folder / "json").read_bytes() != data:
            self.wrong.append(when)

    def report(self, what: str) -> None:
        numbers = f"checksums not of the bytes: {len(self.wrong)}, honest pushers refused: {len(self.refused)}"
        numbers += f", stuck images: {len(self.stuck)}, acknowledged and lost: {len(self.lost)}"
        print(f"{what}: {self.rounds} kills; {numbers}")
        self.assertEqual((self.wrong, self.refused, self.stuck, self.lost), ([], [], [], []))

    # -- two processes ----------------------------------------------------------------------------------------------

    def test_two_processes_killed_at_each_step(self) -> None:
        servers = self.serve("0"), self.serve("1")
        for step, meanwhile, is_same in itertools.product(self.steps(servers[0]), MEANWHILE, (True, False)):
            image, *layers = self.new_image(is_same)
            first, second = (Push(server, image, layer) for server, layer in zip(servers, layers, strict=True))
            self.stop_at(first, second, step, meanwhile)
            servers[0].stop(signal.SIGKILL)
            first.connection.close()
            servers[0].start()
            self.judge(image, (first, second), servers, f"{step}, {meanwhile}, {is_same}")
        self.report("two clients of two processes, at each step")

    def test_two_processes_at_once(self) -> None:
        servers = self.serve("0"), self.serve("1")
        for number in range(AT_ONCE):
            image, *layers = self.new_image(number % 2 == 0)
            first, second = (Push(server, image, layer) for server, layer in zip(servers, layers, strict=True))
            threads = [threading.Thread(target=self.go, args=(push, None, f"{number}")) for push in (first, second)]
            for thread in threads:
                thread.start()
            time.sleep(self.rng.random() * 0.06)
            servers[0].stop(signal.SIGKILL)
            for thread in threads:
                thread.join()
            servers[0].start()
            self.judge(image, (first, second), servers, str(number))
        self.report("two clients of two processes, at once")

    # -- two workers ------------------------------------------------------------------------------------------------

    def test_two_workers_killed_at_each_step(self) -> None:
        server = self.serve("0", workers=WORKERS)
        kills = 0
        for step in self.steps(server):
            if kills == KILLS_OF_A_PARENT:
                server.stop()
                server.start()
                kills = 0
            image, *layers = self.new_image(kills % 2 == 0)
            first = Push(server, image, layers[0])
            victim = worker_of(server, first)
            second = self.push_elsewhere(server, image, layers[1], victim)
            self.stop_at(first, second, step, meanwhile := self.rng.choice(MEANWHILE))
            os.kill(victim, signal.SIGKILL)
            kills += 1
            first.connection.close()
            self.judge(image, (first, second), (server, server), f"{step}, {meanwhile}, workers")
        self.report("two clients of two workers, at each step")

    def push_elsewhere(self, server: Server, image: str, layer: bytes, worker: int) -> Push:
        """A push by another worker than this; which one gets a connection is chance."""
        deadline = time.monotonic() + 60
        while worker_of(server, push := Push(server, image, layer)) == worker:
            push.connection.close()
            self.assertLess(time.monotonic(), deadline)
        return push


def worker_of(server: Server, push: Push) -> int:
    """The process that has a client's connection, once that has been used."""
    push.connection.request("GET", "/v1/_ping")
    push.connection.getresponse().read()
    port = push.connection.sock.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(fields[n].partition(":")[2], 16) for n in (1, 2)]
        if ports == [server.port, port]:
            for worker in children(server.pid):
                if fields[9] in inodes(worker):
                    return worker
    raise AssertionError("nobody has the connection")
