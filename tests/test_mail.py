"""Mail about failures, in memory: which are told and when, what a mail says, and the dialogue with the server."""

import email
import gc
import subprocess
import sys
from collections.abc import Callable
from email.policy import default
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, capturedLogs, formatEvent, globalLogPublisher
from twisted.mail import smtp as twisted_smtp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from txregistry import config, mail, smtp
from txregistry.config import Mail
from txregistry.mail import FailureMailer, MailService, message, secrets_of
from txregistry.redact import Redactor
from txregistry.workers.relay import decode, encode

ROOT = Path(__file__).parent.parent


class Reactor(MemoryReactorClock):
    """A reactor whose threads are one."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:
        self.callLater(0, callable, *args)


class MailerCase(SynchronousTestCase):
    """A log, and a mailer behind it whose mails are in `mails` as (subject, body)."""

    def setUp(self):
        self.reactor = Reactor()
        self.mails: list[tuple[str, str]] = []
        self.answers: list[Deferred[Any]] = []
        self.mailer = FailureMailer(
            self.deliver, smtp.reason, Redactor(["the-secret"]), "host prod", self.reactor
        )
        self.publisher = LogPublisher(self.mailer)
        self.log = Logger("txregistry.web.problems", observer=self.publisher)

    def deliver(self, subject: str, body: str) -> Deferred[Any]:
        self.mails.append((subject, body))
        return self.answers.pop(0) if self.answers else succeed(1)

    def logged(self, error: "BaseException | None" = None, count: int = 1, **more: Any) -> None:
        """Log failures, and let the reactor turn."""
        for _ in range(count):
            try:
                raise error or ValueError("boom")
            except Exception:
                self.log.failure(more.pop("text", "it failed"), **more)
        self.reactor.advance(0)

    def subjects(self) -> list[str]:
        return [subject for subject, _ in self.mails]


class ObserverTests(MailerCase):
    def test_the_request_does_not_wait(self):
        try:
            raise ValueError("boom")
        except ValueError:
            self.log.failure("x")
        self.assertEqual(self.mails, [])
        self.reactor.advance(0)
        self.assertEqual(self.subjects(), ["[host prod] ValueError: boom"])

    def test_errors_without_an_exception_are_not_mailed(self):
        self.log.error("{uri}: 503", uri="/")
        self.log.critical("x")
        self.reactor.advance(0)
        self.assertEqual(self.mails, [])

    def test_failures_of_lower_levels_are_not_mailed(self):
        for level in (LogLevel.debug, LogLevel.info, LogLevel.warn):
            self.logged(level=level)
        self.assertEqual(self.mails, [])
        self.logged(level=LogLevel.error)
        self.assertEqual(len(self.mails), 1)

    def test_what_mail_itself_logs_is_not_mailed(self):
        def within(file: str) -> None:
            code = compile("raise ValueError('x')", file, "exec")
            try:
                exec(code)
            except ValueError:
                self.log.failure("x")

        for file in (twisted_smtp.__file__, mail.__file__, smtp.__file__):
            within(file)
        Logger("twisted.mail.smtp", observer=self.publisher).failure("x", Failure(ValueError("x")))
        self.reactor.advance(0)
        self.assertEqual(self.mails, [])
        within("elsewhere.py")
        self.reactor.advance(0)
        self.assertEqual(len(self.mails), 1)

    def test_a_failure_without_frames(self):
        self.log.failure("x", Failure(ValueError("boom")))
        self.reactor.advance(0)
        self.assertIn("Traceback (most recent call last):\nValueError: boom\n", self.mails[0][1])

    def test_a_cleaned_failure(self):
        try:
            raise ValueError("boom")
        except ValueError:
            failure = Failure()
        self.log.failure("x", failure)
        failure.cleanFailure()
        self.reactor.advance(0)
        self.assertIn('raise ValueError("boom")\nValueError: boom\n', self.mails[0][1])

    def test_a_failure_of_another_process(self):
        events: list[dict[str, Any]] = []
        log = Logger("txregistry.web.problems", observer=LogPublisher(cast(ILogObserver, events.append)))
        try:
            raise KeyError("k") from ValueError("boom")
        except KeyError:
            log.failure("{method} {uri} failed", method=b"GET", uri=b"/v2/")
        self.publisher(decode(encode(events[0])))
        self.reactor.advance(0)
        (_, told), = self.mails
        self.assertIn("Request: GET /v2/\n\nTraceback (most recent call last):\n  File ", told)
        self.assertIn("KeyError: 'k'\n\ncaused by\n", told)

    def test_an_exception_that_cannot_be_shown(self):
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        self.logged(Odd())
        self.assertIn("Odd", self.subjects()[0])
        self.assertNotIn("\n", self.subjects()[0])


class TwistedTests(TestCase):
    """What Twisted logs by itself reaches the mailer through the global log."""

    async def mails(self, provoke: Callable[[], object]) -> list[str]:
        mails: list[str] = []
        told: Deferred[None] = Deferred()

        def deliver(subject: str, body: str) -> Deferred[Any]:
            mails.append(body)
            told.callback(None)
            return succeed(1)

        mailer = FailureMailer(deliver, smtp.reason, Redactor(), "o", real_reactor)
        globalLogPublisher.addObserver(mailer)
        try:
            provoke()
            await told
        finally:
            globalLogPublisher.removeObserver(mailer)
            await mailer.stop()
        self.flushLoggedErrors(ZeroDivisionError)
        return mails

    async def test_an_unhandled_error_in_a_deferred(self):
        def provoke() -> None:
            Deferred.fromCoroutine(divide())
            gc.collect()

        async def divide() -> None:
            1 / 0  # noqa: B018  # for its traceback

        (told,) = await self.mails(provoke)
        self.assertIn("in divide\n    1 / 0", told)

    async def test_an_exception_in_a_delayed_call(self):
        def divide() -> None:
            1 / 0  # noqa: B018  # for its traceback

        (told,) = await self.mails(lambda: real_reactor.callLater(0, divide))
        self.assertIn("in divide\n    1 / 0", told)

    async def test_an_exception_in_a_thread(self):
        def divide() -> None:
            try:
                1 / 0  # noqa: B018  # for its traceback
            except ZeroDivisionError:
                Logger("txregistry.storage").failure("x")

        (told,) = await self.mails(lambda: cast(Any, real_reactor).callInThread(divide))
        self.assertIn("in divide\n    1 / 0", told)


class LimitTests(MailerCase):
    def test_the_first_at_once_and_the_others_together_and_counted(self):
        self.logged(count=3)
        self.assertEqual(self.subjects(), ["[host prod] ValueError: boom"])
        self.logged(KeyError("k"), count=2)
        self.reactor.advance(59)
        self.assertEqual(len(self.mails), 1)
        self.reactor.advance(1)
        self.assertEqual(self.subjects()[1:], ["[host prod] ValueError: boom and 3 more"])
        told = self.mails[1][1]
        self.assertTrue(
            told.startswith(
                "Further failures since the last mail, counted only: 2\n"
                "  1 more: ValueError: boom\n"
                "  1 more: KeyError: 'k'\n"
            ),
            told,
        )
        self.assertEqual(told.count("Traceback"), 2)

    def test_a_later_failure_is_mailed_at_once(self):
        self.logged()
        self.reactor.advance(60)
        self.logged()
        self.assertEqual(self.subjects(), ["[host prod] ValueError: boom"] * 2)

    def test_a_storm_makes_ever_fewer_mails(self):
        sent = []
        for second in range(0, 4 * 3600, 20):
            before = len(self.mails)
            self.logged()
            self.reactor.advance(20)
            if len(self.mails) > before:
                sent.append(second)
        gaps = [after - before for before, after in pairwise(sent)]
        self.assertEqual([round(gap / 60) for gap in gaps], [1, 2, 4, 8, 16, 32, 60, 60])
        counted = [int(told.split("\n")[0].rpartition(" ")[2]) + 1 for _, told in self.mails[1:]]
        self.assertEqual(sum(counted) + 1 + self.mailer._batch.total(), 4 * 180)
        # After a quiet window it is again as at first.
        self.reactor.advance(3600)
        self.reactor.advance(3600)
        self.logged(count=2)
        before = len(self.mails)
        self.reactor.advance(60)
        self.assertEqual(len(self.mails), before + 1)

    def test_only_some_kinds_are_shown(self):
        self.logged()
        for number in range(8):
            self.logged(type(f"Error{number}", (Exception,), {})("x"), count=2)
        self.reactor.advance(60)
        told = self.mails[1][1]
        self.assertEqual(told.count("Traceback"), mail.KINDS)
        self.assertIn("Further failures since the last mail, counted only: 11\n", told)
        self.assertIn("\n  6 of other kinds\n", told)

    def test_places_make_kinds(self):
        self.logged()
        try:
            raise ValueError("boom")
        except ValueError:
            self.log.failure("x")
        self.logged()
        self.reactor.advance(60)
        self.assertEqual(self.mails[1][1].count("Traceback"), 2)


class SendingTests(MailerCase):
    def test_a_mail_that_cannot_be_sent_is_one_line(self):
        failing: Deferred[Any] = Deferred()
        self.answers.append(failing)
        self.logged()
        with capturedLogs() as events:
            failing.errback(DNSLookupError("no such host"))
        self.assertEqual(
            [(event["log_level"], formatEvent(event)) for event in events],
            [
                (
                    LogLevel.warn,
                    "a mail with 1 failure(s) could not be sent: DNSLookupError: DNS lookup failed: no such host.",
                )
            ],
        )
        for event in events:
            self.publisher(event)
        self.reactor.advance(7200)
        self.assertEqual(len(self.mails), 1)

    def test_what_could_not_be_sent_is_told_in_the_next(self):
        for _ in range(2):
            self.answers.append(Deferred())
            self.answers[0].errback(ConnectionDone())
            self.logged()
            self.reactor.advance(60)
        self.logged()
        self.assertTrue(self.mails[2][1].startswith("Earlier failures whose mails could not be sent: 2\n"))
        self.reactor.advance(60)
        self.logged()
        self.assertNotIn("could not be sent", self.mails[3][1])

    def test_a_stop_sends_what_was_gathered_and_waits(self):
        self.answers += [Deferred(), Deferred()]
        waiting = list(self.answers)
        self.logged(count=2)
        stopped = self.mailer.stop()
        self.assertEqual(len(self.mails), 2)
        for each in waiting:
            self.assertNoResult(stopped)
            each.callback(1)
        self.successResultOf(stopped)
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])

    def test_a_stop_does_not_wait_for_ever(self):
        self.answers.append(Deferred())
        self.logged()
        stopped = self.mailer.stop()
        self.assertNoResult(stopped)
        with capturedLogs() as events:
            self.reactor.advance(mail.STOP_SECONDS)
        self.successResultOf(stopped)
        self.assertEqual(len(events), 1)

    def test_a_stop_with_nothing_to_do(self):
        self.successResultOf(self.mailer.stop())


class TextTests(MailerCase):
    def told(self, error: "BaseException | None" = None, **more: Any) -> str:
        self.logged(error, **more)
        return self.mails[-1][1]

    def test_what_a_mail_says(self):
        # The logger writes its own time.
        self.publisher.addObserver(cast(ILogObserver, lambda event: event.update(log_time=0.0)))
        uri = b"/v2/a/tags/list?n=1&token=abc"
        told = self.told(text="{method} {uri} failed", method=b"GET", uri=uri)
        head, _, rest = told.partition("\n\n")
        self.assertEqual(
            head, "Time: 1970-01-01 00:00:00 UTC\nRequest: GET /v2/a/tags/list?n=1&token=[redacted]"
        )
        self.assertTrue(rest.startswith("Traceback (most recent call last):\n  File "), rest)
        self.assertIn(', in logged\n    raise error or ValueError("boom")\nValueError: boom\n', rest)
        self.assertRegex(rest, r"\n-- \ntxregistry \S+ on Python 3\S+, host prod, process \d+\n\Z")

    def test_the_log_line_without_a_request(self):
        told = self.told(text="the sweep of {what} failed\nmore", what="x")
        self.assertIn("\nLog: the sweep of x failed\n\nTraceback", told)

    def test_causes(self):
        def chained() -> BaseException:
            try:
                try:
                    raise OSError(28, "disk the-secret")
                except OSError as error:
                    raise KeyError("k") from error
            except KeyError as error:
                return error

        told = self.told(chained())
        self.assertRegex(
            told, r"KeyError: 'k'\n\ncaused by\nTraceback [^\0]*\nOSError: \[Errno 28\] disk \[redacted\]\n"
        )

    def test_names_have_their_module(self):
        self.assertIn("\ntwisted.internet.error.ConnectionDone: ", self.told(ConnectionDone()))

    def test_source_is_not_searched_for_secrets_and_messages_are(self):
        password = "p4ss"
        try:
            raise ValueError(f"password={password}")
        except ValueError:
            self.log.failure("x")
        self.reactor.advance(0)
        self.assertIn('raise ValueError(f"password={password}")\nValueError: password=[redacted]\n', self.mails[0][1])
        self.assertEqual(self.subjects(), ["[host prod] ValueError: password=[redacted]"])

    def test_everything_is_bounded(self):
        for number in range(6):
            kind = type(f"Error{number}", (Exception,), {})
            self.logged(kind("é a=b token=x\n" * 100_000), uri=b"/" + b"a b" * 100_000, method=b"GET")
        self.reactor.advance(60)
        made = message(mail_settings(), *self.mails[1], "host", 0)
        self.assertLess(len(made), 80_000)
        self.assertLess(max(map(len, self.subjects())), 250)
        self.assertLess(max(map(len, made.split(b"\n"))), 998)


def mail_settings(**changed: Any) -> Mail:
    values: dict[str, Any] = {
        "host": "mail.example.com", "port": 25, "login": None, "password": None, "secure": False, "keyfile": None,
        "certfile": None, "from_addr": "Registry <r@example.com>", "to_addr": ("a@example.com", "B <b@example.com>"),
    }  # fmt: skip
    return Mail(**{**values, **changed})


class MessageTests(SynchronousTestCase):
    def test_headers(self):
        read = email.message_from_bytes(
            message(mail_settings(), "a subject" * 20, "text", "host.example", 86400), policy=default
        )
        self.assertEqual(read["From"], "Registry <r@example.com>")
        self.assertEqual(read["To"], "a@example.com, B <b@example.com>")
        self.assertEqual(read["Subject"], "a subject" * 20)
        self.assertEqual(read["Date"], "Fri, 02 Jan 1970 00:00:00 +0000")
        self.assertTrue(read["Message-ID"].endswith("@host.example>"))
        self.assertEqual(read["Auto-Submitted"], "auto-generated")
        self.assertEqual(read.get_content(), "text\n")

    def test_lines(self):
        made = message(mail_settings(), "s", ".\n..x\n" + "y" * 2000 + "\n\nz\n", "h", 0)
        self.assertEqual(
            made.partition(b"\n\n")[2].split(b"\n"),
            [b" .", b" ..x", b"y" * 900, b"y" * 900, b"y" * 200, b"", b"z", b""],
        )
        self.assertNotIn(b"\r", made)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects to nobody; what the client wrote is in `transport`."""

    def __init__(self, connects: bool = True) -> None:
        self.connects = connects
        self.transport = StringTransport()
        self.client: Any = None
        self.cancelled = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        if not self.connects:
            return Deferred(lambda _: setattr(self, "cancelled", self.cancelled + 1))
        self.client = factory.buildProtocol(None)
        self.client.makeConnection(self.transport)
        return succeed(self.client)

    def says(self, *lines: bytes) -> bytes:
        """Let the server say lines; what the client answers."""
        self.transport.clear()
        for line in lines:
            self.client.dataReceived(line + b"\r\n")
            # A client hands its message over piece by piece.
            while self.transport.producer is not None:
                self.transport.producer.resumeProducing()
        return self.transport.value()


