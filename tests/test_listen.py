"""Endpoint strings, certificates and sockets: what works, and the one line for what does not."""

import socket
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.certificates import Authority, key_pem
from txregistry.listen import (
    Endpoint,
    ListenError,
    describe,
    is_local,
    listen,
    parse,
    registry_name,
    tls_context,
)


class ParseTests(SynchronousTestCase):
    def test_ports(self):
        self.assertEqual(parse("tcp:5000"), Endpoint("tcp:5000", "tcp", 5000, ""))
        self.assertEqual(parse("tcp:port=5000").port, 5000)
        endpoint = parse("https:5443:interface=127.0.0.1:backlog=7")
        self.assertEqual((endpoint.port, endpoint.interface, endpoint.backlog), (5443, "127.0.0.1", 7))
        self.assertTrue(endpoint.needs_certificate)
        self.assertFalse(parse("tcp:5000").needs_certificate)

    def test_ipv6(self):
        self.assertEqual(parse("tcp6:5000").interface, "::")
        self.assertEqual(parse(r"https:5443:interface=\:\:1").interface, "::1")

    def test_localhost(self):
        self.assertEqual(parse("tcp:0:interface=localhost").interface, "127.0.0.1")

    def test_others_are_left_to_twisted(self):
        self.assertEqual(parse("unix:/run/r.sock:mode=660").kind, "unix")
        self.assertEqual(parse("systemd:domain=INET:index=0").kind, "systemd")

    def test_refusals_name_the_endpoint(self):
        for text in [
            "5000",
            "",
            "tcp",
            "tcp:",
            "tcp:http",
            "tcp:65536",
            "tcp:-1",
            "tcp:5000:127.0.0.1",
            "tcp:5000:interfaces=127.0.0.1",
            "tcp:5000:interface=",
            "tcp:5000:interface=eth0",
            "tcp:5000:backlog=many",
            "https:interface=127.0.0.1",
        ]:
            error = self.assertRaises(ListenError, parse, text)
            self.assertIn(repr(text), str(error))
            self.assertNotIn("\n", str(error))


