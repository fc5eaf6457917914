"""The parent of workers, with processes that are none and a clock that is told; and what it says to them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.running import environment
from txregistry import config
from txregistry.listen import ListenError, parse
from txregistry.mail import report
from txregistry.redact import Redactor
from txregistry.workers import parent as workers
from txregistry.workers.orders import FAILED, LOG, MARK, READY, RETIRE, TELL, TOLD, Orders, files_of, take
from txregistry.workers.parent import LONGEST_PAUSE, START_SECONDS, STEADY_SECONDS, STOP_SECONDS, WorkersService
from txregistry.workers.processes import Launched
from txregistry.workers.relay import decode, encode
from txregistry.workers.sharing import Shared, share

LOCAL = "tcp:0:interface=127.0.0.1"
ORDERS = Orders(options={}, cwd="/", source=None, files={}, secret_key="k", daemon=False)


class FakeProcess:
    """A worker's process: what it was sent, and the other ends of its sockets."""

    def __init__(self, pid: int, orders: Orders) -> None:
        self.pid = pid
        self.orders = orders
        self.status: int | None = None
        self.signals: list[int] = []
        control, self.control = socket.socketpair()
        reports, self.reports = socket.socketpair()
        self.control.setblocking(False)
        self.launched = Launched(self, control, reports)
        self.connection: Any = None

    def poll(self) -> "int | None":
        return self.status

    def wait(self, timeout: "float | None" = None) -> int:
        assert self.status is not None
        return self.status

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    # -- what the test does

    def say(self, word: bytes, text: bytes = b"") -> None:
        self.connection.dataReceived(MARK + word + b" " + text + b"\n")

    def end(self, status: int) -> None:
        self.status = status
        self.connection.connectionLost()

    def heard(self) -> "bytes | None":
        """What it was told; None when it was told to stop."""
        try:
            return self.control.recv(1000) or None
        except BlockingIOError:
            return b""


