"""The S3 engine for long: its server is killed while twenty clients push, and an object is larger than 5 GiB."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.clients.tools import missing
from tests.long.server import Server, ask, sha256
from tests.services.s3 import KEY, SECRET, S3Server
from tests.web.v2.base import OCI_MANIFEST, image
from txregistry.core.janitor import Janitor
from txregistry.core.policy import Policy
from txregistry.core.repositories import Repositories
from txregistry.interfaces import IStorageDriver
from txregistry.storage.local import LocalDriver
from txregistry.storage.pool import Lanes, Pool
from txregistry.testing.pools import ImmediatePool, result_of

if importlib.util.find_spec("boto3") is not None:
    from txregistry.storage.s3.bucket import Bucket
    from txregistry.storage.s3.driver import S3Driver
    from txregistry.storage.s3.options import S3Options, root_of
    from txregistry.storage.s3.partial import records_of
    from txregistry.storage.segmented.names import PARTIALS
    from txregistry.storage.segmented.records import COMMIT_HOLD

clock: Any = reactor

MIB = 1 << 20
PUSHES, SIZE = 20, 12 * MIB
#: Pushes that are acknowledged when the server is killed, and the seconds until it is started again.
ACKNOWLEDGED, AWAY = 5, 3.0
PATIENCE = 240.0
LARGE = 6 << 30
#: Free bytes that a test of a large object needs: its segments, its parts and itself.
NEEDED = 3 * LARGE


class Wall:
    """The clock on the wall, which may be put forward."""

    ahead = 0.0

    def seconds(self) -> float:
        return time.time() + self.ahead


class WithS3:
    """A server, and drivers for its one bucket."""

    def start_s3(self, folder: str, large: bool = False) -> None:
        if importlib.util.find_spec("boto3") is None:
            raise missing("boto3 is not installed")
        self.s3 = S3Server(os.path.join(folder, "s3"), large)
        self.s3.make_bucket("bucket")

    def driver(self, root: str, pool: Lanes, clock: Any) -> S3Driver:
        options = S3Options(
            bucket="bucket", root=root, endpoint=self.s3.endpoint, access_key=KEY, secret_key=SECRET, path_style=True
        )
        return S3Driver(Bucket(options), pool, clock)


class Push(threading.Thread):
    """A client that pushes an image until it is acknowledged; `refused` are the statuses that told it to come back."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        self.server, self.number = server, number
        self.data = random.Random(number).randbytes(SIZE)
        self.name = f"pushed/image-{number % 7}"
        self.config = json.dumps({"number": number}).encode()
        self.manifest = image(self.config, [self.data])
        self.refused: list[int] = []
        self.acknowledged = False
        self.unexpected: list[str] = []

    def run(self) -> None:
        time.sleep(self.number * 0.2)
        deadline = time.monotonic() + PATIENCE
        while not self.acknowledged and not self.unexpected and time.monotonic() < deadline:
            try:
                self.acknowledged = self._push()
            except (OSError, http.client.HTTPException) as error:
                self.unexpected.append(f"no answer: {error!r}")

    def _push(self) -> bool:
        connection = self.server.connect()
        try:
            for blob in (self.config, self.data):
                location = self._ask(connection, "POST", f"/v2/{self.name}/blobs/uploads/", b"", 202)
                if location is None:
                    return False
                for at in range(0, len(blob), 2 * MIB):
                    location = self._ask(connection, "PATCH", location, blob[at : at + 2 * MIB], 202)
                    if location is None:
                        return False
                if self._ask(connection, "PUT", f"{location}?digest={sha256(blob)}", b"", 201) is None:
                    return False
            target = f"/v2/{self.name}/manifests/v{self.number}"
            return self._ask(connection, "PUT", target, self.manifest, 201) is not None
        finally:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: bytes, wanted: int
    ) -> str | None:
        """The Location of the answer; None if the client has to begin again."""
        headers = {"Content-Type": OCI_MANIFEST} if "/manifests/" in target else {}
        status, answer, text = ask(connection, method, target, body, headers)
        if status == wanted:
            return answer["location"]
        if status == 503 and int(answer["retry-after"]) > 0:
            self.refused.append(status)
            time.sleep(0.5)
        else:
            self.unexpected.append(f"{method} {target}: {status} {text[:200]!r}")
        return None


