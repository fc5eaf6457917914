"""Signing in with Keystone: what is said, what its answers mean, and how long a token is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.openstack.fake import GivenHttp
from txregistry.concurrency import start
from txregistry.errors import NotFound, Unavailable
from txregistry.storage.openstack.keystone import Keystone, KeystoneOptions
from txregistry.storage.openstack.tokens import Refused

OPTIONS = KeystoneOptions(auth_url="http://k:5000", username="me", password="sesam", project_name="p")
CATALOG = [
    {"type": "image", "endpoints": [{"interface": "public", "region": "one", "url": "http://image.one/"}]},
    {
        "type": "object-store",
        "endpoints": [
            {"interface": "internal", "region": "one", "url": "http://inside"},
            {"interface": "public", "region": "one", "region_id": "one", "url": "http://swift.one/v1/AUTH_p"},
            {"interface": "public", "region": "two", "region_id": "two", "url": "http://swift.two/v1/AUTH_p/"},
        ],
    },
]


class KeystoneCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.answer: Any = None
        self.life = 3600
        self.http = GivenHttp(self._answered)
        self.keystone = Keystone(OPTIONS, self.http)

    def _answered(self, *_: Any) -> tuple[int, Mapping[str, str], bytes]:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer, {}, b"{}"
        end = f"2026-01-01T0{self.life // 3600}:{self.life % 3600 // 60:02}:{self.life % 60:02}.000000Z"
        token = {"issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": end, "catalog": CATALOG}
        name = f"token-{len(self.http.requests)}"
        return 201, {"x-subject-token": name}, json.dumps({"token": token}).encode()

    def token(self) -> str:
        return self.successResultOf(start(self.keystone.token()))


class SignInTests(KeystoneCase):
    def body(self, **options: Any) -> Any:
        http = GivenHttp(self._answered)
        self.http = http
        self.successResultOf(start(Keystone(KeystoneOptions(auth_url="http://k", **options), http).token()))
        return http.bodies[0]["auth"]

    def test_with_names(self) -> None:
        body = self.body(username="me", password="s", project_name="p", user_domain_name="Users")
        user = {"name": "me", "password": "s", "domain": {"name": "Users"}}
        self.assertEqual(body["identity"], {"methods": ["password"], "password": {"user": user}})
        self.assertEqual(body["scope"], {"project": {"name": "p", "domain": {"name": "Default"}}})

    def test_with_ids(self) -> None:
        body = self.body(
            username="me",
            password="s",
            project_name="p",
            user_domain_id="u",
            user_domain_name="no",
            project_domain_id="d",
        )
        self.assertEqual(body["identity"]["password"]["user"]["domain"], {"id": "u"})
        self.assertEqual(body["scope"]["project"]["domain"], {"id": "d"})

    def test_with_an_application_credential(self) -> None:
        body = self.body(
            application_credential_id="i", application_credential_secret="s", username="me", project_name="p"
        )
        self.assertEqual(
            body,
            {"identity": {"methods": ["application_credential"], "application_credential": {"id": "i", "secret": "s"}}},
        )

    def test_addresses(self) -> None:
        for given in (
            "http://k",
            "http://k/",
            "http://k/v3",
            "http://k/v3/",
            "http://k/v2.0",
            "http://k/v3/auth/tokens",
        ):
            self.assertEqual(KeystoneOptions(auth_url=given).tokens_url, "http://k/v3/auth/tokens")
        self.assertEqual(KeystoneOptions(auth_url="http://k/identity").tokens_url, "http://k/identity/v3/auth/tokens")

    def test_secrets_are_not_shown(self) -> None:
        shown = repr(KeystoneOptions(auth_url="x", password="sesam", application_credential_secret="sesam"))
        self.assertNotIn("sesam", shown)


class ErrorTests(KeystoneCase):
    def failure(self) -> Unavailable:
        failure = self.failureResultOf(start(self.keystone.token()), Unavailable)
        error = failure.value
        assert isinstance(error, Unavailable)
        self.assertNotIsInstance(error, NotFound)
        self.assertNotIn("\n", error.reason)
        self.assertNotIn("sesam", error.reason)
        return error

    def test_refused(self) -> None:
        for self.answer in (400, 401, 403):
            error = self.failure()
            self.assertIsInstance(error, Refused)
            self.assertIn("refuses user me in project p", error.reason)
        self.assertEqual(len(self.http.requests), 3)

    def test_something_else(self) -> None:
        for self.answer in (200, 204, 300, 404, 405):
            error = self.failure()
            self.assertNotIsInstance(error, Refused)
            self.assertIn(f"answers {self.answer}", error.reason)

    def test_in_trouble(self) -> None:
        for self.answer in (429, 500, 502, 503, 504, Unavailable("", "POST: refused")):
            begin = len(self.http.requests)
            self.assertNotIsInstance(self.failure(), Refused)
            self.assertEqual(len(self.http.requests) - begin, 3)
        self.answer = None
        self.assertEqual(self.token()[:5], "token")


class KeepTests(KeystoneCase):
    def test_a_token_is_kept_and_renewed_before_its_end(self) -> None:
        first = self.token()
        self.http.now += 3600 - 61
        self.assertEqual(self.token(), first)
        self.http.now += 2
        self.assertNotEqual(self.token(), first)
        self.assertEqual(len(self.http.requests), 2)

    def test_short_lives(self) -> None:
        self.life = 10
        first = self.token()
        self.http.now += 7
        self.assertEqual(self.token(), first)
        self.http.now += 2
        self.assertNotEqual(self.token(), first)

    def test_an_outage_before_its_end_harms_nobody(self) -> None:
        first = self.token()
        self.answer = Unavailable("", "down")
        self.http.now += 3600 - 30
        self.assertEqual(self.token(), first)
        self.http.now += 31
        self.failureResultOf(start(self.keystone.token()), Unavailable)

    def test_one_asks_for_all(self) -> None:
        self.http.gate = Deferred()
        waiting = [start(self.keystone.token()) for _ in range(5)]
        waiting[0].cancel()
        waiting[3].cancel()
        self.http.gate.callback(None)
        for number in (0, 3):
            self.failureResultOf(waiting[number])
        self.assertEqual({self.successResultOf(waiting[number]) for number in (1, 2, 4)}, {"token-1"})
        self.assertEqual(len(self.http.requests), 1)

    def test_all_hear_of_a_failure_and_the_next_one_asks_anew(self) -> None:
        self.answer = 401
        self.http.gate = Deferred()
        waiting = [start(self.keystone.token()) for _ in range(3)]
        self.http.gate.callback(None)
        for each in waiting:
            self.failureResultOf(each, Refused)
        self.answer, self.http.gate = None, None
        self.assertEqual(self.token(), "token-2")

    def test_a_refused_token_is_renewed_once(self) -> None:
        first = self.token()
        self.keystone.refused(first)
        second = self.token()
        self.assertNotEqual(first, second)
        self.keystone.refused(first)  # of a request that was sent before
        self.assertEqual(self.token(), second)
        self.assertEqual(len(self.http.requests), 2)


class CatalogTests(KeystoneCase):
    def endpoint(self, service_type: str, region: str | None) -> str:
        return self.successResultOf(start(self.keystone.endpoint(service_type, region)))

    def test_found(self) -> None:
        self.assertEqual(self.endpoint("object-store", None), "http://swift.one/v1/AUTH_p")
        self.assertEqual(self.endpoint("object-store", "two"), "http://swift.two/v1/AUTH_p")
        self.assertEqual(self.endpoint("image", "one"), "http://image.one")

    def test_not_there(self) -> None:
        for service, region in (("volume", None), ("image", "two")):
            failure = self.failureResultOf(start(self.keystone.endpoint(service, region)), Unavailable)
            self.assertIn(f"no public address of {service}", str(failure.value))