class DialogueTests(SynchronousTestCase):
    def start(self, endpoint: Endpoint, **changed: Any) -> Deferred[int]:
        self.clock = Reactor()
        return smtp.Smtp(mail_settings(**changed), self.clock, endpoint=endpoint).deliver(b"Subject: x\n\ny\n")

    def until_accepted(self, server: Endpoint) -> None:
        self.assertTrue(server.says(b"220 hello").startswith(b"EHLO "))
        self.assertEqual(server.says(b"250 hello"), b"MAIL FROM:<r@example.com>\r\n")
        self.assertEqual(server.says(b"250 ok"), b"RCPT TO:<a@example.com>\r\n")
        self.assertEqual(server.says(b"250 ok"), b"RCPT TO:<b@example.com>\r\n")
        self.assertEqual(server.says(b"250 ok"), b"DATA\r\n")
        self.assertEqual(server.says(b"354 go"), b"Subject: x\r\n\r\ny\r\n.\r\n")
        server.says(b"250 taken")

    def test_a_delivery(self):
        server = Endpoint()
        sent = self.start(server)
        self.until_accepted(server)
        self.assertEqual(server.says(b"250 reset"), b"QUIT\r\n")
        self.assertNoResult(sent)
        server.says(b"221 bye")
        self.assertTrue(server.transport.disconnecting)
        server.client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(sent), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_farewell(self):
        server = Endpoint()
        sent = self.start(server)
        self.until_accepted(server)
        self.clock.advance(smtp.SECONDS)
        self.assertEqual(self.successResultOf(sent), 2)
        self.assertTrue(server.transport.disconnected)

    def test_an_old_server(self):
        server = Endpoint()
        self.start(server)
        server.says(b"220 hello")
        self.assertTrue(server.says(b"502 what?").startswith(b"HELO "))

    def test_an_old_server_is_too_old_for_tls(self):
        server = Endpoint()
        sent = self.start(server, secure=True)
        server.says(b"220 hello")
        self.assertEqual(server.says(b"502 what?"), b"QUIT\r\n")
        server.client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(smtp.reason(self.failureResultOf(sent).value), "EHLORequiredError, code 502")

    def test_the_connection_is_lost(self):
        server = Endpoint()
        sent = self.start(server)
        server.says(b"220 hello")
        server.client.connectionLost(Failure(ConnectionDone()))
        why = smtp.reason(self.failureResultOf(sent).value)
        self.assertEqual(why, "ConnectionDone: Connection was closed cleanly.")

    def test_a_silent_server(self):
        server = Endpoint()
        sent = self.start(server)
        self.clock.advance(smtp.SECONDS)
        self.assertTrue(server.transport.disconnected)
        self.assertEqual(smtp.reason(self.failureResultOf(sent).value).split(":")[0], "TimeoutError")
        server.client.connectionLost(Failure(ConnectionDone()))

    def test_no_connection(self):
        server = Endpoint(connects=False)
        sent = self.start(server)
        self.clock.advance(smtp.SECONDS)
        self.failureResultOf(sent)
        self.assertEqual(server.cancelled, 1)

    def test_nonsense(self):
        server = Endpoint()
        sent = self.start(server)
        server.says(b"SSH-2.0-x the-text")
        server.client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(smtp.reason(self.failureResultOf(sent).value), "SMTPProtocolError, code -1")

    def test_a_login_over_a_network_in_clear(self):
        for host, secure, exposed in (("h", False, True), ("h", True, False), ("::1", False, False)):
            made = smtp.Smtp(mail_settings(host=host, secure=secure, login="u", password="p"), Reactor())
            self.assertEqual(made.exposes_login, exposed)

    def test_loopback(self):
        for host, local in (
            ("localhost", True), ("LOCALHOST.", True), ("127.8.9.1", True), ("::1", True), ("10.0.0.1", False),
            ("localhost.example.com", False), ("0.0.0.0", False),
        ):  # fmt: skip
            self.assertEqual(smtp.is_loopback(host), local, host)