class OutageTests(WithS3, SynchronousTestCase):
    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        self.start_s3(folder)
        self.addCleanup(self.s3.stop)
        self.server = Server(os.path.join(folder, "registry"), config=self.s3.config("bucket"))
        self.server.start()
        self.addCleanup(self.server.stop)
        self.addCleanup(shutil.rmtree, folder)

    def test_killed_in_the_middle_of_pushes(self) -> None:
        pushes = [Push(self.server, number) for number in range(PUSHES)]
        for push in pushes:
            push.start()
        deadline = time.monotonic() + PATIENCE
        while sum(push.acknowledged for push in pushes) < ACKNOWLEDGED:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        before = [push for push in pushes if push.acknowledged]
        self.s3.kill()
        time.sleep(AWAY)
        self.s3.start()
        for push in pushes:
            push.join(PATIENCE)
        self.assertEqual([push.unexpected for push in pushes if push.unexpected], [])
        self.assertEqual([push.number for push in pushes if not push.acknowledged], [])
        told = [push for push in pushes if push.refused]
        self.assertTrue(told)
        self.assertEqual([push.number for push in before if push.refused], [])
        lost = [push.number for push in pushes if not self.is_there(push)]
        self.server.stop()
        dead, left = self.sweep()
        print(
            f"S3 killed in the middle of {PUSHES} pushes, {len(before)} of them acknowledged then: "
            f"{len(lost)} lost, {len(told)} clients told to retry ({sum(len(push.refused) for push in told)} times), "
            f"{dead} leftovers swept, {left} left behind"
        )
        self.assertEqual((lost, left), ([], 0))

    def is_there(self, push: Push) -> bool:
        """Whether an image can be pulled as it was pushed."""
        whole = {f"manifests/v{push.number}": push.manifest}
        whole |= {f"blobs/{sha256(blob)}": blob for blob in (push.config, push.data)}
        return all(
            self.server.request("GET", f"/v2/{push.name}/{path}", Accept=OCI_MANIFEST).body == data
            for path, data in whole.items()
        )

    def sweep(self) -> tuple[int, int]:
        """Sweep twice, as after an hour and after the life of sessions: how much went, how much stayed."""
        wall = Wall()
        driver = self.driver(root_of(self.server.storage), ImmediatePool(), wall)
        bucket = driver.bucket
        time.sleep(COMMIT_HOLD + 3)  # no hold lasts any more, not that of a commit either which the outage cut off
        dead = result_of(driver.sweep(time.time() + 60))
        # Of a session that a client may go on with, what was acknowledged stays; nothing else does.
        named: set[str] = set()
        for path in result_of(driver.partials_below("docker")):
            named |= {name for name, _ in records_of(bucket, path).latest()[2].segments}
        segments = {key for key, _ in bucket.keys(f"{PARTIALS}/") if "/segments/" in key}
        self.assertEqual((segments, bucket.uploads()), (named, []))
        wall.ahead = 2 * Policy().upload_expiry
        janitor = Janitor(driver, Repositories(driver), Policy(), wall)  # type: ignore[arg-type] # it only tells the time
        dead += result_of(Deferred.fromCoroutine(janitor.sweep()))
        return dead, len(bucket.keys(f"{PARTIALS}/")) + len(bucket.uploads())


class LargeTests(WithS3, TestCase):
    """An object that is larger than one request can copy, and whose segments have begun to grow."""

    timeout = 1800

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.addCleanup(shutil.rmtree, self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < NEEDED:
            raise SkipTest(f"{free >> 30} GiB are free, {NEEDED >> 30} GiB are needed")
        self.pool = Pool(clock, 4, 2)
        self.addCleanup(self.pool.stop)

    async def up_and_down(self, driver: IStorageDriver) -> None:
        """Mostly zeros, but no two MiB alike."""
        written, found, tail = hashlib.sha256(), hashlib.sha256(), bytes(MIB - 8)

        def tap(pieces: Sequence[bytes]) -> None:
            for piece in pieces:
                written.update(piece)

        partial = await driver.partial("uploads/1", create=True)
        for at in range(0, LARGE, MIB):
            await partial.write([at.to_bytes(8, "big"), tail], at, tap)
        await partial.checkpoint(b"")
        await partial.commit("blobs/1")
        await partial.close()
        reader = await driver.open("blobs/1")
        self.assertEqual(reader.size, LARGE)
        async for piece in reader.chunks(0, LARGE):
            found.update(piece)
        self.assertEqual(found.hexdigest(), written.hexdigest())
        [edge] = [piece async for piece in reader.chunks(5 << 30, (5 << 30) + 8)]
        self.assertEqual(edge, (5 << 30).to_bytes(8, "big"))
        reader.close()

    async def test_s3(self) -> None:
        self.start_s3(self.folder, large=True)
        self.addCleanup(self.s3.stop)
        driver = self.driver("", self.pool, Wall())
        await self.up_and_down(driver)
        self.assertEqual([key for key, _ in driver.bucket.keys("")], ["blobs/1"])
        await driver.move("blobs/1", "blobs/2")  # more than one request may copy
        self.assertEqual((await driver.stat("blobs/2")).size, LARGE)
        self.assertEqual([key for key, _ in driver.bucket.keys("")], ["blobs/2"])

    async def test_local(self) -> None:
        store = os.path.join(self.folder, "store")
        os.mkdir(store)
        await self.up_and_down(LocalDriver(store, self.pool, clock))
