"""Who is believed about a client's address, scheme and host, and where that is used."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.web.v1.base import V1TestCase
from txregistry.auth.facts import Facts
from txregistry.testing.agent import Agent
from txregistry.web.access import facts_of
from txregistry.web.proxies import Origin, TrustedProxies, parse_address
from txregistry.web.request import RegistryRequest

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")
REPOSITORY = "/v1/repositories/a/b/"


def origin(peer: "str | None" = "127.0.0.1", **headers: "str | Sequence[str]") -> "Origin | None":
    """The origin of a request with these headers, named by the end of their names."""
    names = {
        "chain": "X-Forwarded-For", "real": "X-Real-IP", "proto": "X-Forwarded-Proto", "host": "X-Forwarded-Host"
    }  # fmt: skip
    given = {names[key]: [value] if isinstance(value, str) else list(value) for key, value in headers.items()}
    return TrustedProxies(TRUSTED).origin(peer, False, lambda name: given.get(name, []))


class OriginTests(SynchronousTestCase):
    def address(self, peer: "str | None" = "127.0.0.1", **headers: "str | Sequence[str]") -> str:
        found = origin(peer, **headers)
        assert found is not None
        return found.address

    def test_only_trusted_front_ends_are_believed(self):
        for peer in ("192.0.2.1", "11.0.0.1", "::1", "nonsense"):
            self.assertIsNone(origin(peer, chain="198.51.100.7", proto="https"), peer)
        for peer in ("127.0.0.1", "10.255.0.1", "fd00::1", "::ffff:10.1.1.1"):
            self.assertEqual(self.address(peer, chain="198.51.100.7"), "198.51.100.7", peer)

    def test_a_front_end_on_a_unix_socket_is(self):
        self.assertEqual(self.address(None, chain="198.51.100.7"), "198.51.100.7")
        self.assertEqual(self.address(None), "-")

    def test_the_list_is_read_from_its_end(self):
        for chain, expected in [
            ("198.51.100.7", "198.51.100.7"),
            ("6.6.6.6, 198.51.100.7", "198.51.100.7"),
            ("6.6.6.6, 198.51.100.7, 10.0.0.2, 10.0.0.3", "198.51.100.7"),
            (["6.6.6.6", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
            ("6.6.6.6, unknown", "127.0.0.1"),
            (" , ,", "127.0.0.1"),
        ]:
            self.assertEqual(self.address(chain=chain), expected, chain)

    def test_the_other_header_counts_without_a_list(self):
        self.assertEqual(self.address(real="198.51.100.7"), "198.51.100.7")
        self.assertEqual(self.address(real="6.6.6.6", chain="198.51.100.7"), "198.51.100.7")
        self.assertEqual(self.address(real="nonsense"), "127.0.0.1")

    def test_schemes(self):
        cases: list[tuple[dict[str, str], bool]] = [
            ({"proto": "https"}, True),
            ({"proto": "HTTPS"}, True),
            ({"proto": "http"}, False),
            ({}, False),
            # The client wrote the first, the front end the second.
            ({"chain": "198.51.100.7", "proto": "https, http"}, False),
            # TLS ends at the first of two front ends.
            ({"chain": "198.51.100.7, 10.0.0.2", "proto": "https, http"}, True),
            ({"chain": "198.51.100.7, 10.0.0.2", "proto": "https"}, True),
        ]
        for headers, secure in cases:
            found = origin("127.0.0.1", **headers)
            assert found is not None
            self.assertEqual(found.secure, secure, headers)
        found = TrustedProxies(TRUSTED).origin("127.0.0.1", True, lambda name: [])
        assert found is not None
        self.assertTrue(found.secure)

    def test_hosts(self):
        for host, expected in [
            ("registry.example:8443", "registry.example:8443"),
            ("[::1]:5000", "[::1]:5000"),
            ("evil.example, registry.example", "registry.example"),
            ("a b", None),
            ("http://registry.example", None),
            ("", None),
        ]:
            found = origin(host=host)
            assert found is not None
            self.assertEqual(found.host, expected, host)

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.text(alphabet="0123456789abcdef:.,[]% ", max_size=60), st.text(max_size=40))
    def test_nothing_breaks_it(self, chain: str, host: str):
        found = origin(chain=chain, host=host, real=host, proto=host)
        assert found is not None
        self.assertIsNotNone(parse_address(found.address))


class RequestTests(V1TestCase):
    """Where it is used."""

    FORWARDED = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "r.example"}

    def setUp(self):
        super().setUp()
        self.lines: list[str] = []
        agent = self.memory.agent
        self.agent = Agent(agent.site.resource, agent.clock, access_log=self.lines.append)
        self.memory.agent = self.agent

    def trust(self, *networks: str) -> None:
        self.agent.site.proxies = TrustedProxies(networks)

    def endpoints(self, headers: "dict[str, str]") -> "str | None":
        return self.put(REPOSITORY, b"[]", headers).header("X-Docker-Endpoints")

    def test_the_access_log_has_the_client(self):
        self.trust("127.0.0.1")
        self.get("/v1/_ping", self.FORWARDED)
        self.get("/v1/_ping")
        self.assertEqual([line.split()[0] for line in self.lines], ["198.51.100.7", "127.0.0.1"])

    def test_nobody_is_believed_without_being_trusted(self):
        self.assertEqual(self.endpoints(self.FORWARDED), "localhost:5000")
        self.trust("192.0.2.0/24")
        self.assertEqual(self.endpoints(self.FORWARDED), "localhost:5000")
        self.assertEqual([line.split()[0] for line in self.lines], ["127.0.0.1", "127.0.0.1"])

    def test_endpoints_are_where_the_client_asked(self):
        self.trust("127.0.0.1")
        self.assertEqual(self.endpoints(self.FORWARDED), "r.example")
        self.assertEqual(self.endpoints({"Host": "kept.example:443"}), "kept.example:443")

    def test_what_the_guard_is_told(self):
        seen: list[Facts] = []

        def note(request: RegistryRequest) -> None:
            seen.append(facts_of(request, "", {}))

        self.trust("127.0.0.1")
        site = self.agent.site
        finished = site.log

        def log(request: RegistryRequest) -> None:
            note(request)
            finished(request)

        self.patch(site, "log", log)
        self.get("/v1/_ping", self.FORWARDED)
        self.get("/v1/_ping", {"X-Forwarded-For": "2001:db8::7", "X-Forwarded-Proto": "http"})
        told = [(facts.address, facts.secure) for facts in seen]
        self.assertEqual(told, [("198.51.100.7", True), ("2001:db8::7", False)])
