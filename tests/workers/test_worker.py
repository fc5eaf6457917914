"""A worker's side, in this process: its service on sockets that were opened before, its reports, its parent's words."""

import os
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txregistry import config
from txregistry.listen import parse
from txregistry.startup import StartFailed
from txregistry.workers import worker
from txregistry.workers.orders import LOG, MARK, READY, RETIRE, TELL, Orders
from txregistry.workers.relay import decode
from txregistry.workers.sharing import share
from txregistry.workers.worker import Control, Reports, WorkerService

LOCAL = "tcp:0:interface=127.0.0.1"
REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"


class WorkerServiceTests(TestCase):
    def make(self, slot: int = 0) -> "tuple[WorkerService, tuple[str, int]]":
        """A service as a worker's process makes it, and the address that its parent has opened."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(
            f"dev: {{storage_path: store, access_log: 'off', listen: '{LOCAL}', workers: 1}}"
        )
        settings = config.load(None, None, {}, str(folder))
        shared = share(reactor, parse(LOCAL), 1)
        self.addCleanup(shared.close)
        copy = os.dup(shared.descriptors[0])
        with socket.socket(fileno=os.dup(copy)) as opened:
            address = opened.getsockname()
        orders = Orders(
            options={}, cwd="/", source=None, files={}, secret_key="k", daemon=False, slot=slot, sockets=(copy,)
        )
        return WorkerService(settings, reactor, orders), address

    def start(self, slot: int = 0) -> "tuple[WorkerService, tuple[str, int]]":
        made, address = self.make(slot)
        made.privilegedStartService()
        made.startService()
        self.addCleanup(made.stopService)
        return made, address

    async def test_serves_and_retires(self):
        made, address = self.start()
        client = socket.create_connection(address)
        self.addCleanup(client.close)
        client.sendall(REQUEST)
        first = await deferToThread(client.recv, 65536)
        self.assertTrue(first.startswith(b"HTTP/1.1 200"))
        self.assertNotIn(b"Connection: close", first)
        gone = Deferred.fromCoroutine(made.retire())
        # The socket is its parent's, so the kernel goes on taking connections for the next worker.
        socket.create_connection(address).close()
        client.sendall(REQUEST)
        self.assertIn(b"Connection: close", await deferToThread(client.recv, 65536))
        await gone

    async def test_retires_after_an_hour_at_last(self):
        self.patch(worker, "RETIRE_SECONDS", 0.01)
        made, address = self.start()
        client = socket.create_connection(address)
        self.addCleanup(client.close)
        client.sendall(REQUEST)
        await deferToThread(client.recv, 65536)
        with capturedLogs() as events:
            await made.retire()
        self.assertIn("1 connections are cut: they took longer than 0.01 s", [formatEvent(each) for each in events])

    async def test_one_sweeps(self):
        self.assertTrue(self.start(0)[0].background)
        made, _ = self.start(1)
        self.assertFalse(made.background)
        self.assertIsNone(made._first_sweep)

    async def test_its_parent_tells_why_it_cannot_start(self):
        made, _ = self.make()
        assert made.settings.storage.path is not None
        Path(made.settings.storage.path).write_text("")
        made.privilegedStartService()
        self.addCleanup(made.stopService)
        with self.assertRaises(StartFailed) as raised:
            made.startService()
        self.assertIn("is not a directory", str(raised.exception))


class ReportsTests(SynchronousTestCase):
    def setUp(self):
        self.read, write = os.pipe()
        self.reports = Reports(write)
        self.addCleanup(os.close, self.read)
        self.addCleanup(os.close, write)

    def test_words(self):
        self.reports.send(READY)
        self.reports.send(LOG, "two\nlines")
        self.assertEqual(os.read(self.read, 1000), MARK + b"ready \n" + MARK + b"log two lines\n")

    def test_events(self):
        def event(level: object, namespace: str) -> "dict[str, object]":
            return {"log_level": level, "log_namespace": namespace, "log_format": namespace, "log_time": 1.0}

        for namespace in ("twisted.internet", "log_legacy", "txregistry.service"):
            self.reports(event(LogLevel.info, namespace))
        self.reports(event(LogLevel.warn, "twisted.internet"))
        lines = os.read(self.read, 1 << 16).splitlines()
        told = [decode(line.partition(b" ")[2])["text"] for line in lines]
        self.assertEqual(told, ["txregistry.service", "twisted.internet"])


class ControlTests(SynchronousTestCase):
    def test_words(self):
        called: list[str] = []
        control = Control(
            lambda: called.append("tell"), lambda: called.append("retire"), lambda: called.append("stop")
        )
        control.makeConnection(StringTransport())
        for data in (TELL[:2], TELL[2:] + RETIRE):
            control.dataReceived(data)
        self.assertEqual(called, ["tell", "retire"])
        control.connectionLost()
        self.assertEqual(called[-1], "stop")
