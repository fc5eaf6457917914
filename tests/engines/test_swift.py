"""The Swift driver with a real Swift, signed in by version 1 and with Keystone, which is killed while it is in use."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import random
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.clients.tools import missing
from tests.services.swift import KEY, USER, Swift, shared_swift
from txregistry.cli.main import main
from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound, StorageError, Unavailable
from txregistry.storage.openstack.keystone import KeystoneOptions
from txregistry.storage.openstack.treq_http import TreqHttp
from txregistry.storage.pool import Pool
from txregistry.storage.segmented.names import home
from txregistry.storage.swift.connection import Connection
from txregistry.storage.swift.container import Container
from txregistry.storage.swift.driver import SwiftDriver
from txregistry.storage.swift.options import SwiftOptions, TempAuthOptions
from txregistry.storage.swift.segments import SEGMENTS, SMALLEST, group_of
from txregistry.testing.drivers import DriverSuite

clock: Any = reactor
_numbers = itertools.count()

MIB = 1 << 20


class Wall:
    """The clock on the wall, which a test may put forward."""

    ahead = 0.0

    def seconds(self) -> float:
        return time.time() + self.ahead


class WithServer(TestCase):
    timeout = 600
    with_keystone = False

    def setUp(self):
        if importlib.util.find_spec("treq") is None:
            raise missing("treq is not installed")
        self.wall = Wall()
        self.server = self.swift()

    def swift(self) -> Swift:
        return shared_swift(self.with_keystone)

    def container(self, name: str | None = None, **changed: Any) -> Container:
        """A client of a container, a new one unless it is named."""
        if name is None:
            name = f"container {next(_numbers)}"
            self.server.make_container(name.replace(" ", "%20"))
        auth: TempAuthOptions | KeystoneOptions
        if self.server.keystone is not None:
            given = {"username": "registry", "password": "registry", "project_name": "registry", **changed}
            auth = KeystoneOptions(auth_url=self.server.auth_url, **given)
        else:
            auth = TempAuthOptions(auth_url=self.server.auth_url, **{"user": USER, "key": KEY, **changed})
        options = SwiftOptions(container=name, auth=auth, root="some/root/")
        return Container(Connection(options, TreqHttp(reactor)))

    def driver(self, container: Container) -> SwiftDriver:
        pool = Pool(clock, 2, 2)
        driver = SwiftDriver(container, pool, self.wall)
        self.addCleanup(pool.stop)
        self.addCleanup(driver.close)
        return driver

    def make_driver(self) -> SwiftDriver:
        return self.driver(self.container())

    def sibling(self, driver: Any) -> SwiftDriver:
        return self.driver(self.container(driver.container.connection.options.container))

    async def stall(self, driver: Any, path: str) -> None:
        # The server's clock says when a record was written. An answer's Date is in whole seconds.
        container = driver.container
        name = container.connection.options.container
        await deferToThread(self.server.age, name, f"{container.root}{home(path)}records/", 8.0)
        self.wall.ahead += 8

    async def keys(self, driver: SwiftDriver) -> list[str]:
        return [each.key for each in await driver.container.keys("")]

    async def content(self, driver: SwiftDriver, path: str) -> bytes:
        reader = await driver.open(path)
        try:
            return b"".join([piece async for piece in reader.chunks(0, reader.size)])
        finally:
            reader.close()


class SuiteTests(WithServer, DriverSuite):
    """What every engine must do."""

    async def fill(self, driver: SwiftDriver, prefix: str, names: list[str]) -> None:  # type: ignore[override] # as made
        for at in range(0, len(names), 16):
            await gatherResults([driver.put(f"{prefix}/{name}", b"1") for name in names[at : at + 16]])


class KeystoneSuiteTests(SuiteTests):
    """The same, signed in with Keystone."""

    with_keystone = True


def pieces_of(seed: int, size: int) -> Iterator[bytes]:
    """So many bytes in pieces of a MiB."""
    source = random.Random(seed)
    for begin in range(0, size, MIB):
        yield source.randbytes(min(MIB, size - begin))


class LargeTests(WithServer):
    """Objects of several segments."""

    async def upload(self, driver: SwiftDriver, number: int, size: int, target: str) -> None:
        partial = await driver.partial(f"uploads/{number}", create=True)
        try:
            for piece in pieces_of(number, size):
                await partial.write([piece], partial.offset)
            await partial.commit(target)
        finally:
            await partial.close()

    async def same(self, driver: SwiftDriver, path: str, number: int, size: int) -> None:
        reader = await driver.open(path)
        self.addCleanup(reader.close)
        self.assertEqual(reader.size, size)
        whole = b"".join(pieces_of(number, size))
        for begin, end in ((0, size), (size // 2 - 5, size), (SMALLEST - 3, min(size, SMALLEST + 3))):
            found = b"".join([piece async for piece in reader.chunks(begin, end)])
            self.assertEqual(found == whole[begin:end], True, (path, begin, end))

    async def test_around_the_end_of_a_segment(self):
        driver = self.make_driver()
        for number, size in enumerate([SMALLEST - 1, SMALLEST, SMALLEST + 1, 3 * SMALLEST, 3 * SMALLEST + 7]):
            await self.upload(driver, number, size, f"blobs/{number}")
            await self.same(self.sibling(driver), f"blobs/{number}", number, size)
            self.assertEqual((await driver.stat(f"blobs/{number}")).size, size)
        for number in range(5):
            await driver.remove(f"blobs/{number}")
        self.assertEqual(await self.keys(driver), [])

    async def test_moved(self):
        driver = self.make_driver()
        await self.upload(driver, 1, 20 * MIB, "a/layer")
        await self.upload(driver, 2, 20 * MIB, "b/layer")
        await driver.move("a/layer", "b/layer")
        await self.same(driver, "b/layer", 1, 20 * MIB)
        with self.assertRaises(NotFound):
            await driver.stat("a/layer")
        self.assertGreater(await driver.sweep(time.time() + 60), 1)
        await self.same(driver, "b/layer", 1, 20 * MIB)
        await driver.remove("b")
        self.assertEqual(await self.keys(driver), [])

    async def test_replaced(self):
        driver = self.make_driver()
        for number in (1, 2):
            await self.upload(driver, number, 20 * MIB, "blob")
        await self.same(driver, "blob", 2, 20 * MIB)
        await driver.sweep(time.time() + 60)
        await self.same(driver, "blob", 2, 20 * MIB)
        await self.upload(driver, 3, 5, "blob")
        await driver.sweep(time.time() + 60)
        self.assertEqual(await self.keys(driver), ["blob"])
        await driver.remove("blob")

    async def test_reopened_by_another_at_a_boundary(self):
        driver, size = self.make_driver(), 4 * SMALLEST + 3 * MIB
        pieces = list(pieces_of(7, size))
        partial = await driver.partial("uploads/one", create=True)
        done = 0
        for step in (1, 7, 8, 4, 15):  # short of a segment, at its end, and beyond
            for piece in pieces[done : done + step]:
                await partial.write([piece], partial.offset)
            done += step
            await partial.checkpoint(b"%d" % done)
            await partial.close()
            driver = self.sibling(driver)
            partial = await driver.partial("uploads/one")
            self.assertEqual((partial.offset, partial.state), (min(size, done * MIB), b"%d" % done))
        seen: list[bytes] = []
        await partial.read(seen.extend)
        self.assertEqual(b"".join(seen) == b"".join(pieces), True)
        await partial.commit("blob")
        await self.same(driver, "blob", 7, size)
        left = [key for key in await self.keys(driver) if not key.startswith(group_of("uploads/one"))]
        self.assertEqual(left, ["blob"])

    async def test_stalled_commit_is_overtaken(self):
        driver = self.make_driver()
        stalled = await driver.partial("uploads/one", create=True)
        for piece in pieces_of(1, 2 * SMALLEST):
            await stalled.write([piece], stalled.offset)
        await stalled.checkpoint(b"")
        for piece in pieces_of(2, 2 * SMALLEST):
            await stalled.write([piece], stalled.offset)
        await self.stall(driver, "uploads/one")
        other = self.sibling(driver)
        taker = await other.partial("uploads/one")
        self.assertEqual(taker.offset, 2 * SMALLEST)
        with self.assertRaises(LostRace):
            await stalled.commit("blob")
        await stalled.close()
        with self.assertRaises(NotFound):
            await other.stat("blob")
        await taker.commit("blob")
        await self.same(other, "blob", 1, 2 * SMALLEST)
        await other.remove("blob")
        self.assertEqual(await self.keys(other), [])

    async def test_a_gibibyte(self):
        driver, zeros, size = self.make_driver(), bytes(MIB), 1 << 30
        partial = await driver.partial("uploads/one", create=True)
        for at in range(0, size, MIB):
            await partial.write([b"x" + zeros[1:]] if at == size // 2 else [zeros], at)
        await partial.commit("blob")
        reader = await driver.open("blob")
        self.addCleanup(reader.close)
        self.assertEqual(reader.size, size)
        at, other = 0, []
        async for piece in reader.chunks(0, size):
            if piece.strip(b"\0"):
                other.append(at + piece.index(b"x"))
            at += len(piece)
        self.assertEqual((at, other), (size, [size // 2]))
        await driver.remove("blob")
        self.assertEqual(await self.keys(driver), [])

    async def test_manifests_of_manifests(self):
        driver, count = self.make_driver(), 30
        self.patch(importlib.import_module("txregistry.storage.swift.segments"), "ENTRIES", 5)
        self.patch(importlib.import_module("txregistry.storage.swift.segments"), "SMALLEST", MIB)
        await self.upload(driver, 9, count * MIB + 5, "blob")
        await self.same(driver, "blob", 9, count * MIB + 5)
        await driver.sweep(time.time() + 60)
        await self.same(driver, "blob", 9, count * MIB + 5)
        await driver.remove("blob")
        self.assertEqual(await self.keys(driver), [])


class KeystoneTests(WithServer):
    """Tokens that end."""

    with_keystone = True

    async def test_a_token_that_is_refused_is_renewed(self):
        driver = self.make_driver()
        await driver.put("a", b"1")
        account = driver.container.connection.account
        token = await account.token()
        tokens = account._signs_in._tokens
        session = await tokens.session()
        tokens._session = replace(session, token="gAAAAAB-which-nobody-knows")
        found = await gatherResults([driver.read("a", 10) for _ in range(5)])
        self.assertEqual({data for data, _ in found}, {b"1"})
        self.assertNotIn(await account.token(), (token, "gAAAAAB-which-nobody-knows"))

    async def test_an_application_credential(self):
        assert self.server.keystone is not None
        number, secret = await deferToThread(self.server.keystone.application_credential, "registry")
        given = {"username": None, "password": None, "project_name": None}
        for tried, fine in ((secret, True), ("wrong-secret", False)):
            credential = {"application_credential_id": number, "application_credential_secret": tried}
            driver = self.driver(self.container("nowhere", **given, **credential))
            with self.assertRaises(Unavailable) as caught:
                await driver.put("a", b"1")
            self.assertEqual("there is no" in caught.exception.reason or "404" in caught.exception.reason, fine)
            self.assertNotIn(tried, caught.exception.reason)


class TempAuthTests(WithServer):
    """The same without Keystone, whose tokens stay what they were."""

    async def test_a_token_that_is_refused_is_renewed(self):
        driver = self.make_driver()
        account = driver.container.connection.account
        session = await account._signs_in._tokens.session()
        account._signs_in._tokens._session = replace(session, token="AUTH_tk00")
        await driver.put("a", b"1")
        self.assertEqual(await account.token(), session.token)


class StartTests(WithServer):
    def reason(self, container: Container) -> str:
        driver = self.driver(container)
        line = self.assertRaises(Unavailable, driver.prepare).reason
        self.assertNotIn("\n", line)
        self.assertNotIn("wrong-secret", line)
        return line

    def test_all_is_well(self):
        self.driver(self.container()).prepare()

    def test_no_such_container(self):
        self.assertIn("there is no container nowhere", self.reason(self.container("nowhere")))

    def test_wrong_secret(self):
        name = "password" if self.with_keystone else "key"
        self.assertIn("refuses user", self.reason(self.container(**{name: "wrong-secret"})))

    def test_wrong_user(self):
        name = "username" if self.with_keystone else "user"
        self.assertIn("refuses user", self.reason(self.container(**{name: "nobody"})))


class KeystoneStartTests(StartTests):
    with_keystone = True

    def test_no_project(self):
        self.assertIn(
            "needs a project", self.reason(self.container(username="admin", password="admin", project_name=None))
        )

    def test_wrong_project(self):
        self.assertIn("refuses user registry in project nowhere", self.reason(self.container(project_name="nowhere")))


class CommandTests(WithServer):
    """`txregistry storage check`."""

    def check(self, container: str, **keys: str) -> tuple[int, str, str]:
        given = {
            "storage_path": "/prod",
            "swift_container": container,
            "swift_authurl": self.server.auth_url,
            "swift_auth_version": 1,
            "swift_user": USER,
            "swift_password": KEY,
            **keys,
        }
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(f"dev: {json.dumps({'storage': 'swift', **given})}\n")
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(["storage", "check", str(folder / "config.yml")])
        return status, out.getvalue(), err.getvalue()

    async def test_it_writes_reads_and_removes(self):
        driver = self.make_driver()
        status, out, err = await deferToThread(self.check, driver.container.connection.options.container)
        self.assertEqual((status, err), (0, ""))
        for line in out.splitlines():
            self.assertRegex(line, r"^[a-zA-Z0-9 ]+ +[0-9.]+ ms$")
        self.assertIn("12 MiB read", out)
        left = await driver.container.connection.ask("GET", None)
        self.assertEqual((left.status, left.body), (204, b""))

    def test_what_is_wrong_is_one_line(self):
        status, out, err = self.check("nowhere")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertIn("there is no container nowhere", err)
        status, out, err = self.check("nowhere", swift_password="wrong-secret")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertIn("refuses user", err)
        self.assertNotIn("wrong-secret", err)


class FaultTests(WithServer):
    """The server is killed, and comes back."""

    def swift(self) -> Swift:
        server = shared_swift(False, "that is killed")
        server.start()
        return server

    async def push(self, driver: SwiftDriver, number: int, kill: bool = False) -> bool:
        """One upload in steps of a MiB; whether it was acknowledged."""
        try:
            partial = await driver.partial(f"uploads/{number}", create=True)
            try:
                for step, piece in enumerate(pieces_of(number, 20 * MIB)):
                    await partial.write([piece], partial.offset)
                    if kill and step == 12:
                        self.server.kill()
                await partial.commit(f"blobs/{number}")
            finally:
                await partial.close()
        except Unavailable:
            return False
        return True

    async def test_killed_in_the_middle_of_pushes(self):
        driver = self.make_driver()
        acknowledged = [number for number in range(2) if await self.push(driver, number)]
        outcomes = await gatherResults([start(self.push(driver, 2 + other, other == 0)) for other in range(4)])
        self.assertEqual(acknowledged, [0, 1])
        self.assertIn(False, outcomes)
        with self.assertRaises(Unavailable):  # an outage is no absence
            await driver.open("blobs/0")
        with self.assertRaises(Unavailable):
            await driver.stat("nothing")
        await deferToThread(self.server.start)
        for number, fine in enumerate([True, True, *outcomes]):
            if fine:
                whole = b"".join(pieces_of(number, 20 * MIB))
                self.assertEqual(await self.content(driver, f"blobs/{number}") == whole, True)
                continue
            with self.assertRaises(StorageError):
                await driver.open(f"blobs/{number}")
            self.assertTrue(await self.push(driver, 10 + number))
        for path in await driver.partials("uploads"):
            await driver.remove(path)
        await driver.sweep(time.time() + 60)
        left = [key for key in await self.keys(driver) if not key.startswith(("blobs/", f"{SEGMENTS}/"))]
        self.assertEqual(left, [])
        for key in [key for key in await self.keys(driver) if key.startswith("blobs/")]:
            await driver.remove(key)
        self.assertEqual(await self.keys(driver), [])

    async def test_a_part_of_it_is_gone(self):
        driver = self.make_driver()
        await driver.put("a", b"1")
        for name in ("object", "container", "account"):
            self.server.kill(name)
        for attempt in (driver.read("a", 10), driver.stat("nothing"), driver.list("x"), driver.put("b", b"2")):
            with self.assertRaises(Unavailable):
                await attempt

    async def test_a_read_goes_on_after_the_server_was_restarted(self):
        driver, size = self.make_driver(), 40 * MIB
        partial = await driver.partial("uploads/one", create=True)
        for piece in pieces_of(5, size):
            await partial.write([piece], partial.offset)
        await partial.commit("blob")
        reader = await driver.open("blob")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        pieces = [await chunks.__anext__()]
        self.server.kill()
        await deferToThread(self.server.start)
        pieces += [piece async for piece in chunks]
        self.assertEqual(b"".join(pieces) == b"".join(pieces_of(5, size)), True)

    async def test_a_read_that_cannot_go_on_fails(self):
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        for piece in pieces_of(5, 40 * MIB):
            await partial.write([piece], partial.offset)
        await partial.commit("blob")
        reader = await driver.open("blob")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        await chunks.__anext__()
        self.server.kill()
        with self.assertRaises(Unavailable):
            while True:
                await chunks.__anext__()
        chunks.close()

    def test_no_server(self):
        driver = self.make_driver()
        self.server.stop()
        line = self.assertRaises(Unavailable, driver.prepare).reason
        self.assertIn("cannot be used", line)
        self.assertNotIn("\n", line)