class ServiceTests(SynchronousTestCase):
    MAIL = "smtp_host: mail.example.com, from_addr: a, to_addr: b"

    def settings(self, keys: str) -> config.Settings:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(f"dev: {{storage_path: store, {keys}}}\n")
        return config.load(None, None, {}, str(folder))

    def observers(self, keys: str, **options: Any) -> tuple[int, int]:
        """How many observe the log while it runs, and when it has stopped."""
        reactor, publisher = Reactor(), LogPublisher()
        made = MailService(self.settings(keys), reactor, publisher=publisher, **options)
        made.startService()
        self.assertEqual(publisher._observers, [])
        for call, args, kw in reactor.whenRunningHooks:
            call(*args, **kw)
        running = len(publisher._observers)
        made.stopService()
        return running, len(publisher._observers)

    def test_it_observes_while_it_runs(self):
        self.assertEqual(self.observers(self.MAIL), (1, 0))

    def test_no_mail_server(self):
        self.assertEqual(self.observers("threads: 4"), (0, 0))

    def test_another_process_mails(self):
        self.assertEqual(self.observers(self.MAIL, enabled=False), (0, 0))

    def test_it_tells(self):
        with capturedLogs() as events:
            self.observers(self.MAIL + ", smtp_login: u, smtp_password: p")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "mailing failures to b through mail.example.com port 25",
                "smtp_login and smtp_password go to mail.example.com port 25 unencrypted; set smtp_secure",
            ],
        )

    def test_secrets_of_the_settings(self):
        settings = self.settings(
            f"{self.MAIL}, secret_key: one1, cache: {{password: two2}}, smtp_password: three,"
            " email_exceptions: {smtp_password: four}, s3_secret_key: five"
        )
        self.assertEqual(sorted(secrets_of(settings)), ["five", "four", "one1", "three", "two2"])

    def test_twisted_mail_is_imported_only_for_mail(self):
        code = "import sys; import txregistry.service; sys.exit('twisted.mail' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode, 0)
