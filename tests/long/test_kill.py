"""The server is killed again and again in the middle of pushes: nothing that it had acknowledged is lost."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import time
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from tests.long.server import Server, ask, sha256
from tests.web.v2.base import OCI_MANIFEST, image

KILLS = 100
NAME = "killed/often"
SEED = 20_130_326
OLDER_ROUNDS = 2


class Killed(Exception):
    """The server is dead; the request that was under way has had no answer."""


@dataclass
class Blob:
    """A blob on its way: its session and how much of it was acknowledged."""

    data: bytes
    location: str | None = None
    acknowledged: int = 0
    closing: bool = False
    done: bool = False

    @property
    def digest(self) -> str:
        return sha256(self.data)


@dataclass
class Image:
    """An image with a tag of its own, and the tag that each image takes over from the one before."""

    number: int
    blobs: list[Blob]
    manifest: bytes
    tagged: list[str] = field(default_factory=list)

    @property
    def tags(self) -> list[str]:
        return [f"v{self.number}", "latest"]


class Pusher:
    """A client that kills the server in the middle of its `victim`th request, or somewhere after it was sent."""

    def __init__(self, server: Server, rng: random.Random, victim: int | None) -> None:
        self.server = server
        self.connection = server.connect()
        self._rng = rng
        self._left = victim
        self._dead = False

    def ask(self, method: str, target: str, body: bytes = b"", media_type: str = "") -> tuple[int, str]:
        """Status and `Location` or `Range`; Killed."""
        if self._dead:
            raise Killed
        headers = {"Content-Type": media_type} if media_type else {}
        if self._left is None or self._left > 0:
            self._left = None if self._left is None else self._left - 1
            status, found, _ = ask(self.connection, method, target, body, headers)
            return status, found.get("location", "") if method == "POST" else found.get("range", "")
        self.connection.putrequest(method, target)
        self.connection.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        sent = len(body) if self._rng.random() < 0.7 else self._rng.randrange(len(body) + 1)
        self.connection.send(body[:sent])
        time.sleep(self._rng.random() ** 3 * 0.03)
        os.kill(self.server.pid, signal.SIGKILL)
        self._dead = True
        with contextlib.suppress(OSError, http.client.HTTPException):
            response = self.connection.getresponse()  # it may have answered just before
            response.read()
            return response.status, response.getheader("Location" if method == "POST" else "Range") or ""
        raise Killed

    def push(self, one: Image) -> None:
        for blob in one.blobs:
            self.push_blob(blob)
        for tag in one.tags:
            status, _ = self.ask("PUT", f"/v2/{NAME}/manifests/{tag}", one.manifest, OCI_MANIFEST)
            assert status == 201, status
            one.tagged.append(tag)

    def push_blob(self, blob: Blob) -> None:
        if blob.done:
            return
        if blob.location is None:
            status, location = self.ask("POST", f"/v2/{NAME}/blobs/uploads/")
            assert status == 202, status
            blob.location, blob.acknowledged = location, 0
        middle = len(blob.data) // 2
        for stop in (middle, len(blob.data)):
            if blob.acknowledged < stop:
                status, _ = self.ask("PATCH", blob.location, blob.data[blob.acknowledged : stop])
                assert status == 202, status
                blob.acknowledged = stop
        blob.closing = True
        status, _ = self.ask("PUT", f"{blob.location}?digest={blob.digest}")
        assert status == 201, status
        blob.done = True

    def find_sessions(self, one: Image) -> list[str]:
        """Go on where the server says; those sessions that hold less than was acknowledged."""
        lost = []
        for blob in one.blobs:
            if blob.done or blob.location is None:
                continue
            status, told = self.ask("GET", blob.location)
            if status == 404:
                if not blob.closing:
                    lost.append(blob.location)
                blob.location, blob.closing = None, False
                continue
            assert status == 204, status
            last = int(told.partition("-")[2])
            offset = last + 1 if last else 0
            if offset < blob.acknowledged:
                lost.append(f"{blob.location} at {offset}, not {blob.acknowledged}")
            blob.acknowledged = offset
        return lost


class KillTests(SynchronousTestCase):
    def new_image(self, number: int) -> Image:
        data = [self.rng.randbytes(self.rng.randrange(1, 400_000)) for _ in range(2)]
        config = b'{"number": %d}' % number
        return Image(number, [Blob(layer) for layer in (*data, config)], image(config, data))

    def missing(self, images: list[Image]) -> list[str]:
        """What was acknowledged of these images and is not there, byte for byte."""
        connection = self.server.connect()
        wanted = {}
        for one in images:
            wanted.update({f"blobs/{blob.digest}": blob.data for blob in one.blobs if blob.done})
            references = [*one.tagged, sha256(one.manifest)] if one.tagged else []
            wanted.update({f"manifests/{name}": one.manifest for name in references if name != "latest"})
        lost = [path for path, data in wanted.items() if ask(connection, "GET", f"/v2/{NAME}/{path}")[2] != data]
        connection.close()
        return lost

    def wrong_latest(self, images: list[Image]) -> list[str]:
        """The tag that moves is where the last acknowledged push put it, or where the one under way wanted it."""
        before = [one.manifest for one in images if "latest" in one.tagged]
        allowed = [*before[-1:], images[-1].manifest]
        connection = self.server.connect()
        status, _, found = ask(connection, "GET", f"/v2/{NAME}/manifests/latest")
        connection.close()
        return [] if found in allowed or (status == 404 and not before) else ["latest"]

    def test_nothing_acknowledged_is_lost(self) -> None:
        self.rng = random.Random(SEED)
        self.server = Server(os.path.abspath(self.mktemp()))
        self.server.start()
        self.addCleanup(self.server.stop)
        images: list[Image] = []
        lost: list[str] = []
        retried = kills = 0
        while kills < KILLS:
            one = self.new_image(len(images))
            images.append(one)
            with contextlib.suppress(Killed):
                # A push has 14 requests: the last ones mostly, where most was acknowledged.
                Pusher(self.server, self.rng, self.rng.randrange(14)).push(one)
            self.server.stop(signal.SIGKILL)
            kills += 1
            self.server.start()
            lost += self.missing(images[-1 - OLDER_ROUNDS :]) + self.wrong_latest(images)
            again = Pusher(self.server, self.rng, None)
            lost += again.find_sessions(one)
            again.push(one)
            again.connection.close()
            retried += 1
        lost += self.missing(images)
        objects = sum(len(one.blobs) + 1 + len(one.tags) for one in images)
        print(
            f"kill -9: {kills} kills, {objects} acknowledged objects, {len(lost)} lost, "
            f"{retried} of {kills} retries succeeded"
        )
        self.assertEqual(lost, [])
