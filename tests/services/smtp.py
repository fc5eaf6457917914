"""A mail server for tests: keeps what it is sent, with STARTTLS and a login if it is told so."""

# mypy: disallow-untyped-calls=False

from dataclasses import dataclass, field
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import ESMTP, LOGINCredentials, SMTPBadRcpt, SMTPFactory
from zope.interface import implementer


@dataclass
class Received:
    """One message, once for each recipient; `lines` are as they came, without their ends."""

    sender: str
    recipient: str
    tls: bool
    login: bool
    lines: "list[bytes]" = field(default_factory=list)


@implementer(IMessageSMTP)
class _Message:
    def __init__(self, sink: "SmtpSink", received: Received) -> None:
        self.sink = sink
        self.received = received

    def lineReceived(self, line: bytes) -> None:
        self.received.lines.append(line)

    def eomReceived(self) -> "Deferred[None]":
        self.sink.messages.append(self.received)
        waiting, self.sink.waiting = self.sink.waiting, []
        for each in waiting:
            each.callback(self.received)
        return succeed(None)

    def connectionLost(self) -> None:
        """The message is incomplete, and forgotten."""


@implementer(IMessageDelivery)
class _Delivery:
    def __init__(self, sink: "SmtpSink", avatar: object) -> None:
        self.sink = sink
        self.login = bool(avatar)
        self.sender = ""
        self.protocol: Any = None

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> bytes:
        return b""

    def validateFrom(self, helo: object, origin: object) -> object:
        self.sender = str(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        address = str(user.dest)
        if address in self.sink.refused:
            raise SMTPBadRcpt(user)
        received = Received(self.sender, address, user.protocol.startedTLS, self.login)
        return lambda: _Message(self.sink, received)


@implementer(IRealm)
class _Realm:
    def __init__(self, sink: "SmtpSink") -> None:
        self.sink = sink

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: object) -> Any:
        return IMessageDelivery, _Delivery(self.sink, avatarId), lambda: None


class _Protocol(ESMTP):
    factory: "SmtpSink"

    def extensions(self) -> "dict[bytes, Any]":
        """A login is offered only where nobody can listen."""
        offered = super().extensions()
        if not self.startedTLS:
            offered[b"AUTH"] = []
        return offered

    def lineReceived(self, line: bytes) -> None:
        self.factory.dialogue.append(line)
        super().lineReceived(line)

    def ext_AUTH(self, rest: bytes) -> None:
        if not self.startedTLS:
            self.sendCode(538, b"Encryption required")
        else:
            super().ext_AUTH(rest)

    def do_MAIL(self, rest: bytes) -> None:
        if self.factory.users and not self.authenticated:
            self.sendCode(530, b"Authentication required")
        else:
            super().do_MAIL(rest)


class SmtpSink(SMTPFactory):
    """The server's factory: `messages` are what came, `dialogue` every line of every client, in clear.

    `tls` is what STARTTLS is answered with; with `users` a login is needed, and offered after STARTTLS; mail to the
    `refused` addresses is not taken.
    """

    protocol = _Protocol
    noisy = False

    def __init__(self, tls: Any = None, users: "dict[str, str] | None" = None, refused: "tuple[str, ...]" = ()) -> None:
        self.tls = tls
        self.users = users or {}
        self.refused = refused
        self.messages: list[Received] = []
        self.dialogue: list[bytes] = []
        self.waiting: list[Deferred[Received]] = []
        checker = InMemoryUsernamePasswordDatabaseDontUse(
            **{name: password.encode() for name, password in self.users.items()}
        )
        super().__init__(Portal(_Realm(self), [checker] if self.users else [checker, AllowAnonymousAccess()]))

    def buildProtocol(self, addr: object) -> Any:
        made: Any = super().buildProtocol(addr)
        made.noisy = False
        made.timeout = None
        made.ctx = self.tls
        made.challengers = {b"LOGIN": LOGINCredentials}
        return made

    async def message(self, number: int) -> Received:
        """The message of this number, from 0; waits until it is there."""
        while len(self.messages) <= number:
            coming: Deferred[Received] = Deferred()
            self.waiting.append(coming)
            await coming
        return self.messages[number]
