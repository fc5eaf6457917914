"""The S3 driver with real servers, which check signatures, and which are killed while they are in use.

Everything runs on VersityGW, and most of it once more on MinIO over TLS.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import random
import signal
import ssl
import time
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.clients.tools import missing
from tests.services.proxy import Proxy
from tests.services.s3 import KEY, SECRET, MinioServer, S3Server
from tests.storage.s3.processes import Worker
from txregistry.cli.main import main
from txregistry.concurrency import start
from txregistry.errors import Busy, NotFound, StorageError, Unavailable
from txregistry.interfaces import IPartial, IStorageDriver, Page
from txregistry.storage.pool import Pool
from txregistry.testing.drivers import DriverSuite

if importlib.util.find_spec("boto3") is not None:
    from txregistry.storage.s3 import connection
    from txregistry.storage.s3.bucket import Bucket
    from txregistry.storage.s3.driver import S3Driver
    from txregistry.storage.s3.options import S3Options
    from txregistry.storage.segmented.names import home
    from txregistry.storage.segmented.records import HOLD

clock: Any = reactor
_numbers = itertools.count()

MIB = 1 << 20


class Wall:
    """The clock on the wall, which a test may put forward."""

    ahead = 0.0

    def seconds(self) -> float:
        return time.time() + self.ahead


class WithServer(TestCase):
    timeout = 300
    kind: type[S3Server] = S3Server

    def setUp(self):
        if importlib.util.find_spec("boto3") is None:
            raise missing("boto3 is not installed")
        self.wall = Wall()
        self.server = self.kind(self.mktemp())
        self.addCleanup(self.server.stop)

    def bucket(self, name: str | None = None, **options: Any) -> Bucket:
        """A client of a bucket, a new one unless it is named."""
        if name is None:
            name = f"bucket-{next(_numbers)}"
            self.server.make_bucket(name)
        given = {"access_key": KEY, "secret_key": SECRET, "root": "some/root/", "path_style": True, **options}
        endpoint = given.pop("endpoint", self.server.endpoint)
        return Bucket(S3Options(bucket=name, endpoint=endpoint, cacert=self.server.ca, **given))

    def driver(self, bucket: Bucket) -> S3Driver:
        pool = Pool(clock, 4, 2)
        driver = S3Driver(bucket, pool, self.wall)
        self.addCleanup(pool.stop)
        self.addCleanup(driver.close)
        return driver


class SuiteTests(DriverSuite, WithServer):
    """What every engine must do."""

    def make_driver(self):
        return self.driver(self.bucket())

    def sibling(self, driver):
        return self.driver(self.bucket(driver.bucket.name))

    async def stall(self, driver, path):
        # The server's clock for an object is the time of its file.
        records = self.server.data / driver.bucket.name / driver.bucket.root / home(path) / "records"
        # Both times of an answer are whole seconds, and its Date may be a second late.
        then = time.time() - 8
        for record in records.iterdir():
            os.utime(record, (then, then))
        self.wall.ahead += 8

    async def fill(self, driver: IStorageDriver, prefix: str, names: list[str]) -> None:
        await deferToThread(lambda: [driver.bucket.put(f"{prefix}/{name}", b"1") for name in names])  # type: ignore[attr-defined] # an S3Driver


class MinioSuiteTests(SuiteTests):
    """The same on MinIO, over TLS."""

    kind = MinioServer

    async def stall(self, driver, path):
        # Only real time makes an object of this server older; ages are differences of whole seconds.
        await deferLater(clock, HOLD + 2.5)


class StartTests(WithServer):
    def reason(self, bucket: Bucket) -> str:
        driver = self.driver(bucket)
        line = self.assertRaises(Unavailable, driver.prepare).reason
        self.assertNotIn("\n", line)
        self.assertNotIn("wrong-secret", line)
        return line

    def test_all_is_well(self):
        self.driver(self.bucket()).prepare()

    def test_no_such_bucket(self):
        self.assertIn("there is no bucket nowhere", self.reason(self.bucket("nowhere")))

    def test_wrong_secret(self):
        self.assertIn("are refused", self.reason(self.bucket(secret_key="wrong-secret")))

    def test_wrong_key(self):
        self.assertIn("are refused", self.reason(self.bucket(access_key="nobody")))

    def test_no_server(self):
        bucket = self.bucket()
        self.server.stop()
        self.assertIn("cannot be used", self.reason(bucket))


class MinioStartTests(StartTests):
    kind = MinioServer

    def test_an_authority_that_is_not_trusted(self):
        self.server.ca = None
        self.assertIn("CERTIFICATE_VERIFY_FAILED", self.reason(self.bucket()))

    def test_an_authority_that_the_environment_names(self):
        bucket = self.bucket()
        self.patch(os, "environ", {**os.environ, "AWS_CA_BUNDLE": self.server.ca})
        self.server.ca = None
        self.driver(self.bucket(bucket.name)).prepare()

    def test_a_file_that_is_not_there(self):
        self.server.ca = "/nowhere.pem"
        self.assertIn("s3_cacert: there is no file /nowhere.pem", self.reason(self.bucket()))


class SignedTests(WithServer):
    async def test_an_address_is_good_for_its_object_alone(self):
        driver = self.driver(self.bucket())
        await driver.put("a b/c+d", b"signed")
        await driver.put("other", b"secret")
        url = await driver.redirect("a b/c+d", 60)

        def fetch(address: str) -> bytes | int:
            try:
                trust = ssl.create_default_context(cafile=self.server.ca) if self.server.ca else None
                with urllib.request.urlopen(address, context=trust) as answer:
                    data: bytes = answer.read()
                    return data
            except urllib.error.HTTPError as error:
                return error.code

        self.assertEqual(await deferToThread(fetch, url), b"signed")
        address, _, query = url.partition("?")
        self.assertEqual(await deferToThread(fetch, address), 403)
        self.assertEqual(await deferToThread(fetch, f"{address.rpartition('/a')[0]}/other?{query}"), 403)


class MinioSignedTests(SignedTests):
    kind = MinioServer


class CommandTests(WithServer):
    """`txregistry storage check`."""

    def check(self, bucket: str, **keys: str) -> tuple[int, str, str]:
        given = {**self.server.config(bucket), "storage_path": "/prod", **keys}
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(f"dev: {json.dumps(given)}\n")
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(["storage", "check", str(folder / "config.yml")])
        return status, out.getvalue(), err.getvalue()

    def test_it_writes_reads_and_removes(self):
        self.server.make_bucket("bucket-ok")
        status, out, err = self.check("bucket-ok")
        self.assertEqual((status, err), (0, ""))
        for line in out.splitlines():
            self.assertRegex(line, r"^[a-zA-Z0-9 ]+ +[0-9.]+ ms$")
        self.assertIn("12 MiB read", out)
        self.assertEqual(self.bucket("bucket-ok", root="").keys(""), [])

    def test_what_is_wrong_is_one_line(self):
        status, out, err = self.check("nowhere")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertIn("there is no bucket nowhere", err)
        self.server.make_bucket("bucket-refused")
        status, out, err = self.check("bucket-refused", s3_secret_key="wrong-secret")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertIn("are refused", err)
        self.assertNotIn("wrong-secret", err)


class MinioCommandTests(CommandTests):
    kind = MinioServer


class FaultTests(WithServer):
    """The server is killed, and comes back."""

    async def push(self, driver: S3Driver, number: int, kill: bool = False) -> bool:
        """One upload in steps of a MiB; whether it was acknowledged."""
        data = random.Random(number).randbytes(12 * MIB)
        try:
            partial = await driver.partial(f"uploads/{number}", create=True)
            try:
                for begin in range(0, len(data), MIB):
                    await partial.write([data[begin : begin + MIB]], begin)
                    if kill and begin == 7 * MIB:
                        self.server.kill()
                await partial.commit(f"blobs/{number}")
            finally:
                await partial.close()
        except Unavailable:
            return False
        return True

    async def content(self, driver: S3Driver, path: str) -> bytes:
        reader = await driver.open(path)
        try:
            return b"".join([piece async for piece in reader.chunks(0, reader.size)])
        finally:
            reader.close()

    async def test_killed_in_the_middle_of_pushes(self):
        driver = self.driver(self.bucket())
        acknowledged = [number for number in range(2) if await self.push(driver, number)]
        outcomes = await gatherResults([start(self.push(driver, 2 + other, other == 0)) for other in range(4)])
        self.assertEqual(acknowledged, [0, 1])
        self.assertIn(False, outcomes)
        with self.assertRaises(Unavailable):  # an outage is no absence
            await driver.open("blobs/0")
        with self.assertRaises(Unavailable):
            await driver.stat("nothing")
        self.server.start()
        for number, fine in enumerate([True, True, *outcomes]):
            if fine:
                self.assertEqual(
                    await self.content(driver, f"blobs/{number}"), random.Random(number).randbytes(12 * MIB)
                )
                continue
            with self.assertRaises(StorageError):
                await driver.open(f"blobs/{number}")
            self.assertTrue(await self.push(driver, 10 + number))
        for path in await driver.partials("uploads"):
            await driver.remove(path)
        await driver.sweep(time.time() + 60)
        left = await deferToThread(lambda: [key for key, _ in driver.bucket.keys("") if not key.startswith("blobs/")])
        self.assertEqual(left, [])
        self.assertEqual(await deferToThread(driver.bucket.uploads), [])

    async def test_a_read_goes_on_after_the_server_was_restarted(self):
        driver, data = self.driver(self.bucket()), random.Random(5).randbytes(40 * MIB)
        await driver.put("blob", data)
        reader = await driver.open("blob")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        pieces = [await chunks.__anext__()]
        self.server.kill()
        self.server.start()
        pieces += [piece async for piece in chunks]
        self.assertEqual(b"".join(pieces), data)

    async def test_a_read_that_cannot_go_on_fails(self):
        driver, data = self.driver(self.bucket()), random.Random(5).randbytes(40 * MIB)
        await driver.put("blob", data)
        reader = await driver.open("blob")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        await chunks.__anext__()
        self.server.kill()
        with self.assertRaises(Unavailable):
            while True:
                await chunks.__anext__()
        chunks.close()


class MinioFaultTests(FaultTests):
    kind = MinioServer


class LineTests(WithServer):
    """The line between us and the server is cut and slow, and the server refuses us for a time."""

    def setUp(self):
        super().setUp()
        self.proxy = Proxy(self.server.port)
        self.addCleanup(self.proxy.stop)
        self.data = random.Random(7).randbytes(12 * MIB)
        self.plain = self.driver(self.bucket())
        self.store = self.driver(self.through_proxy())

    def through_proxy(self) -> Bucket:
        scheme = self.server.endpoint.partition(":")[0]
        return self.bucket(self.plain.bucket.name, endpoint=f"{scheme}://127.0.0.1:{self.proxy.port}")

    async def content(self, driver: S3Driver, path: str) -> bytes:
        reader = await driver.open(path)
        try:
            return b"".join([piece async for piece in reader.chunks(0, reader.size)])
        finally:
            reader.close()

    async def push(self, driver: S3Driver) -> None:
        """One upload in steps of a MiB, saved after the first."""
        partial = await driver.partial("uploads/1", create=True)
        try:
            await partial.write([self.data[:MIB]], 0)
            await partial.checkpoint(b"state")
            for begin in range(MIB, len(self.data), MIB):
                await partial.write([self.data[begin : begin + MIB]], begin)
            await partial.commit("blobs/1")
        finally:
            await partial.close()

    async def is_gone_on_with(self) -> None:
        """Nothing half is there; the upload goes on at what was saved, and leaves nothing behind."""
        with self.assertRaises(NotFound):
            await self.plain.open("blobs/1")
        partial = await self.held(self.plain, "uploads/1")
        self.assertEqual((partial.offset, partial.state), (MIB, b"state"))
        await partial.write([self.data[MIB:]], MIB)
        await partial.commit("blobs/1")
        await self.is_whole()

    async def is_whole(self) -> None:
        self.assertEqual(await self.content(self.plain, "blobs/1"), self.data)
        await self.plain.sweep(time.time() + 60)
        keys = await deferToThread(lambda: [key for key, _ in self.plain.bucket.keys("")])
        self.assertEqual(keys, ["blobs/1"])
        self.assertEqual(await deferToThread(self.plain.bucket.uploads), [])

    async def held(self, driver: S3Driver, path: str) -> IPartial:
        """A partial object, once its hold has lapsed."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return await driver.partial(path)
            except Busy:
                self.assertLess(time.monotonic(), deadline)
                await deferLater(clock, 0.5)

    async def fails(self, driver: S3Driver) -> None:
        """Nothing is missing, only out of reach."""
        for verb in (
            lambda: driver.stat("blob"), lambda: driver.read("blob", 100), lambda: self.content(driver, "blob"),
            lambda: driver.put("other", b"1"), lambda: driver.list(""), lambda: driver.peek("uploads/1"),
        ):  # fmt: skip
            with self.assertRaises(Unavailable):
                await verb()

    async def test_cut_in_the_middle_of_a_read(self):
        await self.plain.put("blob", self.data)
        self.proxy.cut(up=False, after=5 * MIB, times=2)
        self.assertEqual(await self.content(self.store, "blob"), self.data)
        self.assertEqual(self.proxy.cuts, 2)

    async def test_cut_in_each_read(self):
        self.data *= 4  # more than the buffers of the line hold
        await self.plain.put("blob", self.data)
        reader = await self.store.open("blob")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        pieces = [await chunks.__anext__()]
        self.proxy.cut(up=False, after=100, times=10**6)  # less than the head of an answer
        with self.assertRaises(Unavailable):
            while True:
                pieces.append(await chunks.__anext__())
        chunks.close()
        self.assertTrue(self.data.startswith(b"".join(pieces)))
        await self.fails(self.store)

    async def test_cut_anywhere_in_an_answer(self):
        """What is there is never missing, empty or shorter, wherever its answer ends."""
        await self.plain.put("folder/blob", b"content")
        told = 0
        for after in range(0, 1500, 29):
            for verb, expected in (
                (lambda: self.store.read("folder/blob", 100), b"content"),
                (lambda: self.store.list("folder"), "blob"),
                (lambda: self.store.settle("folder/blob"), None),
            ):
                self.proxy.cut(up=False, after=after, times=10**6)
                try:
                    found: Any = await verb()
                except Unavailable:
                    told += 1
                    continue
                if isinstance(found, Page):
                    found = found.entries[0].name
                elif isinstance(found, tuple):
                    found = found[0]
                self.assertEqual(found, expected, after)
        self.assertGreater(told, 20)

    async def test_cut_in_the_middle_of_a_write(self):
        self.proxy.cut(up=True, after=4 * MIB)
        await self.push(self.store)
        self.assertEqual(self.proxy.cuts, 1)
        await self.is_whole()

    async def test_cut_in_each_write(self):
        self.proxy.cut(up=True, after=3 * MIB, times=10**6)
        with self.assertRaises(Unavailable):
            await self.push(self.store)
        self.proxy.mend()
        await self.is_gone_on_with()

    async def test_the_answer_to_a_commit_is_lost(self):
        """Then nobody knows whether it happened; to do it again does no harm."""
        events = self.store.bucket.connection.copying.meta.events

        def once(**_: object) -> None:
            events.unregister("before-send.s3.CompleteMultipartUpload", once)
            self.proxy.cut(up=False, after=0)

        events.register("before-send.s3.CompleteMultipartUpload", once)
        try:
            await self.push(self.store)
        except Unavailable:
            partial = await self.held(self.plain, "uploads/1")
            await partial.write([self.data[partial.offset :]], partial.offset)
            await partial.commit("blobs/1")
        self.assertEqual(self.proxy.cuts, 1)
        await self.is_whole()

    async def test_slow(self):
        self.proxy.pause = 0.2
        await self.push(self.store)
        await self.is_whole()

    async def test_answers_that_do_not_come(self):
        self.patch(connection, "READ_SECONDS", 1)
        await self.plain.put("blob", self.data)
        store = self.driver(self.through_proxy())
        reader = await store.open("blob")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        pieces = [await chunks.__anext__()]
        self.proxy.silent = True
        clock.callLater(1.5, self.proxy.mend)
        pieces += [piece async for piece in chunks]  # taken up again where it hung
        self.assertEqual(b"".join(pieces), self.data)
        self.proxy.silent = True
        for verb in (lambda: store.stat("blob"), lambda: store.put("other", b"1")):
            with self.assertRaises(Unavailable):
                await verb()

    async def test_a_commit_takes_long(self):
        """Servers that copy may answer late; asked again they would do it twice, and say that they cannot."""
        self.patch(connection, "READ_SECONDS", 1)
        store = self.driver(self.through_proxy())
        asked: list[None] = []

        def hang(**_: object) -> None:
            asked.append(None)
            self.proxy.silent = True
            clock.callFromThread(clock.callLater, 3, self.proxy.mend)

        store.bucket.connection.copying.meta.events.register("before-send.s3.CompleteMultipartUpload", hang)
        await self.push(store)
        self.assertEqual(len(asked), 1)
        await self.is_whole()

    async def test_credentials_that_end(self):
        await self.plain.put("blob", self.data)
        partial = await self.plain.partial("uploads/1", create=True)
        await partial.write([self.data[:MIB]], 0)
        await partial.checkpoint(b"state")
        await partial.write([self.data[MIB:]], MIB)
        self.server.kill()
        self.server.secret = "another-secret"
        self.server.start()
        with self.assertRaises(Unavailable):
            await partial.commit("blobs/1")
        await partial.close()
        await self.fails(self.plain)
        self.server.kill()
        self.server.secret = SECRET
        self.server.start()
        await self.plain.remove("blob")
        await self.is_gone_on_with()


