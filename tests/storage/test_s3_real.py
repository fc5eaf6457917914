"""The S3 driver with a real server, which checks signatures, and which is killed while it is in use."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import random
import time
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.clients.tools import missing
from tests.services.s3 import KEY, SECRET, S3Server
from txregistry.cli.main import main
from txregistry.concurrency import start
from txregistry.errors import StorageError, Unavailable
from txregistry.interfaces import IStorageDriver
from txregistry.storage.pool import Pool
from txregistry.testing.drivers import DriverSuite

if importlib.util.find_spec("boto3") is not None:
    from txregistry.storage.s3.bucket import Bucket
    from txregistry.storage.s3.driver import S3Driver
    from txregistry.storage.s3.options import S3Options
    from txregistry.storage.s3.partial import home

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

    def setUp(self):
        if importlib.util.find_spec("boto3") is None:
            raise missing("boto3 is not installed")
        self.wall = Wall()
        self.server = S3Server(self.mktemp())
        self.addCleanup(self.server.stop)

    def bucket(self, name: str | None = None, **options: Any) -> Bucket:
        """A client of a bucket, a new one unless it is named."""
        if name is None:
            name = f"bucket-{next(_numbers)}"
            self.server.make_bucket(name)
        given = {"access_key": KEY, "secret_key": SECRET, "root": "some/root/", "path_style": True, **options}
        return Bucket(S3Options(bucket=name, endpoint=self.server.endpoint, **given))

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


class SignedTests(WithServer):
    async def test_an_address_is_good_for_its_object_alone(self):
        driver = self.driver(self.bucket())
        await driver.put("a b/c+d", b"signed")
        await driver.put("other", b"secret")
        url = await driver.redirect("a b/c+d", 60)

        def fetch(address: str) -> bytes | int:
            try:
                with urllib.request.urlopen(address) as answer:
                    data: bytes = answer.read()
                    return data
            except urllib.error.HTTPError as error:
                return error.code

        self.assertEqual(await deferToThread(fetch, url), b"signed")
        address, _, query = url.partition("?")
        self.assertEqual(await deferToThread(fetch, address), 403)
        self.assertEqual(await deferToThread(fetch, f"{address.rpartition('/a')[0]}/other?{query}"), 403)


class CommandTests(WithServer):
    """`txregistry storage check`."""

    def check(self, bucket: str, **keys: str) -> tuple[int, str, str]:
        given = {
            "storage_path": "/prod",
            "boto_bucket": bucket,
            "s3_access_key": KEY,
            "s3_secret_key": SECRET,
            "s3_endpoint": self.server.endpoint,
            **keys,
        }
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(f"dev: {json.dumps({'storage': 's3', **given})}\n")
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
