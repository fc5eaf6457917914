"""Mail about failures: which are told, when, and which are only counted.

The first failure is mailed at once. Those of the next minute are gathered, the first of each kind with its traceback,
and make one mail; while that goes on, the minute becomes two, four, and at last an hour.
"""

# Twisted's services have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime, make_msgid
from traceback import extract_tb, format_list
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

from txregistry import redact
from txregistry.config import Mail, Settings
from txregistry.config.keys import Block, Key
from txregistry.config.schema import KEYS
from txregistry.redact import Redactor
from txregistry.version import __version__

#: How long failures are gathered, in seconds: at first, and at most.
FIRST_WAIT, LONGEST_WAIT = 60.0, 3600.0
#: How many kinds of failures one mail shows.
KINDS = 5
#: How long mails under way at a stop are waited for, in seconds.
STOP_SECONDS = 5.0
#: Characters of one report's parts, and of a whole body.
_MESSAGE, _FRAMES, _TITLE, _BODY = 6000, 6000, 150, 64 << 10
#: Causes of a failure that are told; each may have one of its own.
_CAUSES = 3
#: RFC 5322 allows 998 octets in a line.
_LINE = 900

_LEVELS = (LogLevel.error, LogLevel.critical)
#: Files whose failures are never mailed.
_OWN = {__file__, redact.__file__, os.path.join(os.path.dirname(__file__), "smtp.py")}
_TWISTED_MAIL = f"{os.sep}twisted{os.sep}mail{os.sep}"

_log = Logger()


@dataclass(slots=True)
class Kind:
    """Failures of one kind: the first one's title and report, and how many there were."""

    title: str
    report: str
    count: int = 1


@dataclass(slots=True)
class Batch:
    """What one mail tells: kinds by exception and place, and how many failures were of yet other kinds."""

    kinds: dict[tuple[str, str, int], Kind] = field(default_factory=dict)
    others: int = 0

    def total(self) -> int:
        """How many failures there were."""
        return sum(kind.count for kind in self.kinds.values()) + self.others


@implementer(ILogObserver)
class FailureMailer:
    """Observes the log, in whichever thread, and mails the failures in it.

    `deliver` sends a subject and a body and gives a Deferred; `explain` says of its errors what the log may have.
    """

    def __init__(
        self,
        deliver: Callable[[str, str], Deferred[Any]],
        explain: Callable[[BaseException], str],
        redactor: Redactor,
        origin: str,
        reactor: Any,
    ) -> None:
        self._deliver = deliver
        self._explain = explain
        self._redactor = redactor
        self._origin = origin
        self._reactor = reactor
        self._batch = Batch()
        self._untold = 0
        self._wait = FIRST_WAIT
        self._window: IDelayedCall | None = None
        self._sending: set[Deferred[None]] = set()

    def __call__(self, event: dict[str, Any]) -> None:
        """See one event; what it costs is paid after the request that logged it."""
        if isinstance(event.get("log_failure"), Failure) and event.get("log_level") in _LEVELS:
            self._reactor.callFromThread(self._take, event)

    def stop(self) -> Deferred[Any]:
        """Send what is gathered; the Deferred fires when all mails have left, or when it has taken too long."""
        if self._window is not None:
            self._window.cancel()
            self._window = None
        if self._batch.total():
            self._send()
        for each in self._sending:
            each.addTimeout(STOP_SECONDS, self._reactor)
        return DeferredList(list(self._sending), consumeErrors=True)

    def _take(self, event: dict[str, Any]) -> None:
        failure = event["log_failure"]
        frames = failure.frames
        if is_of_mail(event, frames):
            return
        name = getattr(failure.type, "__name__", "failure")
        where = frames[-1][1:3] if frames else ("", 0)
        kind = (name, *where)
        if kind in self._batch.kinds:
            self._batch.kinds[kind].count += 1
        elif len(self._batch.kinds) == KINDS:
            self._batch.others += 1
        else:
            message = self._redactor(safe_str(failure.value), _TITLE).strip().partition("\n")[0][:_TITLE]
            title = f"{name}: {message}" if message else name
            self._batch.kinds[kind] = Kind(title, report(event, self._redactor))
        if self._window is None:
            self._window = self._reactor.callLater(self._wait, self._window_over)
            self._send()

    def _window_over(self) -> None:
        self._window = None
        if not self._batch.total():
            self._wait = FIRST_WAIT
            return
        self._wait = min(self._wait * 2, LONGEST_WAIT)
        self._window = self._reactor.callLater(self._wait, self._window_over)
        self._send()

    def _send(self) -> None:
        batch, self._batch = self._batch, Batch()
        untold, self._untold = self._untold, 0
        sending = Deferred.fromCoroutine(self._sent(batch, untold))
        self._sending.add(sending)
        sending.addBoth(lambda _: self._sending.discard(sending))

    async def _sent(self, batch: Batch, untold: int) -> None:
        try:
            await self._deliver(subject(batch, self._origin), body(batch, untold, self._origin))
        except Exception as error:
            # Whatever it is, the failures are in the log, and a traceback here would ask for a mail.
            self._untold += batch.total() + untold
            _log.warn("a mail with {count} failure(s) could not be sent: {why}",
                      count=batch.total(), why=self._explain(error))  # fmt: skip


