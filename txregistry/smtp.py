"""Delivery of a mail to one SMTP server: STARTTLS, login, one message, within a bounded time.

Importing this imports twisted.mail, which asks for the machine's full name and takes the installed reactor: only who
has mail to send imports it, before the server runs.
"""

# twisted.mail has hardly any annotations.
# mypy: disallow-untyped-calls=False, disallow-any-unimported=False

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from email.utils import parseaddr
from io import BytesIO
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.logger import Logger
from twisted.mail.smtp import (
    DNSNAME,
    SUCCESS,
    CramMD5ClientAuthenticator,
    ESMTPClient,
    LOGINAuthenticator,
    PLAINAuthenticator,
    SMTPClientError,
    SMTPDeliveryError,
)
from twisted.python.failure import Failure

from txregistry.config import ConfigError, Mail
from txregistry.listen import ListenError, credentials

#: Bounds of a delivery, in seconds: to connect, and from the beginning to the end.
CONNECT_SECONDS, SECONDS = 10.0, 30.0

_log = Logger()


class Smtp:
    """The server that the settings name; `exposes_login` if a password goes over the network in clear.

    `trust` are the authorities of its certificate, instead of the machine's; `endpoint` a way to it, instead of TCP.
    ConfigError for a key or a certificate that cannot be used; the files are read now.
    """

    def __init__(
        self, mail: Mail, reactor: Any, *, trust: Any = None, endpoint: IStreamClientEndpoint | None = None
    ) -> None:
        self._mail = mail
        self._reactor = reactor
        self._endpoint = endpoint or HostnameEndpoint(reactor, mail.host, mail.port, timeout=CONNECT_SECONDS)
        self._tls = _client_tls(mail, trust) if mail.secure else None
        self.exposes_login = mail.login is not None and not mail.secure and not is_loopback(mail.host)

    def deliver(self, message: bytes) -> Deferred[int]:
        """Send a message whose lines end in LF; the number of recipients that the server took, at least one.

        Whatever the errors say of the dialogue stays here: `reason` says what of them may be told.
        """
        return Deferred.fromCoroutine(self._deliver(message)).addTimeout(SECONDS, self._reactor)

    async def _deliver(self, message: bytes) -> int:
        client = Client(self._mail, message, self._tls)
        await self._endpoint.connect(Factory.forProtocol(lambda: client))
        taken = await client.result
        if taken < len(self._mail.to_addr):
            _log.warn("{host} took a mail for {taken} of {all} recipients only",
                      host=self._mail.host, taken=taken, all=len(self._mail.to_addr))  # fmt: skip
        return taken


class Client(ESMTPClient):
    """One connection, which sends one message; `result` fires when it has ended."""

    #: The dialogue, which has the password in it, would become part of each exception's text.
    debug = False

    def __init__(self, mail: Mail, message: bytes, tls: Any) -> None:
        login, password = (mail.login or "").encode(), (mail.password or "").encode()
        super().__init__(password, tls, DNSNAME)
        self.requireAuthentication = bool(login)
        self.requireTransportSecurity = mail.secure
        self.heloFallback = not login and not mail.secure
        if login:
            for each in (CramMD5ClientAuthenticator, LOGINAuthenticator, PLAINAuthenticator):
                self.registerAuthenticator(each(login))
        self._sender: str | None = parseaddr(mail.from_addr)[1]
        self._recipients = [parseaddr(address)[1].encode("ascii") for address in mail.to_addr]
        self._message = message
        self._outcome: int | Exception | None = None
        self.result: Deferred[int] = Deferred(self._give_up)

    def getMailFrom(self) -> str | None:
        """The sender, then None: one message for each connection."""
        sender, self._sender = self._sender, None
        return sender

    def getMailTo(self) -> list[bytes]:
        """The recipients."""
        return self._recipients

    def getMailData(self) -> BytesIO:
        """The message."""
        return BytesIO(self._message)

    def sentMail(self, code: int, resp: bytes, numOk: int, addresses: Sequence[Any], log: object) -> None:
        """Keep what the server said of the message."""
        self._outcome = numOk if code in SUCCESS else SMTPDeliveryError(code, resp)

    def sendError(self, exc: Exception) -> None:
        """Keep what went wrong first, and disconnect."""
        if self._outcome is None:
            self._outcome = exc
        super().sendError(exc)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the outcome; a loss before there was one is itself the outcome."""
        super().connectionLost(reason)
        self._tell(reason)

    def _give_up(self, _: object) -> None:
        # The message may have arrived, and only the farewell be missing.
        self._tell(Failure(CancelledError()))
        if self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def _tell(self, otherwise: Failure) -> None:
        if self.result.called:
            return
        if isinstance(self._outcome, int):
            self.result.callback(self._outcome)
        else:
            self.result.errback(Failure(self._outcome) if self._outcome else otherwise)


def reason(error: BaseException) -> str:
    """What an error of a delivery says for the log: of SMTP's only type and code, since its text may echo a login."""
    kind = type(error).__name__
    if isinstance(error, SMTPClientError):
        return f"{kind}, code {error.code}"
    if isinstance(error, SSL.Error):
        # Each is (library, function, reason), the first two of which help nobody.
        reasons = [str(each[-1]) for each in error.args[0]] if error.args and isinstance(error.args[0], list) else []
        return f"TLS failed: {', '.join(reasons) or kind}"
    if isinstance(error, ConnectError | ConnectionClosed | DNSLookupError | OSError):
        return f"{kind}: {error}"
    return kind


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address; no name is looked up."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _client_tls(mail: Mail, trust: Any) -> Any:
    """How STARTTLS is spoken: with our certificate if there is one, and a look at the server's unless it is local."""
    shown: dict[str, Any] = {}
    if mail.keyfile is not None:
        try:
            chain, key = credentials(mail.certfile or mail.keyfile, mail.keyfile)
        except ListenError as error:
            raise ConfigError(f"smtp_secure: {error}") from None
        shown = {"privateKey": key, "certificate": chain[0], "extraCertChain": chain[1:]}
    if trust is None and is_loopback(mail.host):
        # Mail servers make themselves a certificate for names that nobody calls them by on their own machine.
        return CertificateOptions(**shown)
    return optionsForClientTLS(mail.host, trustRoot=trust, extraCertificateOptions=shown)