class FakeReactor(Clock):
    """A clock with the few parts of a reactor that the parent uses."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[Any] = []

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self.adopted.append(factory.buildProtocol(None))

    def callWhenRunning(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)


class ParentTests(SynchronousTestCase):
    def setUp(self):
        self.reactor = FakeReactor()
        self.processes: list[FakeProcess] = []
        self.told: list[str] = []
        #: What each process says before anything else, and whether it ends then.
        self.first = MARK + READY + b"\n"
        self.ends: int | None = None
        self.service = self.parent(2)

    def parent(self, count: int) -> WorkersService:
        return WorkersService(
            ORDERS,
            [parse(LOCAL)],
            count,
            self.reactor,
            take=lambda orders: orders,
            told=lambda: self.told.append("told"),
            launch=self.launch,
        )

    def launch(self, orders: Orders) -> Launched:
        process = FakeProcess(100 + len(self.processes), orders)
        self.processes.append(process)
        self.addCleanup(process.control.close)
        self.addCleanup(process.reports.close)
        if self.first:
            process.reports.sendall(self.first)
        if self.ends is not None:
            process.status = self.ends
            process.reports.close()
        return process.launched

    def start(self) -> None:
        self.service.privilegedStartService()
        self.service.startService()
        self.first = b""
        self.connect()
        self.addCleanup(self.stop)

    def connect(self) -> None:
        """Give each new process the connection that the parent made for it."""
        for process, connection in zip(self.processes, self.reactor.adopted, strict=True):
            process.connection = connection

    def stop(self) -> "Deferred[Any]":
        done = self.service.stopService()
        for process in self.processes:
            if process.connection is not None and process.status is None:
                process.end(0)
        return done

    def refused(self) -> str:
        """The line of a start that fails."""
        read, write = os.pipe()
        real = os.dup(2)
        os.dup2(write, 2)
        try:
            self.service.privilegedStartService()
            self.assertRaises(SystemExit, self.service.startService)
        finally:
            os.dup2(real, 2)
            for each in (real, write):
                os.close(each)
        with os.fdopen(read) as lines:
            line = lines.read()
        self.service.stopService()
        return line.removeprefix("txregistry: ").removesuffix("\n")

    def words(self) -> "list[bytes | None]":
        return [process.heard() for process in self.processes]

    # -- the start

    def test_start(self):
        self.start()
        self.assertEqual([process.orders.slot for process in self.processes], [0, 1])
        sockets = [process.orders.sockets for process in self.processes]
        self.assertEqual([len(each) for each in sockets], [1, 1])
        self.assertNotEqual(*sockets)
        self.assertEqual(self.words(), [TELL, b""])
        self.processes[0].say(TOLD)
        self.assertEqual(self.told, ["told"])

    def test_worker_that_cannot_start(self):
        self.first, self.ends = MARK + FAILED + b" no disk\n", 1
        self.assertEqual(self.refused(), "no disk")
        self.assertEqual(self.processes[1].signals, [signal.SIGTERM])

    def test_worker_that_ends_without_a_word(self):
        self.first, self.ends = b"", -signal.SIGSEGV
        self.assertEqual(self.refused(), "a worker ended at its start, ended by SIGSEGV")

    def test_no_process_to_be_had(self):
        def none(orders: Orders) -> Launched:
            raise PermissionError(13, "no")

        self.service._launch = none
        self.assertEqual(self.refused(), f"a worker could not start: {sys.executable}: Permission denied")

    # -- a death

    def test_dead_worker_is_replaced_at_once_in_its_slot(self):
        self.start()
        self.words()
        self.processes[1].end(-signal.SIGKILL)
        self.reactor.advance(0)
        self.connect()
        self.assertEqual(len(self.processes), 3)
        self.assertEqual(self.processes[2].orders, self.processes[1].orders)
        self.processes[2].say(READY)
        self.assertIs(
            self.service.slots[1].serving and self.service.slots[1].serving.process, self.processes[2]
        )
        self.assertEqual(self.words(), [b"", None, b""])

    def test_process_that_ends_after_its_reports(self):
        self.start()
        self.processes[0].connection.connectionLost()
        self.reactor.advance(1)
        self.assertEqual(len(self.processes), 2)
        self.processes[0].status = 0
        self.reactor.advance(1)
        self.assertEqual(len(self.processes), 3)

    def pauses(self, lives: float, rounds: int) -> "list[float]":
        """How long the slot stays empty after each of several short lives."""
        found = []
        for _ in range(rounds):
            self.processes[-1].say(READY)
            self.reactor.advance(lives)
            self.processes[-1].end(1)
            before = self.reactor.seconds()
            count = len(self.processes)
            while len(self.processes) == count:
                self.reactor.advance(0.5 if self.reactor.getDelayedCalls()[0].getTime() > before else 0)
            found.append(self.reactor.seconds() - before)
            self.connect()
        return found

    def test_pauses_when_they_die_at_once(self):
        self.service = self.parent(1)
        self.start()
        self.assertEqual(self.pauses(0, 8), [0, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE])
        self.assertEqual(self.pauses(STEADY_SECONDS, 3), [0, 0, 0])

    def test_one_that_never_serves_is_killed_and_replaced(self):
        self.start()
        self.processes[0].end(1)
        self.reactor.advance(0)
        self.connect()
        self.reactor.advance(START_SECONDS)
        self.assertEqual(self.processes[2].signals, [signal.SIGKILL])
        with capturedLogs() as events:
            self.processes[2].end(-signal.SIGKILL)
        self.assertIn("did not serve within", formatEvent(events[-1]))
        self.reactor.advance(0)
        self.assertEqual(len(self.processes), 4)

    def test_no_process_to_be_had_for_a_while(self):
        self.start()
        launch = self.service._launch

        def none(orders: Orders) -> Launched:
            raise BlockingIOError(11, "no")

        self.service._launch = none
        self.processes[0].end(1)
        self.reactor.advance(0)
        self.service._launch = launch
        self.assertEqual(len(self.processes), 2)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.processes), 3)

    # -- restarts

    def test_restart_one_by_one(self):
        self.start()
        self.words()
        self.service.restart()
        self.connect()
        self.assertEqual(len(self.processes), 3)
        self.assertEqual(self.words(), [b"", b"", b""])
        self.processes[2].say(READY)
        self.connect()
        self.assertEqual(self.words(), [RETIRE, b"", b"", b""])
        self.processes[3].say(READY)
        self.connect()
        self.assertEqual(self.words(), [b"", RETIRE, b"", b""])
        self.assertEqual([process.orders.slot for process in self.processes], [0, 1, 0, 1])
        # The old ones may take an hour; nobody takes their place when they go.
        self.processes[0].end(0)
        self.processes[1].end(1)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.processes), 4)
        self.assertEqual(len(self.service.workers), 2)

    def test_hangup_during_a_restart_replaces_the_new_ones_as_well(self):
        self.start()
        self.service.restart()
        self.connect()
        self.service.restart()
        self.assertEqual(len(self.processes), 3)
        for number in (2, 3, 4):
            self.processes[number].say(READY)
            self.connect()
        self.assertEqual([process.orders.slot for process in self.processes], [0, 1, 0, 0, 1])
        self.assertEqual(len(self.processes), 5)

    def test_restart_that_fails_leaves_the_old_ones(self):
        self.start()
        self.words()
        self.service.restart()
        self.connect()
        with capturedLogs() as events:
            self.processes[2].say(FAILED, b"bad key")
            self.processes[2].end(1)
        self.assertEqual(
            formatEvent(events[-1]), "a worker could not start: bad key; those that serve go on as they are"
        )
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.processes), 3)
        self.assertEqual(self.words()[:2], [b"", b""])

    def test_no_restart_on_a_bad_configuration(self):
        def bad(orders: Orders) -> Orders:
            raise config.ConfigError("no such key")

        self.start()
        self.service._take = bad
        with capturedLogs() as events:
            self.service.restart()
        self.assertEqual([formatEvent(event) for event in events], ["no restart: no such key"])
        self.assertEqual(len(self.processes), 2)

    def test_serving_one_dies_while_the_next_starts(self):
        self.start()
        self.service.restart()
        self.connect()
        self.processes[0].end(1)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.processes), 3)
        self.processes[2].say(READY)
        self.connect()
        self.assertEqual(len(self.processes), 4)

    def test_hangup(self):
        self.start()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(len(self.processes), 3)

    def test_hangup_is_handled_before_the_first_socket(self):
        before = signal.getsignal(signal.SIGHUP)
        seen: list[Any] = []

        def sharing(*arguments: Any) -> Shared:
            seen.append(signal.getsignal(signal.SIGHUP))
            return share(*arguments)

        self.patch(workers, "share", sharing)
        self.start()
        self.assertNotEqual(seen, [before])
        self.stop()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    # -- the end

    def test_stop(self):
        self.start()
        self.words()
        done = self.service.stopService()
        self.assertEqual(self.words(), [None, None])
        self.processes[0].end(0)
        self.assertNoResult(done)
        self.processes[1].end(0)
        self.successResultOf(done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        for process in self.processes:
            self.assertRaises(OSError, os.fstat, process.orders.sockets[0])

    def test_stop_of_one_that_hangs(self):
        self.start()
        done = self.service.stopService()
        self.processes[0].end(0)
        self.reactor.advance(STOP_SECONDS)
        self.assertEqual([process.signals for process in self.processes], [[], [signal.SIGKILL]])
        self.processes[1].end(-signal.SIGKILL)
        self.successResultOf(done)

    def test_stop_while_one_is_to_be_replaced(self):
        self.start()
        self.processes[0].end(1)
        done = self.stop()
        self.successResultOf(done)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.processes), 2)

    # -- the log

    def test_reports(self):
        self.start()
        event = {
            "log_level": LogLevel.warn,
            "log_namespace": "n",
            "log_format": "a {b}",
            "b": "c\nd",
            "log_time": 1.5,
        }
        line = (
            MARK
            + LOG
            + b" "
            + encode(event).encode()
            + b"\nFatal Python error\n"
            + MARK
            + LOG
            + b" nonsense\n"
        )
        with capturedLogs() as events:
            for start in range(0, len(line), 7):
                self.processes[0].connection.dataReceived(line[start : start + 7])
        self.assertEqual(
            [(formatEvent(each), each["log_level"]) for each in events],
            [
                ("a c\nd", LogLevel.warn),
                ("worker 100: Fatal Python error", LogLevel.error),
                ("worker 100: nonsense", LogLevel.error),
            ],
        )


class RelayTests(SynchronousTestCase):
    def test_failure_with_its_cause(self):
        def fail() -> None:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer\nline") from error

        try:
            fail()
        except ValueError:
            with capturedLogs() as events:
                Logger("here").failure("{method} broke", method=b"GET", uri=b"/\xff")
        self.flushLoggedErrors(ValueError)
        line = encode(dict(events[0]))
        self.assertNotIn("\n", line)
        event = decode(line)
        self.assertEqual((event["method"], event["uri"], event["log_namespace"]), (b"GET", b"/\xff", "here"))
        text = formatEventAsClassicLogText(event, lambda _: "now")
        self.assertIn("b'GET' broke", text)
        self.assertIn("ValueError: outer\n", text)
        failure = event["log_failure"]
        self.assertIsInstance(failure, Failure)
        self.assertEqual(failure.frames[-1][0], "fail")
        self.assertEqual((failure.type.__name__, failure.type.__module__), ("ValueError", "builtins"))
        self.assertEqual(type(failure.value.__cause__).__name__, "KeyError")
        self.assertEqual(str(failure.value.__cause__), "'inner'")
        mailed = report(event, Redactor([]))
        self.assertIn(r"Request: GET /\xff", mailed)
        self.assertIn("ValueError: outer", mailed)
        self.assertIn("KeyError: 'inner'", mailed)

    def test_not_an_event(self):
        for line in ("", "{", "{}", '{"time": 1}'):
            self.assertRaises((ValueError, KeyError), decode, line)


class OrdersTests(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.source = self.folder / "config.yml"
        self.source.write_bytes(b"dev: {storage_path: here, flavour: 1} # \xc3\xa9\n")
        self.options = {
            "config": None, "flavor": None, "storage-path": None, "listen": [LOCAL], "tls-certificate": None,
            "tls-key": None, "tls-client-ca": None, "workers": "2",
        }  # fmt: skip

    def orders(self, text: str = "dev: {storage_path: here}") -> Orders:
        self.source.write_text(text)
        made = Orders(
            options=self.options, cwd=str(self.folder), source=None, files={}, secret_key="k", daemon=False
        )
        return take(made, {})

    def test_there_and_back(self):
        orders = self.orders("dev: {storage_path: h\u00e9re}")
        line = orders.line()
        self.assertEqual(line.count(b"\n"), 1)
        again = Orders.of(line)
        self.assertEqual(again.snapshot, config.Snapshot(str(self.source), self.source.read_bytes()))
        self.assertEqual(again.options, self.options)

    def test_the_sockets_stay_where_they_are(self):
        orders = self.orders("dev: {storage_path: here, listen: 'tcp:1'}")
        self.assertEqual(orders.options["listen"], [LOCAL])

    def test_bad_configuration(self):
        self.assertRaises(config.ConfigError, self.orders, "dev: {storage_pat: here}")

    def test_files_that_cannot_be_read_any_more(self):
        (self.folder / "tls.pem").write_bytes(b"pem \xff")
        self.options["listen"] = ["https:0"]
        orders = self.orders("dev: {storage_path: here, tls_certificate: tls.pem}")
        path = str(self.folder / "tls.pem")
        self.assertEqual(orders.contents[path], b"pem \xff")
        (self.folder / "tls.pem").unlink()
        with capturedLogs():
            self.assertEqual(take(orders, {}).contents[path], b"pem \xff")
        (self.folder / "tls.pem").write_bytes(b"new")
        self.assertEqual(take(orders, {}).contents[path], b"new")

    def test_files_that_never_could(self):
        self.options["listen"] = ["https:0"]
        self.assertRaises(ListenError, self.orders, "dev: {storage_path: here, tls_certificate: none.pem}")

    def test_privileged_key(self):
        (self.folder / "key.pub").write_bytes(b"pub")
        orders = self.orders("dev: {storage_path: here, privileged_key: key.pub}")
        self.assertEqual(orders.contents[str(self.folder / "key.pub")], b"pub")
        orders = self.orders("dev: {storage_path: here, privileged_key: none.pub}")
        self.assertEqual(list(orders.files), [str(self.source)])

    def test_no_file(self):
        snapshot = config.Snapshot(None)
        settings = config.load(None, None, {"HOME": "/h"}, str(self.folder), snapshot=snapshot)
        self.assertIsNone(settings.source)
        self.assertEqual(files_of(settings, snapshot, {}), {})


class SharingTests(SynchronousTestCase):
    def test_a_port(self):
        from twisted.internet import reactor

        shared = share(reactor, parse(LOCAL), 3)
        self.addCleanup(shared.close)
        names = set()
        for descriptor in shared.descriptors:
            self.assertFalse(os.get_blocking(descriptor))
            self.assertFalse(os.get_inheritable(descriptor))
            copy = socket.socket(fileno=os.dup(descriptor))
            names.add(copy.getsockname())
            copy.close()
        self.assertEqual(len(names), 1)
        self.assertEqual(len(set(shared.descriptors)), 3)

    def test_another_server(self):
        from twisted.internet import reactor

        shared = share(reactor, parse(LOCAL), 1)
        self.addCleanup(shared.close)
        copy = socket.socket(fileno=os.dup(shared.descriptors[0]))
        port = copy.getsockname()[1]
        copy.close()
        error = self.assertRaises(ListenError, share, reactor, parse(f"tcp:{port}:interface=127.0.0.1"), 1)
        self.assertIn("already in use", str(error))

    def test_kinds(self):
        from twisted.internet import reactor

        error = self.assertRaises(ListenError, share, reactor, parse("ssl:1"), 1)
        self.assertIn("not ssl:", str(error))


class ImportTests(SynchronousTestCase):
    def test_the_parent_is_light(self):
        script = "import sys, json, txregistry.workers.parent\nsys.stdout.write(json.dumps(list(sys.modules)))"
        output = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(Path("/")),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        loaded = json.loads(output)
        heavy = {"klein", "werkzeug", "txregistry.service", "txregistry.workers.worker", "twisted.internet.reactor"}
        self.assertEqual(heavy.intersection(loaded), set())
        self.assertEqual([name for name in loaded if name.startswith("txregistry.core")], [])
