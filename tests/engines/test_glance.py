"""The Glance driver with a real Glance, open to all and behind Keystone, with alternates of several kinds.

Glance is killed, hidden and cut off while it is in use; the figures that this gives are printed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.clients.tools import missing
from tests.running import environment
from tests.services.glance import Glance, shared_glance, shared_glance_of_keystone
from tests.services.keystone import Keystone
from tests.services.proxy import Proxy
from tests.storage.glance.moving import MovingDriver, SuitePlaces
from txregistry.cli.main import main
from txregistry.concurrency import start
from txregistry.errors import NotFound, StorageError, Unavailable
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import Digest
from txregistry.storage import layout
from txregistry.storage.factory import open_driver
from txregistry.storage.glance.client import Glance as Client
from txregistry.storage.glance.driver import GlanceDriver
from txregistry.storage.glance.options import from_keys
from txregistry.storage.glance.places import DIGEST, IMAGE_ID, Places
from txregistry.storage.openstack.treq_http import TreqHttp
from txregistry.storage.pool import Pool
from txregistry.testing.drivers import DriverSuite

clock: Any = reactor
MIB = 1 << 20
ID = "a" * 64
LAYER = f"images/{ID}/layer"
#: Seconds of a token that ends in the middle of a test; Glance has one of its own, with which it looks at ours.
SHORT = 10
JSON = json.dumps({"id": ID, "comment": "é"})


class Gate(Proxy):
    """A proxy that may be shut: then it takes connections only to end them."""

    def __init__(self, target: int) -> None:
        self._real = target
        super().__init__(target)

    def shut(self) -> None:
        """Let nothing through, and end what is on its way."""
        self._target = 1
        with self._lock:
            ends = list(self._open)
        for end in ends:
            self._end(end)

    def open(self) -> None:
        """Let everything through."""
        self._target = self._real


class WithGlance(TestCase):
    timeout = 900
    with_keystone = False

    def setUp(self) -> None:
        if importlib.util.find_spec("treq") is None:
            raise missing("treq is not installed")
        self.server = self.glance()
        self.server.clear()
        self.root = str(Path(self.mktemp()).absolute())

    def glance(self) -> Glance:
        return shared_glance_of_keystone() if self.with_keystone else shared_glance()

    def keys(self, **changed: Any) -> dict[str, Any]:
        """The configuration."""
        if self.server.keystone is None:
            return {"storage_alternate": "local", "os_glance_url": self.server.url, **changed}
        who = dict.fromkeys(("os_username", "os_password", "os_project_name"), "registry")
        return {"storage_alternate": "local", "os_auth_url": self.server.keystone.url, **who, **changed}

    def client(self, **changed: Any) -> Client:
        return from_keys(self.keys(**changed)).client(TreqHttp(reactor))

    def alternate(self, pool: Pool) -> Any:
        return open_driver("local", self.root, pool, reactor)

    def driver(self, kind: type[GlanceDriver] = GlanceDriver, places: Places | None = None, **changed: Any) -> Any:
        """A driver on the store of this test, which does nothing by itself."""
        pool = Pool(clock, 4, 2)
        alternate = self.alternate(pool)
        alternate.prepare()
        driver = kind(alternate, self.client(**changed), pool, reactor, places)
        self.addCleanup(pool.stop)
        self.addCleanup(driver.close)
        return driver

    async def push(self, driver: IStorageDriver, path: str, data: bytes) -> None:
        partial = await driver.partial(f"uploads/{random.randbytes(8).hex()}", create=True)
        try:
            for begin in range(0, len(data), MIB):
                await partial.write([data[begin : begin + MIB]], begin)
            await partial.commit(path)
        finally:
            await partial.close()

    async def content(self, driver: IStorageDriver, path: str) -> bytes:
        reader = await driver.open(path)
        try:
            return b"".join([piece async for piece in reader.chunks(0, reader.size)])
        finally:
            reader.close()

    async def images(self, driver: GlanceDriver) -> list[Any]:
        return [each for each in await driver.client.find({}) if "txregistry" not in each.properties]


class Suite(DriverSuite):
    """What every engine must do, with all that is whole in Glance before it is looked at."""

    def make_driver(self) -> Any:
        return self.driver(MovingDriver, SuitePlaces())  # type: ignore[attr-defined]  # with a Glance

    def sibling(self, driver: IStorageDriver) -> Any:
        return self.make_driver()

    async def stall(self, driver: IStorageDriver, path: str) -> None:
        then = time.time() - 8
        for folder, _, names in os.walk(Path(self.root) / path):  # type: ignore[attr-defined]  # as above
            for name in names:
                os.utime(Path(folder) / name, (then, then))

    async def fill(self, driver: IStorageDriver, prefix: str, names: list[str]) -> None:
        for at in range(0, len(names), 50):
            await gatherResults([driver.put(f"{prefix}/{name}", b"1") for name in names[at : at + 50]])


class SuiteTests(Suite, WithGlance):
    """Open to all, with local files."""


class KeystoneSuiteTests(Suite, WithGlance):
    """Behind Keystone."""

    with_keystone = True


class S3SuiteTests(Suite, WithGlance):
    """With a bucket as the alternate."""

    def setUp(self) -> None:
        super().setUp()
        if importlib.util.find_spec("boto3") is None:
            raise missing("boto3 is not installed")
        from tests.services.s3 import KEY, SECRET, S3Server

        self.bucket = S3Server(self.mktemp())
        self.addCleanup(self.bucket.stop)
        self.made = 0
        self.access: dict[str, Any] = {"access_key": KEY, "secret_key": SECRET}
        self.ahead = 0.0

    def make_driver(self) -> Any:
        self.made += 1
        self.bucket.make_bucket(f"bucket-{self.made}")
        return self.driver(MovingDriver, SuitePlaces())

    def sibling(self, driver: IStorageDriver) -> Any:
        return self.driver(MovingDriver, SuitePlaces())

    def alternate(self, pool: Pool) -> Any:
        from txregistry.storage.s3.bucket import Bucket
        from txregistry.storage.s3.driver import S3Driver
        from txregistry.storage.s3.options import S3Options

        options = S3Options(
            bucket=f"bucket-{self.made}",
            endpoint=self.bucket.endpoint,
            root="some/root/",
            path_style=True,
            **self.access,
        )
        return S3Driver(Bucket(options), pool, self)

    def seconds(self) -> float:
        return time.time() + self.ahead

    async def stall(self, driver: IStorageDriver, path: str) -> None:
        from txregistry.storage.segmented.names import home

        then = time.time() - 8
        for record in (self.bucket.data / f"bucket-{self.made}" / "some/root" / home(path) / "records").iterdir():
            os.utime(record, (then, then))
        self.ahead += 8


class OldTests(WithGlance):
    """What docker-registry wrote through version 1 of the API."""

    async def test_it_is_served(self) -> None:
        data = random.Random(1).randbytes(3 * MIB)
        self.server.write_v1(ID, {"meta_json": JSON, "meta_ancestry": json.dumps([ID]), "meta__files": "[]"}, data)
        self.server.write_v1("b" * 64, {"meta_json": JSON.replace(ID, "b" * 64), "meta__inprogress": "true"}, b"half")
        for number in range(50):
            known = f"{number:064x}"
            self.server.write_v1(known, {"meta_json": JSON.replace(ID, known)}, known.encode())
        driver = self.driver()
        self.assertEqual((await driver.read(f"images/{ID}/json", 1000))[0], JSON.encode())
        self.assertEqual(await self.content(driver, LAYER), data)
        self.assertEqual(len((await driver.list("images")).entries), 52)
        self.assertEqual((await driver.read(f"images/{'b' * 64}/_inprogress", 10))[0], b"true")
        self.assertEqual(await self.content(driver, f"images/{49:064x}/layer"), f"{49:064x}".encode())
        await driver.remove(f"images/{ID}")
        self.assertEqual(await driver.background.round(), "")
        await driver.adoption.scan()
        with self.assertRaises(NotFound):
            await driver.stat(LAYER)
        self.assertEqual(len(await self.images(driver)), 51)


class ForeignTests(WithGlance):
    """A public image of another project, with the properties that we look for."""

    with_keystone = True

    async def test_it_is_never_served(self) -> None:
        data = b"evil"
        digest = Digest("sha256", hashlib.sha256(data).hexdigest())
        other = self.client(os_username="admin", os_password="admin", os_project_name="admin")
        for number, properties in enumerate(({IMAGE_ID: ID, "meta_json": JSON}, {DIGEST: str(digest)})):
            image = f"00000000-0000-4000-8000-{number:012}"

            async def pieces() -> Any:
                yield data

            from txregistry.storage.openstack.http import Upload

            await other.create(image, {**properties, "visibility": "public"})
            await other.upload(image, lambda: Upload(len(data), pieces()))
        await other.close()
        # It is shown to us, and by a search for its properties alone it would be found.
        mine = self.client()
        token = await mine._keystone.token()  # type: ignore[union-attr]  # there is one
        seen = json.loads(self.server.request("GET", f"/v2/images?{IMAGE_ID}={ID}", token=token))["images"]
        self.assertEqual(len(seen), 1)
        await mine.close()
        served = 0
        for node in (self.driver(), self.driver()):
            for path in (LAYER, f"images/{ID}/json", layout.blob_data(digest)):
                for verb in (node.open, node.stat, node.settle):
                    try:
                        await verb(path)
                        served += 1
                    except NotFound:
                        pass
        print(f"a foreign public image with our properties: served {served} of 18 times")
        self.assertEqual(served, 0)
        driver = self.driver()
        await self.push(driver, LAYER, b"ours")
        self.assertEqual(await driver.background.round(), "")
        self.assertEqual(await self.content(driver, LAYER), b"ours")


class TokenTests(WithGlance):
    """Tokens that end after a few seconds."""

    with_keystone = True

    def glance(self) -> Glance:
        keystone = Keystone()
        # Only now: to fill it takes longer than such a token lives.
        keystone.kill()
        keystone._configure(SHORT)
        keystone.start()
        return Glance(keystone)

    async def test_they_are_renewed(self) -> None:
        self.addCleanup(self.server.stop)
        assert self.server.keystone is not None
        self.addCleanup(self.server.keystone.stop)
        driver = self.driver()
        # Believed to be good for ever: so it is Glance that says when it is not.
        tokens = driver.client._keystone._tokens
        until = time.time() + 12 * SHORT
        number = 0
        seen: set[str] = set()
        while len(seen) < 3 and time.time() < until:
            data = random.Random(number).randbytes(MIB)
            path = f"images/{number:064x}/layer"
            await self.push(driver, path, data)
            self.assertEqual(await driver.background.round(), "")
            self.assertEqual(await self.content(driver, path), data)
            tokens._renew_at = tokens._end = clock.seconds() + 1000
            seen.add((await tokens.session()).token)
            number += 1
        self.assertEqual(len(seen), 3)


class OutageTests(WithGlance):
    async def served(self, driver: GlanceDriver, path: str) -> Any:
        """The bytes of an object, None for nothing, "unavailable"."""
        try:
            return await self.content(driver, path)
        except NotFound:
            return None
        except Unavailable:
            return "unavailable"

    async def look(self, nodes: list[Any], expected: dict[str, bytes | None]) -> Counter[str]:
        figures: Counter[str] = Counter()
        for path, data in expected.items():
            for node in nodes:
                found = await self.served(node, path)
                if found == data:
                    figures["right"] += 1
                elif found == "unavailable":
                    figures["unavailable"] += 1
                else:
                    figures["risen" if data is None else "lost" if found is None else "old"] += 1
        return figures

    async def test_a_hundred_rounds(self) -> None:
        """Glance goes and comes around writes, overwrites and deletes, by two servers; in five rounds it is killed."""
        gate, figures, chance = Gate(self.server.port), Counter[str](), random.Random(7)
        self.addCleanup(gate.stop)
        nodes = [self.driver(os_glance_url=f"http://127.0.0.1:{gate.port}") for _ in range(2)]
        self.assertEqual(await nodes[0].background.round(), "")
        paths = [f"images/{number:064x}/layer" for number in range(5)]
        expected: dict[str, bytes | None] = dict.fromkeys(paths)
        for number in range(100):
            kills = number % 20 == 19
            out = chance.random() < 0.6
            if kills:
                self.server.kill()
            elif out:
                gate.shut()
            elif chance.random() < 0.5:
                gate.cut(up=chance.random() < 0.5, after=chance.randrange(200_000))
            for path in chance.sample(paths, 2):
                node = chance.choice(nodes)
                if chance.random() < 0.7:
                    data = chance.randbytes(chance.choice([0, 10, 100_000, 300_000]))
                    await self.push(node, path, data)
                    expected[path] = data
                    figures["writes"] += 1
                elif expected[path] is not None:
                    await node.remove(path)
                    expected[path] = None
                    figures["deletes"] += 1
                try:
                    await gatherResults([start(each.background.round()) for each in nodes], consumeErrors=True)
                except Exception as error:
                    inner: Any = error
                    while hasattr(inner, "subFailure"):
                        inner = inner.subFailure.value
                    self.assertIsInstance(inner, StorageError)
                    figures["rounds that failed"] += 1
            figures += await self.look(nodes, expected)
            if kills:
                await deferToThread(self.server.start)
            gate.mend()
            gate.open()
            if chance.random() < 0.5:
                await chance.choice(nodes).background.round()
                figures += await self.look(nodes, expected)
        told: list[str] = []
        found = await nodes[0].reconcile(told.append)
        figures += await self.look(nodes, expected)
        print(
            f"100 rounds of Glance down and up: {figures['writes']} writes, {figures['deletes']} deletes;"
            f" of {figures['right'] + figures['unavailable']} reads {figures['unavailable']} unavailable;"
            f" old state served {figures['old']}, deleted things risen {figures['risen']}, lost {figures['lost']}"
        )
        self.assertEqual((figures["old"], figures["risen"], figures["lost"]), (0, 0, 0))
        self.assertEqual((found.left, found.lost), ((), ()), told)
        self.assertGreater(figures["right"], 500)
        self.assertGreater(figures["unavailable"], 20)
        alive = [path for path, data in expected.items() if data is not None]
        self.assertEqual(len(await self.images(nodes[0])), len(alive))
        left = [path async for path in nodes[0].records.walk("", "_txregistry/state/glance/bytes")]
        self.assertEqual(left, [])

    async def test_a_large_image_cut_off_while_it_is_sent_and_read(self) -> None:
        gate = Gate(self.server.port)
        self.addCleanup(gate.stop)
        driver = self.driver(os_glance_url=f"http://127.0.0.1:{gate.port}")
        data = random.Random(3).randbytes(24 * MIB)
        await self.push(driver, LAYER, data)
        for _ in range(2):
            gate.cut(up=True, after=10 * MIB)
            self.assertNotEqual(await driver.background.round(), "")
            self.assertEqual(await self.content(driver, LAYER), data)
        self.assertEqual(await driver.background.round(), "")
        gate.cut(up=False, after=5 * MIB, times=3)
        self.assertEqual(await self.content(driver, LAYER), data)
        self.assertEqual(gate.cuts, 5)
        self.assertEqual(len(await self.images(driver)), 1)


class CommandTests(WithGlance):
    """`txregistry storage check` and `txregistry reconcile`."""

    def config(self, **changed: Any) -> str:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        keys = {"storage": "glance", "storage_path": self.root, **self.keys(), **changed}
        (folder / "config.yml").write_text(f"dev: {json.dumps(keys)}\n")
        return str(folder / "config.yml")

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """A command in this process, which may not need a reactor."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(arguments)
        return status, out.getvalue(), err.getvalue()

    async def reconcile(self, config: str) -> tuple[int, str, str]:
        """The command in a process of its own."""

        def run() -> tuple[int, str, str]:
            done = subprocess.run(
                [sys.executable, "-m", "txregistry.cli.main", "reconcile", config],
                env=environment(Path(config).parent),
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            return done.returncode, done.stdout, done.stderr

        result: tuple[int, str, str] = await deferToThread(run)
        return result

    def test_check(self) -> None:
        status, out, err = self.command("storage", "check", self.config())
        self.assertEqual((status, err), (0, ""))
        for line in out.splitlines():
            self.assertRegex(line, r"^[a-zA-Z0-9 ]+ +[0-9.]+ ms$")
        self.assertIn("12 MiB through Glance", out)

    def test_what_is_wrong_is_one_line(self) -> None:
        for changed, text in (
            ({"os_glance_url": "http://127.0.0.1:1"}, "refused"),
            ({"os_auth_url": "http://127.0.0.1:1", "os_username": "u"}, "os_password and os_project_name"),
            ({"os_glance_url": f"{self.server.url}/versions"}, "does not answer as Glance does"),
        ):
            status, out, err = self.command("storage", "check", self.config(**changed))
            self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
            self.assertIn(text, err)

    async def test_reconcile(self) -> None:
        driver, config = self.driver(), self.config()
        self.assertEqual(await driver.background.round(), "")
        self.server.kill()
        contents = {f"images/{n:064x}/layer": random.Random(n).randbytes(n * 100_000) for n in range(8)}
        for path, data in contents.items():
            await self.push(driver, path, data)
            self.assertEqual(await self.content(driver, path), data)
        status, out, err = await self.reconcile(config)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
        await deferToThread(self.server.start)
        status, out, err = await self.reconcile(config)
        self.assertEqual((status, err), (0, ""))
        figures = dict(line.split(": ") for line in out.splitlines())
        print(f"after an outage: objects moved {figures['objects moved']}, lost {figures['lost']}")
        self.assertEqual((figures["objects moved"], figures["lost"]), ("8", "0"))
        for path, data in contents.items():
            self.assertEqual(await self.content(driver, path), data)
        self.assertEqual(len(await self.images(driver)), 8)

    async def test_beside_a_running_server(self) -> None:
        """Both move what is left to move, and nothing is moved twice or lost."""
        driver, config = self.driver(), self.config()
        contents = {f"images/{n:064x}/layer": random.Random(n).randbytes(300_000) for n in range(12)}
        for path, data in contents.items():
            await self.push(driver, path, data)
        driver.background.start()
        status, out, err = await self.reconcile(config)
        self.assertEqual((status, err), (0, ""), out)
        figures = dict(line.split(": ") for line in out.splitlines())
        self.assertEqual(driver.mover.moved + int(figures["objects moved"]), 12)
        for path, data in contents.items():
            self.assertEqual(await self.content(driver, path), data)
        self.assertEqual(len(await self.images(driver)), 12)


class KeystoneCommandTests(CommandTests):
    with_keystone = True

    def test_what_is_wrong_is_one_line(self) -> None:
        assert self.server.keystone is not None
        for changed, text in (
            ({"os_password": "wrong-Sesam"}, "refuses user registry"),
            ({"os_auth_url": "http://127.0.0.1:1"}, "does not answer"),
            ({"os_region_name": "Nowhere"}, "no public address of image in region Nowhere"),
            ({"os_auth_url": self.server.url}, "Keystone"),
        ):
            status, out, err = self.command("storage", "check", self.config(**changed))
            self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
            self.assertIn(text, err)
            self.assertNotIn("Sesam", err)