class MinioLineTests(LineTests):
    kind = MinioServer


class StalledTests(WithServer):
    """A process that holds an upload is stopped, overtaken by another one, and goes on."""

    def worker(self, bucket: str) -> Worker:
        worker = Worker(self.server.endpoint, bucket, KEY, SECRET)
        self.addCleanup(worker.end)
        return worker

    def test_what_was_acknowledged_is_there(self):
        self.server.make_bucket("bucket")
        for number, (late, ended) in enumerate(
            (late, ended) for late in ("write", "checkpoint", "commit") for ended in (False, True)
        ):
            session, blob = f"uploads/{number}", f"blobs/{number}"
            stalled, other = self.worker("bucket"), self.worker("bucket")
            stalled.ask("hold", session, True)
            stalled.ask("write", 1, 6 * MIB)
            stalled.ask("checkpoint", "state")
            stalled.ask("write", 2, 6 * MIB)
            expected = random.Random(1).randbytes(6 * MIB)
            os.kill(stalled.pid, signal.SIGSTOP)
            deadline = time.monotonic() + 30
            while (held := other.ask("hold", session, False)) == {"error": "Busy"}:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.25)
            self.assertEqual(held, len(expected))
            other.ask("write", 3, 6 * MIB)
            other.ask("checkpoint", "later")
            expected += random.Random(3).randbytes(6 * MIB)
            if ended:
                self.assertIsNone(other.ask("commit", blob))
            os.kill(stalled.pid, signal.SIGCONT)
            stalled.ask("clock", 8.0)  # its own clock is made of steps
            arguments = {"write": (4, 6 * MIB), "checkpoint": ("late",), "commit": ("blobs/late",)}[late]
            self.assertEqual(stalled.ask(late, *arguments), {"error": "LostRace"})
            self.assertIsNone(stalled.ask("close"))
            if not ended:
                self.assertIsNone(other.ask("commit", blob))
            bucket = self.bucket("bucket", root="")
            self.assertEqual(bucket.get(blob)[0], expected)
            self.assertEqual([key for key, _ in bucket.keys("")], [f"blobs/{each}" for each in range(number + 1)])
            self.assertEqual(bucket.uploads(), [])
