"""Mail over real sockets: from a registry that fails to a mail server on this machine."""

import email
import http.client
import socket
import traceback
from base64 import b64encode
from email.policy import default
from pathlib import Path
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.certificates import Authority, twisted_context
from tests.services.smtp import Received, SmtpSink
from txregistry import config, service
from txregistry.config import ConfigError, Mail
from txregistry.smtp import Smtp, reason

PASSWORD = "correct-horse"
USERS = {"registry": PASSWORD}


def trust(authority: Authority) -> Any:
    """The trust root that is this authority."""
    return ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(Path(authority.path).read_bytes())])


class SinkCase(TestCase):
    """What the tests share: a mail server with a certificate of an authority of ours."""

    def start(self, tls: bool = True, client_ca: "str | None" = None, **options: Any) -> SmtpSink:
        self.authority = Authority(self.mktemp())
        certificate, key = self.authority.issue("server")
        context = twisted_context(certificate, key, client_ca and self.authority.path)
        sink = SmtpSink(context if tls else None, **options)
        self.port: Any = reactor.listenTCP(0, sink, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        return sink

    def mail(self, **changed: Any) -> Mail:
        values: dict[str, Any] = {
            "host": "localhost", "port": self.port.getHost().port, "login": "registry", "password": PASSWORD,
            "secure": True, "keyfile": None, "certfile": None, "from_addr": "r@example.com",
            "to_addr": ("ops@example.com",),
        }  # fmt: skip
        return Mail(**{**values, **changed})


class DeliveryTests(SinkCase):
    MESSAGE = b"Subject: x\n\none\n.two\n"

    async def refused(self, mail: Mail, **options: Any) -> str:
        """Why a mail could not be delivered."""
        try:
            await Smtp(mail, reactor, **options).deliver(self.MESSAGE)
        except Exception as error:
            # Nothing of the dialogue, whoever prints it.
            told = "".join(traceback.format_exception(error)) + reason(error)
            for secret in (PASSWORD, b64encode(PASSWORD.encode()).decode()):
                self.assertNotIn(secret, told)
            return reason(error)
        raise AssertionError("it was delivered")

    async def test_starttls_and_login_with_a_verified_certificate(self):
        sink = self.start(users=USERS)
        mail = self.mail(from_addr="Registry <r@example.com>", to_addr=("ops@example.com", "Boss <boss@example.com>"))
        taken = await Smtp(mail, reactor, trust=trust(self.authority)).deliver(self.MESSAGE)
        self.assertEqual(taken, 2)
        lines = [b"Subject: x", b"", b"one", b".two"]
        self.assertEqual(
            sink.messages,
            [
                Received("r@example.com", "ops@example.com", True, True, lines),
                Received("r@example.com", "boss@example.com", True, True, lines),
            ],
        )

    async def test_plain_without_login(self):
        sink = self.start(tls=False)
        await Smtp(self.mail(secure=False, login=None, password=None), reactor).deliver(self.MESSAGE)
        received = await sink.message(0)
        self.assertEqual((received.tls, received.login), (False, False))

    async def test_starttls_is_not_used_unless_asked_for(self):
        sink = self.start()
        await Smtp(self.mail(secure=False, login=None, password=None), reactor).deliver(self.MESSAGE)
        self.assertFalse((await sink.message(0)).tls)

    async def test_starttls_without_login(self):
        sink = self.start()
        await Smtp(self.mail(login=None, password=None), reactor).deliver(self.MESSAGE)
        self.assertTrue((await sink.message(0)).tls)

    async def test_a_certificate_on_this_machine_may_be_anybodys(self):
        sink = self.start(users=USERS)
        await Smtp(self.mail(), reactor).deliver(self.MESSAGE)
        self.assertTrue((await sink.message(0)).login)

    async def test_a_certificate_of_another_authority(self):
        sink = self.start(users=USERS)
        other = Authority(self.mktemp())
        why = await self.refused(self.mail(), trust=trust(other))
        self.assertEqual(why, "TLS failed: certificate verify failed")
        self.assertEqual(sink.dialogue[1:], [b"STARTTLS"])

    async def test_a_certificate_for_another_name(self):
        sink = self.start(users=USERS)
        # The loopback network has many addresses; the certificate is for 127.0.0.1 alone.
        self.port.stopListening()
        self.port = reactor.listenTCP(0, sink, interface="127.0.0.2")
        self.addCleanup(self.port.stopListening)
        await self.refused(self.mail(host="127.0.0.2"), trust=trust(self.authority))
        self.assertEqual(sink.dialogue[1:], [b"STARTTLS"])

    async def test_no_starttls_where_it_is_asked_for(self):
        sink = self.start(tls=False)
        why = await self.refused(self.mail(login=None, password=None))
        self.assertEqual(why, "TLSRequiredError, code 502")
        self.assertEqual(sink.messages, [])

    async def test_a_wrong_password(self):
        sink = self.start(users={"registry": "another"})
        self.assertEqual(await self.refused(self.mail()), "AUTHDeclinedError, code 535")
        self.assertEqual(sink.messages, [])

    async def test_a_login_is_never_left_out(self):
        sink = self.start(tls=False)
        why = await self.refused(self.mail(secure=False))
        self.assertTrue(why.startswith("AUTHRequiredError"), why)
        self.assertEqual(sink.messages, [])

    async def test_refused_recipients(self):
        sink = self.start(refused=("b@example.com",))
        mail = self.mail(login=None, password=None, to_addr=("a@example.com", "b@example.com"))
        self.assertEqual(await Smtp(mail, reactor).deliver(self.MESSAGE), 1)
        why = await self.refused(self.mail(login=None, password=None, to_addr=("b@example.com",)))
        self.assertEqual(why, "SMTPDeliveryError, code 550")
        self.assertEqual(len(sink.messages), 1)

    async def test_nobody_there(self):
        self.start()
        mail = self.mail()
        await maybeDeferred(self.port.stopListening)
        self.assertTrue((await self.refused(mail)).startswith("ConnectionRefusedError: "))

    async def test_a_certificate_of_ours(self):
        self.start(client_ca="yes")
        certificate, key = self.authority.issue("registry", client=True)
        pem = Path(self.mktemp())
        pem.write_bytes(Path(key).read_bytes() + Path(certificate).read_bytes())
        for files in ((key, certificate), (str(pem), str(pem))):
            mail = self.mail(login=None, password=None, keyfile=files[0], certfile=files[1])
            self.assertEqual(await Smtp(mail, reactor).deliver(self.MESSAGE), 1)
        await self.refused(self.mail(login=None, password=None))

    def test_files_that_cannot_be_used(self):
        self.start()
        error = self.assertRaises(ConfigError, Smtp, self.mail(keyfile="/nowhere", certfile="/nowhere"), reactor)
        self.assertEqual(str(error), "smtp_secure: cannot read the certificate /nowhere: No such file or directory")
        _, key = self.authority.issue("registry")
        error = self.assertRaises(ConfigError, Smtp, self.mail(keyfile=key, certfile=key), reactor)
        self.assertIn(f"the certificate {key} has no certificate in PEM form", str(error))


class RegistryTests(SinkCase):
    """The whole: a request ends in a 500, and the operator has mail."""

    def serve(self) -> "service.RegistryService":
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(
            f"""
dev:
  storage_path: store
  listen: tcp:0:interface=127.0.0.1
  access_log: off
  secret_key: the-secret-key
  email_exceptions:
    smtp_host: localhost:{self.port.getHost().port}
    smtp_login: registry
    smtp_password: {PASSWORD}
    smtp_secure: true
    from_addr: Registry <r@example.com>
    to_addr: [ops@example.com, boss@example.com]
"""
        )
        whole = service.make(config.load(None, None, {}, str(folder)), reactor)
        whole.privilegedStartService()
        whole.startService()
        self.addCleanup(whole.stopService)
        registry = next(iter(whole))
        assert isinstance(registry, service.RegistryService)
        return registry

    async def test_a_failed_request(self):
        # It would wrap trial's own observer for good.
        self.patch(service, "keep_from", lambda level: None)
        sink = self.start(users=USERS)
        registry = self.serve()
        given = "Basic " + b64encode(b"alice:her-password").decode()

        request_headers = {"Authorization": given, "Cookie": "session=of-a-cookie"}

        def fail(*args: object, **more: object) -> object:
            raise ValueError(
                f"no {given} with the-secret-key\n.\nMAIL FROM:<x@y>\nredis://:pass-of-redis@h/0\n{request_headers}"
            )

        self.patch(registry.registry.tags, "names", fail)
        address = registry.ports[0].getHost()
        assert isinstance(address, IPv4Address)
        port = address.port

        def ask() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request(
                    "GET", "/v2/some/name/tags/list?token=of-a-query",
                    headers={"Connection": "close", **request_headers},
                )  # fmt: skip
                return connection.getresponse().status
            finally:
                connection.close()

        self.assertEqual(await deferToThread(ask), 500)
        first, second = await sink.message(0), await sink.message(1)
        self.flushLoggedErrors(ValueError)
        self.assertEqual((first.tls, first.login, first.sender), (True, True, "r@example.com"))
        self.assertEqual({first.recipient, second.recipient}, {"ops@example.com", "boss@example.com"})
        raw = b"\n".join(first.lines)
        read = email.message_from_bytes(raw, policy=default)
        text = read.get_content()
        self.assertIn("Traceback (most recent call last):", text)
        self.assertIn("in fail\n    raise ValueError(", text)
        self.assertIn("ValueError: no Basic [redacted] with [redacted]\n .\nMAIL FROM:<x@y>\n", text)
        self.assertIn("redis://[redacted]@h/0", text)
        self.assertIn("Request: GET /v2/some/name/tags/list", text)
        self.assertEqual(
            read["Subject"], f"[{socket.gethostname()} dev] ValueError: no Basic [redacted] with [redacted]"
        )
        self.assertEqual(read["To"], "ops@example.com, boss@example.com")
        for secret in (
            "her-password", given, b64encode(b"alice:her-password").decode(), "of-a-query", "of-a-cookie",
            "the-secret-key", "pass-of-redis", PASSWORD,
        ):  # fmt: skip
            self.assertNotIn(secret, raw.decode())
