"""Tokens for Glance that requests bring along: off by default, and never for an address that is not allowed."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.test_guard import A, GuardTestCase
from tests.test_service import WithSettings
from tests.web.v1.base import A as IMAGE
from tests.web.v1.base import V1TestCase
from txregistry.auth.factory import AccessOptions, make_guard
from txregistry.auth.facts import By, Facts, Grant, Kind, Refused
from txregistry.auth.glance import GlanceAccess, glance_access
from txregistry.concurrency import start
from txregistry.errors import Denied
from txregistry.service import access_options_of
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.agent import Agent
from txregistry.testing.pools import ImmediatePool
from txregistry.web.app import make_resource

ALLOWED = ("https://glance.example:9292", "http://10.0.0.7:9292/image")


def headers(token: str | None = None, endpoint: str | None = None) -> dict[str, str]:
    given = {"x-meta-auth-token": token, "x-meta-glance-endpoint": endpoint}
    return {name: value for name, value in given.items() if value is not None}


class HeaderTests(SynchronousTestCase):
    def test_off_without_an_allowed_endpoint(self) -> None:
        for given in (headers("t"), headers("t", ALLOWED[0]), headers(None, "http://evil.example"), headers("a b")):
            self.assertIsNone(glance_access(given, ()))

    def test_a_token_alone_is_for_the_configured_glance(self) -> None:
        self.assertEqual(glance_access(headers("gAAAAA-_=.0"), ALLOWED), GlanceAccess("gAAAAA-_=.0"))
        self.assertEqual(glance_access(headers("t", ""), ALLOWED), GlanceAccess("t"))

    def test_an_allowed_endpoint(self) -> None:
        for endpoint in ALLOWED:
            for written in (endpoint, endpoint + "/"):
                self.assertEqual(glance_access(headers("t", written), ALLOWED), GlanceAccess("t", endpoint))

    def test_any_other_endpoint(self) -> None:
        for endpoint in (
            "http://glance.example:9292",
            "https://glance.example",
            "https://glance.example:9292/x",
            "https://glance.example:9292.evil.example",
            "https://u@glance.example:9292",
            "https://glance.example:9292?x",
            "https://glance.example:9292#",
            "https://glance.example:9292, https://glance.example:9292",
            " https://glance.example:9292",
            "x",
        ):
            error = self.assertRaises(Denied, glance_access, headers("t", endpoint), ALLOWED)
            self.assertEqual(error.message, "X-Meta-Glance-Endpoint is none of glance_request_endpoints")

    def test_an_endpoint_never_gets_the_registrys_own_token(self) -> None:
        for token in (None, ""):
            self.assertRaises(Denied, glance_access, headers(token, ALLOWED[0]), ALLOWED)

    def test_what_is_no_token(self) -> None:
        for token in ("a b", "a,b", "a\nb", "\x7f", "é", "x" * 16385):
            self.assertRaises(Denied, glance_access, headers(token), ALLOWED)
        self.assertIsNotNone(glance_access(headers("x" * 16384), ALLOWED))

    def test_neither(self) -> None:
        self.assertIsNone(glance_access({}, ALLOWED))

    def test_its_repr_is_no_secret(self) -> None:
        self.assertNotIn("sesam", repr(Grant(By.ANYBODY, glance=GlanceAccess("sesam"), set_cookie="sesam")))


class GuardTests(GuardTestCase):
    def test_off(self) -> None:
        self.assertTrue(self.guard.asks_nothing)
        grant = self.allowed("GET", A, **{"x-meta-auth-token": "t", "x-meta-glance-endpoint": "http://evil.example"})
        self.assertEqual(grant, Grant(By.ANYBODY))

    def test_on(self) -> None:
        self.guard = self.make(glance_endpoints=ALLOWED)
        self.assertEqual((self.guard.is_open, self.guard.asks_nothing), (True, False))
        grant = self.allowed("GET", A, **headers("t", ALLOWED[0]))
        self.assertEqual(grant, Grant(By.ANYBODY, glance=GlanceAccess("t", ALLOWED[0])))
        # Others must not get what Glance let this client see.
        self.assertTrue(grant.is_personal)
        self.assertEqual(self.allowed("GET", A), Grant(By.ANYBODY))
        self.failureResultOf(start(self.guard.allow(self.facts("GET", A, **headers("t", "http://x")))), Denied)

    def test_requests_for_everybody_are_not_looked_at(self) -> None:
        self.guard = self.make(glance_endpoints=ALLOWED)
        facts = Facts("GET", "/v1/_ping", Kind.OPEN, headers("t", "http://evil.example"))
        self.assertEqual(self.successResultOf(start(self.guard.allow(facts))), Grant(By.ANYBODY))

    def test_it_lets_nobody_in(self) -> None:
        options = AccessOptions(index_endpoint="http://i.example", standalone=False, glance_endpoints=ALLOWED)
        guard = make_guard(options, None, MemoryDriver(Clock()), ImmediatePool(), Clock())
        self.failureResultOf(start(guard.allow(self.facts("GET", A, **headers("t", ALLOWED[0])))), Refused)
        self.successResultOf(start(guard.close()))


class SettingsTests(WithSettings, SynchronousTestCase):
    def options(self, text: str) -> tuple[str, ...]:
        return access_options_of(self.settings(text)).glance_endpoints

    def test_the_list_is_the_switch(self) -> None:
        more = "storage: glance, os_auth_url: 'http://k.example', os_username: u, os_password: p, os_project_name: x"
        self.assertEqual(self.options("{}"), ())
        self.assertEqual(self.options(f"{{{more}}}"), ())
        given = f"glance_request_endpoints: ['{ALLOWED[0]}/', '{ALLOWED[1]}']"
        self.assertEqual(self.options(f"{{{more}, {given}}}"), ALLOWED)
        # Nothing but Glance takes such a token.
        self.assertEqual(self.options(f"{{{given}}}"), ())


class WebTests(V1TestCase):
    def use(self, allowed: tuple[str, ...]) -> None:
        guard = make_guard(
            AccessOptions(glance_endpoints=allowed), None, self.memory.driver, ImmediatePool(), self.memory.clock
        )
        self.memory.agent = Agent(make_resource(self.memory.registry, self.options, guard), self.memory.clock)

    def v2(self, given: dict[str, str]) -> Any:
        return self.successResultOf(self.memory.agent.request("GET", "/v2/", given))

    def test_both_protocols(self) -> None:
        self.push_image(IMAGE)
        path, evil = f"/v1/images/{IMAGE}/json", headers("t", "http://evil.example")
        self.use(())
        self.assertEqual((self.get(path, evil).code, self.v2(evil).code), (200, 200))
        self.use(ALLOWED)
        self.refused(self.get(path, evil), 403, "X-Meta-Glance-Endpoint is none of glance_request_endpoints")
        self.assertEqual((self.v2(evil).code, self.v2(evil).json()["errors"][0]["code"]), (403, "DENIED"))
        good = headers("t", ALLOWED[0])
        self.assertEqual((self.get(path, good).code, self.v2(good).code), (200, 200))
        # Two of them count as neither.
        twice = [("X-Meta-Auth-Token", "t"), ("X-Meta-Auth-Token", "u")]
        self.refused(self.get(path, twice), 403, "X-Meta-Auth-Token is no token")