def is_of_mail(event: dict[str, Any], frames: Iterable[Any]) -> bool:
    """Whether a failure came from sending mail: a mail about it would fail as well, and so on."""
    if event.get("log_namespace", "").startswith("twisted.mail"):
        return True
    files = {frame[1] for frame in frames}
    return any(_TWISTED_MAIL in file for file in files) or not files.isdisjoint(_OWN)



def report(event: dict[str, Any], redactor: Redactor) -> str:
    """What is known of one failure: its request, its time, and its traceback with those of its causes."""
    failure = event["log_failure"]
    lines = [f"Time: {_time(event['log_time'])}"]
    method, uri = event.get("method"), event.get("uri")
    if method is not None and uri is not None:
        lines.append(f"Request: {redactor(f'{_text(method)} {_text(uri)}', _MESSAGE)}")
    # What Twisted logs the old way repeats the traceback below its first line.
    told = formatEvent(event).partition("\n")[0]
    if told and method is None:
        lines.append(f"Log: {redactor(told, _MESSAGE)}")
    parts = [_traceback([(frame[1], frame[2], frame[0]) for frame in failure.frames], failure.value, redactor)]
    error = failure.value
    for _ in range(_CAUSES):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if error is None:
            break
        frames = [(each.filename, each.lineno or 0, each.name) for each in extract_tb(error.__traceback__)]
        parts.append("caused by\n" + _traceback(frames, error, redactor))
    return "\n".join([*lines, "", *parts])


def _traceback(frames: list[tuple[str, int, str]], error: BaseException, redactor: Redactor) -> str:
    """As Python shows it. Lines of source have no secrets but words like `password =`, so they are not searched."""
    shown = "".join(format_list([(file, line, name, None) for file, line, name in frames]))
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = redactor(safe_str(error), _MESSAGE)
    told = redact.shortened(redactor.known(shown), _FRAMES)
    return f"Traceback (most recent call last):\n{told}{name}{': ' if message else ''}{message}\n"


def subject(batch: Batch, origin: str) -> str:
    """One line: where, what, and how many more."""
    first = next(iter(batch.kinds.values()))
    more = batch.total() - 1
    return f"[{origin}] {first.title}" + (f" and {more} more" if more else "")


