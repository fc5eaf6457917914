"""What the log never shows: credentials of clients, and secrets of the configuration."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from treq.testing import RequestTraversalAgent
from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

import txregistry
from tests.test_service import WithSettings
from tests.web.v1.base import A, B
from tests.web.v1.test_access import Guarded, Lists
from txregistry import config
from txregistry.auth.accounts import Accounts
from txregistry.auth.index import Index
from txregistry.auth.users import UsersFile
from txregistry.config.check import check
from txregistry.errors import Unavailable
from txregistry.logs import AccessLog
from txregistry.service import RegistryService
from txregistry.testing.agent import Agent
from txregistry.testing.pools import ImmediatePool
from txregistry.web.app import WebOptions, make_resource
from txregistry.web.shown import shown

try:
    import bcrypt
except ImportError:
    bcrypt = None  # type: ignore[assignment]  # not every installation keeps accounts

#: Every secret has this in it, or is the Base64 of something that has.
SESAM = "Sesam4711"
#: What `Sesam4711` may become at any of three offsets.
SPELLINGS = re.compile("Sesam|U2VzYW00Nz|NlbGFtNDcx|TZXNhbTQ3|2VzYW00|NlcTQ3|Nlc2FtNDcx")

BASIC = "Basic " + base64.b64encode(f"joe:{SESAM}".encode()).decode()
WRONG = "Basic " + base64.b64encode(f"joe:{SESAM}x".encode()).decode()
TOKEN = f'Token Token signature={SESAM},repository="foo/bar"'
#: Headers that no request should leave in the log.
HEADERS = {
    "Cookie": f"v1_session={SESAM}; v1_push={SESAM}; other={SESAM}",
    "X-Signature": f"data={SESAM}",
    "X-Meta-Auth-Token": SESAM,
    "X-Docker-Token": SESAM,
    "Referer": f"https://joe:{SESAM}@web.example/?token={SESAM}",
    "Proxy-Authorization": BASIC,
}
QUERY = f"?access_token={SESAM}&n=1&X-Amz-Signature={SESAM}"

REQUESTS = [
    *[("GET", path) for path in ("/", "/_ping", "/_status", "/v1/users/", "/v1/search", "/v2/", "/v2/_catalog", "/x")],
    *[("GET", f"/v1/images/{A}/{part}") for part in ("json", "layer", "ancestry", "files", "diff")],
    *[("GET", f"/v1/repositories/foo/bar/{part}") for part in ("tags", "tags/1", "images", "json", "properties")],
    *[("PUT", f"/v1/images/{B}/{part}") for part in ("json", "layer", "checksum")],
    *[("PUT", f"/v1/repositories/foo/bar{part}") for part in ("/", "/images", "/tags/1", "/properties", "/auth")],
    *[("DELETE", f"/v1/repositories/foo/bar{part}") for part in ("/tags/1", "/tags", "")],
    *[("POST", path) for path in ("/v1/users/", "/v2/foo/bar/blobs/uploads/", "/v2/foo/bar/tags/list")],
    *[("GET", f"/v2/foo/bar/{part}") for part in ("tags/list", "manifests/1", f"blobs/sha256:{A}")],
    *[("PUT", f"/v2/foo/bar/{part}") for part in ("manifests/1", "blobs/uploads/x")],
    ("PUT", "/v1/users/joe/"),
    ("DELETE", "/v2/foo/bar/manifests/1"),
]


def told(events: Sequence[Any]) -> str:
    """All that the events of the log have: their text with tracebacks, and their fields."""
    texts = []
    for event in events:
        texts.append(eventAsText(event, includeTraceback=True))
        texts += [repr(value) for name, value in event.items() if not name.startswith("log_")]
    return "\n".join(texts)


class Broken:
    """A layer of 100 bytes that ends with an error after the first."""

    size, modified = 100, 0.0

    def __init__(self, error: Exception) -> None:
        self._pieces = [b"x"]
        self._error = error

    def chunks(self, start: int, stop: int) -> Broken:
        return self

    def __aiter__(self) -> Broken:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise self._error
        return self._pieces.pop()

    def close(self) -> None:
        pass


class SpellingTests(SynchronousTestCase):
    def test_base64_is_found(self) -> None:
        for before in range(3):
            self.assertRegex(base64.b64encode(b"x" * before + SESAM.encode() + b"y").decode(), SPELLINGS)


class RequestTests(Guarded):
    """Requests of both protocols with secrets in them, at the least level of the log."""

    options = WebOptions(flavor="test")

    def setUp(self) -> None:
        super().setUp()
        self.push_image(A)
        self.log = AccessLog("-", daemon=True)  # requests go into the log as well

    def use(self, **parts: Any) -> None:
        super().use(**parts)
        self.restart()

    def restart(self, options: WebOptions | None = None) -> None:
        resource = make_resource(self.memory.registry, options or self.options, self.guard)
        self.memory.agent = Agent(resource, self.memory.clock, access_log=self.log.write)

    def drive(self, authorization: str) -> tuple[str, set[int]]:
        """What is logged while all requests are sent; the statuses of their answers."""
        codes = set()
        body = json.dumps({"username": "joe", "password": SESAM, "email": SESAM, "id": B}).encode()
        with capturedLogs() as events:
            for method, path in REQUESTS:
                headers = {**HEADERS, "Authorization": authorization}
                content = b"" if method in ("GET", "DELETE") else body
                answer = self.memory.agent.request(method, path + QUERY, headers, content)
                # Hashing and waiting for the index end when the clock is advanced.
                for _ in range(3):
                    self.memory.clock.advance(1)
                codes.add(self.successResultOf(answer).code)
        self.flushLoggedErrors()
        return told(events), codes

    def clean(self, text: str, *seen: str) -> None:
        """Look that the log has these texts, and no secret."""
        for one in ("[redacted]", *seen):
            self.assertIn(one, text)
        found = SPELLINGS.search(text)
        self.assertIsNone(found, found and text[max(0, found.start() - 200) : found.end()])

    def every_way(self, *authorizations: str) -> None:
        for authorization in authorizations:
            text, _ = self.drive(authorization)
            self.clean(text, '"GET /v1/users/?access_token=[redacted]&n=1&X-Amz-Signature=[redacted] HTTP/1.1"')
            for error, code in ((Unavailable("p", "no answer"), 503), (RuntimeError("planted"), 500)):
                failing = [
                    self.patch(self.memory.driver, name, lambda *_args, error=error, **_more: fail(error))
                    for name in ("read", "put", "stat", "open", "list", "remove", "partial")
                ]
                text, codes = self.drive(authorization)
                for patch in failing:
                    patch.restore()
                self.assertIn(code, codes)
                self.clean(text, str(error))

    def test_open(self) -> None:
        self.use()
        self.every_way(BASIC, TOKEN, f"Bearer {SESAM}")

    def test_open_with_tokens_for_glance(self) -> None:
        self.use(glance_endpoints=("http://glance.example",))
        self.every_way(BASIC)

    def test_accounts(self) -> None:
        if bcrypt is None:
            raise SkipTest("needs bcrypt")
        path = self.mktemp()
        salt = bcrypt.gensalt(4)
        self.patch(bcrypt, "gensalt", lambda: salt)
        hashed = bcrypt.hashpw(SESAM.encode(), salt).decode()
        Path(path).write_text(f"joe:{hashed}\n")
        file = UsersFile(path)
        self.use(accounts=Accounts(file, ImmediatePool(), self.memory.clock, open=True))
        self.every_way(BASIC, WRONG)
        with mock.patch.object(file, "read", side_effect=OSError(5, "Input/output error")):
            text, codes = self.drive(BASIC)
        self.assertIn(503, codes)
        self.clean(text, "Input/output error")

    def test_an_index(self) -> None:
        lists = Lists()
        lists.lists = {"foo/bar": [A, B]}
        index = Index(f"http://joe:{SESAM}@index.example", RequestTraversalAgent(lists), self.memory.clock)
        self.use(index=index)
        self.restart(WebOptions(flavor="test", standalone=False))
        for code in (200, 401, 302, 503):
            lists.code = code
            text, codes = self.drive(TOKEN)
            self.assertIn({200: 200, 503: 503}.get(code, 401), codes)
            self.clean(text)
            self.memory.clock.advance(100)

    def test_an_answer_that_breaks_off(self) -> None:
        self.use()
        for error, text in ((RuntimeError("planted"), "planted"), (StopAsyncIteration(), "than its Content-Length")):
            self.patch(self.memory.driver, "open", lambda path, error=error: succeed(Broken(error)))
            with capturedLogs() as events:
                headers = {**HEADERS, "Authorization": BASIC}
                exchange = self.memory.agent.start("GET", f"/v1/images/{A}/layer{QUERY}", headers, length=0)
            self.assertTrue(exchange.connection.closed)
            self.flushLoggedErrors()
            self.clean(told(events), text)


class ServiceTests(WithSettings, TestCase):
    """What a start tells, with a secret in each place where one can be."""

    def test_a_start_and_a_stop(self) -> None:
        text = f"""{{loglevel: debug, access_log: 'off', secret_key: {SESAM}, standalone: false,
            index_endpoint: 'https://joe:{SESAM}@index.example', external_url: 'https://joe:{SESAM}@r.example',
            cache: {{password: {SESAM}}}, s3_secret_key: {SESAM}, swift_password: {SESAM}, os_password: {SESAM},
            email_exceptions: {{smtp_host: localhost, smtp_login: joe, smtp_password: {SESAM}, from_addr: a@b.c,
            to_addr: a@b.c}}}}"""
        settings = self.settings(text)
        with capturedLogs() as events:
            made = RegistryService(settings, reactor)
            made.privilegedStartService()
            made.startService()
            made.tell()
            stopped = made.stopService()
        self.addCleanup(lambda: stopped)
        text = told(events)
        self.assertIn("whoever has a token of https://****@index.example may", text)
        self.assertIsNone(SPELLINGS.search(text), text)
        self.assertIsNone(SPELLINGS.search(check(settings)), check(settings))
        self.assertIsNone(SPELLINGS.search(repr(settings.cache)), settings)

    def test_a_mistake_beside_a_password(self) -> None:
        for key in (
            f"index_endpoint: 'ftp://joe:{SESAM}@i'",
            f"secret_key: [{SESAM}]",
            f"cache: {{password: [{SESAM}]}}",
        ):
            error = self.assertRaises(config.ConfigError, self.settings, f"{{{key}}}")
            self.assertNotRegex(str(error), SPELLINGS)


class ShownTests(SynchronousTestCase):
    def test_what_is_shown_of_a_target(self) -> None:
        for target, expected in (
            (b"/v2/", b"/v2/"),
            (b"/v2/a/blobs/uploads/1?digest=sha256:00", b"/v2/a/blobs/uploads/1?digest=sha256:00"),
            (b"/?n=1&token=a=b&last=c", b"/?n=1&token=[redacted]&last=c"),
            (b"/?Password=;sig=x;design=y", b"/?Password=[redacted];sig=[redacted];design=y"),
            (b"/?token", b"/?token"),
            (b"http://u:p@h/?a", b"http://[redacted]@h/?a"),
            (b"http://u:p/@h/?a@b", b"http://u:p/@h/?a@b"),
            (b"/??token=x", b"/??token=[redacted]"),
            (b"-", b"-"),
        ):
            self.assertEqual(shown(target), expected)

    def test_it_is_fast_whatever_comes(self) -> None:
        # A quadratic search would take a minute over these.
        for piece in (b"?", b"?token", b"://", b"&auth&", b"=", b"token="):
            shown(piece * (1 << 16) + b"@")


class SourceTests(SynchronousTestCase):
    def test_no_log_call_names_a_secret(self) -> None:
        calls = re.compile(r"_log\.(?:debug|info|warn|error|critical|failure)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")
        secret = re.compile(r"password|secret|token|cookie|authorization|headers|\.grant|request\.uri\b(?!\))")
        found = []
        folder = os.path.dirname(os.path.abspath(txregistry.__file__))
        for path in sorted(Path(folder).rglob("*.py")):
            for call in calls.findall(path.read_text()):
                arguments = re.sub(r'"(?:[^"\\]|\\.)*"', "", call)
                found.append(call)
                self.assertNotRegex(arguments, secret, f"{path}: {call}")
        self.assertGreater(len(found), 30)