class TLSFileTests(SynchronousTestCase):
    def setUp(self):
        self.authority = Authority(self.mktemp())
        self.certificate, self.key = self.authority.issue("server")

    def refusal(self, *files: str) -> str:
        text = str(self.assertRaises(ListenError, tls_context, *files))
        self.assertNotIn("\n", text)
        return text

    def file(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def test_missing_files(self):
        self.assertEqual(
            self.refusal("/no/such.crt", self.key),
            "cannot read the certificate /no/such.crt: No such file or directory",
        )
        self.assertIn("cannot read the key /no/such.key", self.refusal(self.certificate, "/no/such.key"))
        self.assertIn(
            "cannot read the client authority /no/ca", self.refusal(self.certificate, self.key, "/no/ca")
        )

    def test_not_pem(self):
        empty = self.file(b"nothing")
        self.assertIn("no certificate in PEM form", self.refusal(empty, self.key))
        self.assertIn("no private key in PEM form", self.refusal(self.certificate, empty))

    def test_damaged(self):
        damaged = self.file(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.assertIn("not a valid certificate", self.refusal(damaged, self.key))
        damaged = self.file(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        self.assertIn("not a valid private key", self.refusal(self.certificate, damaged))

    def test_mismatch(self):
        _, other = self.authority.issue("other")
        self.assertEqual(
            self.refusal(self.certificate, other),
            f"the certificate {self.certificate} and the key {other} do not belong together",
        )

    def test_passphrase(self):
        protected = self.file(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
        self.assertIn("protected by a passphrase", self.refusal(self.certificate, protected))


class SayGood(Protocol):
    """When it is asked, sends a word and closes."""

    def dataReceived(self, data):
        assert self.transport is not None
        self.transport.write(b"good")
        self.transport.loseConnection()


class ListenTests(TestCase):
    def listen(self, endpoint: str, tls: "ssl.SSLContext | None" = None) -> int:
        """The port, closed when the test ends."""
        port = listen(reactor, parse(endpoint), Factory.forProtocol(SayGood), tls)
        self.addCleanup(maybeDeferred, port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    def hear(self, port: int, context: ssl.SSLContext) -> "tuple[bytes, str | None, str | None]":
        """What a TLS client reads, its protocol version and the application protocol agreed on."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.send(b"?")
            return secure.recv(100), secure.version(), secure.selected_alpn_protocol()

    def client(self, authority: Authority) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=authority.path)

    async def test_plain(self):
        port = self.listen("tcp:0:interface=127.0.0.1")

        def read() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
                plain.send(b"?")
                return plain.recv(100)

        self.assertEqual(await deferToThread(read), b"good")

    async def test_tls(self):
        authority = Authority(self.mktemp())
        port = self.listen("https:0:interface=127.0.0.1", tls_context(*authority.issue("server")))
        context = self.client(authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.assertEqual(await deferToThread(self.hear, port, context), (b"good", "TLSv1.3", "http/1.1"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertEqual(await deferToThread(self.hear, port, context), (b"good", "TLSv1.2", "http/1.1"))

    async def test_old_tls_and_old_ciphers_are_refused(self):
        authority = Authority(self.mktemp())
        port = self.listen("https:0:interface=127.0.0.1", tls_context(*authority.issue("server")))
        old = self.client(authority)
        # Security level 0 lets the client itself agree to what it would refuse today.
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises(ssl.SSLError):
            await deferToThread(self.hear, port, old)
        weak = self.client(authority)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384")
        with self.assertRaises(ssl.SSLError):
            await deferToThread(self.hear, port, weak)

    async def test_client_authority(self):
        authority = Authority(self.mktemp())
        port = self.listen("https:0:interface=127.0.0.1", tls_context(*authority.issue("server"), authority.path))
        context = self.client(authority)
        with self.assertRaises(ssl.SSLError):
            await deferToThread(self.hear, port, context)
        stranger = self.client(authority)
        stranger.load_cert_chain(*Authority(self.mktemp(), "another").issue("eve", client=True))
        with self.assertRaises(ssl.SSLError):
            await deferToThread(self.hear, port, stranger)
        context.load_cert_chain(*authority.issue("alice", client=True))
        self.assertEqual((await deferToThread(self.hear, port, context))[0], b"good")

    async def test_unix_socket(self):
        path = self.mktemp()[-80:].replace("/", "_")
        self.addCleanup(Path(path).unlink, missing_ok=True)
        port = listen(reactor, parse(f"unix:{path}"), Factory.forProtocol(SayGood))
        self.addCleanup(maybeDeferred, port.stopListening)
        self.assertTrue(is_local(port.getHost()))
        self.assertEqual(describe(port.getHost(), False), f"unix:{path}")

    def refusal(self, endpoint: str) -> str:
        text = str(self.assertRaises(ListenError, self.listen, endpoint))
        self.assertTrue(text.startswith(f"cannot listen on {endpoint}: "), text)
        self.assertNotIn("\n", text)
        return text

    def test_port_taken(self):
        taken = self.listen("tcp:0:interface=127.0.0.1")
        self.assertIn("already in use", self.refusal(f"tcp:{taken}:interface=127.0.0.1"))

    def test_foreign_address(self):
        self.assertIn("does not have that address", self.refusal("tcp:0:interface=192.0.2.1"))

    def test_errors_of_other_endpoints(self):
        self.refusal("nonesuch:1")
        self.refusal("ssl:0:privateKey=/no/such.pem")
        self.refusal("unix:/no/such/folder/r.sock")
        self.refusal("systemd:domain=INET:index=0")


class AddressTests(SynchronousTestCase):
    def test_who_can_reach_it(self):
        self.assertTrue(is_local(IPv4Address("TCP", "127.0.0.5", 1)))
        self.assertTrue(is_local(IPv6Address("TCP", "::1", 1)))
        self.assertTrue(is_local(UNIXAddress(b"/x")))
        self.assertFalse(is_local(IPv4Address("TCP", "0.0.0.0", 1)))
        self.assertFalse(is_local(IPv6Address("TCP", "::", 1)))
        self.assertFalse(is_local(IPv4Address("TCP", "10.1.2.3", 1)))

    def test_as_a_person_writes_it(self):
        self.assertEqual(describe(IPv4Address("TCP", "10.1.2.3", 80), False), "http://10.1.2.3:80")
        self.assertEqual(describe(IPv6Address("TCP", "::1", 443), True), "https://[::1]:443")

    def test_as_a_client_names_it(self):
        self.assertEqual(registry_name(IPv4Address("TCP", "127.0.0.1", 5000)), "localhost:5000")
        self.assertEqual(registry_name(IPv4Address("TCP", "0.0.0.0", 5000)), "localhost:5000")
        self.assertEqual(registry_name(IPv4Address("TCP", "10.1.2.3", 5000)), "10.1.2.3:5000")
        self.assertEqual(registry_name(IPv6Address("TCP", "fd00::1", 5000)), "[fd00::1]:5000")
        self.assertIsNone(registry_name(UNIXAddress(b"/x")))