def body(batch: Batch, untold: int, origin: str) -> str:
    """The text of a mail: what was counted only, then a report for each kind, then who tells it."""
    told = []
    if untold:
        told.append(f"Earlier failures whose mails could not be sent: {untold}")
    held_back = batch.total() - len(batch.kinds)
    if held_back:
        told.append(f"Further failures since the last mail, counted only: {held_back}")
        told += [f"  {kind.count - 1} more: {kind.title}" for kind in batch.kinds.values() if kind.count > 1]
        if batch.others:
            told.append(f"  {batch.others} of other kinds")
    parts = ["\n".join(told)] if told else []
    parts += [kind.report for kind in batch.kinds.values()]
    version = f"txregistry {__version__} on Python {platform.python_version()}"
    return f"\n{'-' * 70}\n".join(parts)[:_BODY] + f"\n-- \n{version}, {origin}, process {os.getpid()}\n"


def message(mail: Mail, subject: str, body: str, host: str, seconds: float) -> bytes:
    """A mail of text in ASCII as SMTP's client of Twisted wants it: lines end in LF and never begin with a dot.

    That client doubles the dot at a line's start only within one chunk of what it reads. `seconds` is the time since
    the epoch.
    """
    made = EmailMessage(policy=default)
    made["From"] = mail.from_addr
    made["To"] = ", ".join(mail.to_addr)
    made["Subject"] = subject
    made["Date"] = format_datetime(datetime.fromtimestamp(seconds, UTC))
    made["Message-ID"] = make_msgid(domain=host)
    made["Auto-Submitted"] = "auto-generated"
    lines = [
        f" {line}" if line.startswith(".") else line
        for whole in body.split("\n")
        for line in (whole[start : start + _LINE] for start in range(0, len(whole) or 1, _LINE))
    ]
    made.set_content("\n".join(lines), cte="7bit")
    return made.as_bytes()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def secrets_of(settings: Settings) -> list[str]:
    """The values of all secret keys that are set, at every depth."""
    return [secret for key in KEYS for secret in _secrets(key, settings.values.get(key.name))]


def _secrets(key: Key, value: object) -> list[str]:
    if isinstance(key.kind, Block) and isinstance(value, dict):
        return [secret for each in key.kind.keys for secret in _secrets(each, value.get(each.name))]
    return [str(value)] if key.secret and value is not None else []


class MailService(Service):
    """Mails failures while the server runs, if the settings name a mail server.

    Of several processes that serve together one is `enabled`. ConfigError for a key or certificate of `smtp_secure`
    that cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        *,
        enabled: bool = True,
        publisher: LogPublisher = globalLogPublisher,
    ) -> None:
        self._mail = settings.mail if enabled else None
        self._reactor = reactor
        self._publisher = publisher
        self._host = socket.gethostname()
        self._mailer: FailureMailer | None = None
        if self._mail is not None:
            from txregistry import smtp  # noqa: PLC0415  # says why in its docstring

            self._smtp = smtp.Smtp(self._mail, reactor)
            origin = f"{self._host} {settings.flavor}"
            self._mailer = FailureMailer(
                self._deliver, smtp.reason, Redactor(secrets_of(settings)), origin, reactor
            )

    def startService(self) -> None:
        """Observe the log from when the reactor runs; `loglevel` replaces all who observe it before."""
        super().startService()
        self._reactor.callWhenRunning(self._observe)

    def stopService(self) -> Deferred[Any] | None:
        """Stop observing, and send what was gathered."""
        super().stopService()
        if self._mailer is None:
            return None
        self._publisher.removeObserver(self._mailer)
        return self._mailer.stop()

    def _observe(self) -> None:
        if not self.running or self._mail is None or self._mailer is None:
            return
        self._publisher.addObserver(self._mailer)
        recipients, server = ", ".join(self._mail.to_addr), f"{self._mail.host} port {self._mail.port}"
        _log.info("mailing failures to {recipients} through {server}", recipients=recipients, server=server)
        if self._smtp.exposes_login:
            _log.warn("smtp_login and smtp_password go to {server} unencrypted; set smtp_secure", server=server)

    def _deliver(self, subject: str, body: str) -> Deferred[int]:
        assert self._mail is not None, "there is no mailer without"
        return self._smtp.deliver(message(self._mail, subject, body, self._host, self._reactor.seconds()))
