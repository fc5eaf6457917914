"""The assembled server: what it starts, tells and stops, within this process."""

import http.client
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txregistry import config, service
from txregistry.auth.factory import AccessOptions
from txregistry.core.policy import Policy
from txregistry.service import (
    RegistryService,
    access_options_of,
    access_warnings,
    endpoints_of,
    policy_of,
    web_options_of,
    who_may_push,
)
from txregistry.startup import StartFailed
from txregistry.storage import factory
from txregistry.version import __version__
from txregistry.web.app import WebOptions

LOCAL = "tcp:0:interface=127.0.0.1"



class WithSettings:
    mktemp: Callable[[], str]

    def settings(self, text: str = "{}") -> config.Settings:
        """The settings of the flavor `dev` with these keys."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "config.yml").write_text(f"common: {{storage_path: store, listen: '{LOCAL}'}}\ndev: {text}\n")
        return config.load(None, None, {}, str(folder))


class SettingsTests(WithSettings, SynchronousTestCase):
    def test_policy(self):
        self.assertEqual(policy_of(self.settings()), Policy())
        given = self.settings(
            "{max_manifest_size: 8M, delete: false, accept_unknown_media_types: true, accept_missing_blobs: true,"
            " upload_purge_age: 1d}"
        )
        self.assertEqual(
            policy_of(given),
            Policy(
                manifest_limit=8 << 20,
                delete=False,
                accept_unknown_media_types=True,
                accept_missing_blobs=True,
                upload_expiry=86400,
            ),
        )

    def test_web_options(self):
        self.assertEqual(web_options_of(self.settings()), WebOptions(flavor="dev"))
        given = self.settings("{external_url: 'https://r.example/', registry_endpoints: 'a, b'}")
        self.assertEqual(web_options_of(given), WebOptions("https://r.example", "dev", ("a", "b")))

    def test_who_may_push(self):
        settings = self.settings("{delete: false}")
        endpoints, _ = endpoints_of(settings)
        self.assertEqual(who_may_push(settings, endpoints), "anybody who can connect may pull and push")

    def test_access(self):
        for text, expected in [
            ("{}", AccessOptions()),
            ("{standalone: false, disable_token_auth: true}", AccessOptions(standalone=False)),
            (
                "{standalone: false, index_endpoint: 'https://i.example', secret_key: k}",
                AccessOptions(index_endpoint="https://i.example", secret_key="k", standalone=False),
            ),
            ("{users_file: /u, accounts: open}", AccessOptions(users_file="/u", accounts_open=True)),
            (
                "{privileged_key: /k, privileged_require_date: true}",
                AccessOptions(privileged_key="/k", privileged_require_date=True),
            ),
        ]:
            self.assertEqual(access_options_of(self.settings(text)), expected)

    def test_who_is_let_in_is_told(self):
        for text, expected in [
            ("{standalone: false}", "whoever has a token of https://index.docker.io may"),
            ("{standalone: false, disable_token_auth: true}", "anybody who can connect may"),
            ("{users_file: /u}", "whoever has an account of /u may"),
            ("{users_file: /u, accounts: open}", "whoever has an account of /u, which anybody may get, may"),
        ]:
            settings = self.settings(text)
            endpoints, _ = endpoints_of(settings)
            line = who_may_push(settings, endpoints)
            self.assertTrue(line.startswith(expected), line)

    def test_access_that_cannot_be_decided_is_refused(self):
        for text in ("{accounts: open}", "{standalone: false, users_file: u}", "{privileged_key: /nonesuch}"):
            self.assertRaises(StartFailed, endpoints_of, self.settings(text))
        for text in ("{standalone: false}", "{users_file: u}", "{users_file: u, accounts: open}"):
            endpoints_of(self.settings(text))

    def test_access_warnings(self):
        settings = self.settings("{standalone: false}")
        self.assertIn("secret_key", " ".join(access_warnings(settings)))
        # One that was made for this start, for all workers, ends with it.
        self.assertIn("secret_key", " ".join(access_warnings(replace(settings, secret_key="made"))))
        self.assertEqual(access_warnings(self.settings("{standalone: false, secret_key: k}")), [])
        self.assertEqual(access_warnings(self.settings()), [])

    def test_engines(self):
        self.patch(factory, "find_spec", lambda name: None)
        for engine in ("{storage: s3, boto_bucket: b}", "{storage: gcs, boto_bucket: b}"):
            error = self.assertRaises(StartFailed, endpoints_of, self.settings(engine))
            self.assertIn("txregistry[s3]", str(error))


class RunningTests(WithSettings, TestCase):
    def serve(self, text: str = "{access_log: 'off'}") -> RegistryService:
        """A started service, stopped when the test ends."""
        made = RegistryService(self.settings(text), reactor)
        made.privilegedStartService()
        made.startService()
        self.addCleanup(made.stopService)
        return made

    def port(self, made: RegistryService) -> int:
        address = made.ports[0].getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    async def get(self, port: int) -> int:
        def ask() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", "/v2/", headers={"Connection": "close"})
                return connection.getresponse().status
            finally:
                connection.close()

        return await deferToThread(ask)

    async def test_serves_and_stops(self):
        made = self.serve()
        port = self.port(made)
        self.assertEqual(await self.get(port), 200)
        await made.stopService()
        with self.assertRaises(ConnectionRefusedError):
            await self.get(port)

    async def test_stopping_twice(self):
        made = self.serve()
        await made.stopService()
        await made.stopService()

    async def test_access_log(self):
        made = self.serve("{access_log: access.log}")
        await self.get(self.port(made))
        await made.stopService()
        assert made.settings.access_log is not None
        self.assertIn('"GET /v2/ HTTP/1.1" 200 ', Path(made.settings.access_log).read_text())

    async def test_a_stop_waits_for_commits(self):
        made = self.serve()
        commit: Deferred[None] = Deferred()

        async def shielded() -> None:
            await commit

        made.shields.shield(shielded())
        stopped = made.stopService()
        await self.wait(lambda: not made.ports)
        self.assertNoResult(stopped)
        commit.callback(None)
        await stopped

    async def test_a_stop_does_not_wait_for_ever(self):
        self.patch(service, "SHUTDOWN_SECONDS", 0.01)
        made = self.serve()
        never: Deferred[None] = Deferred()

        async def shielded() -> None:
            await never

        made.shields.shield(shielded())
        with capturedLogs() as events:
            await made.stopService()
        self.assertIn("1 commits had not ended after 0.01 s", [formatEvent(event) for event in events])
        never.callback(None)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Let the reactor turn until something has come true; trial's own timeout ends a vain wait."""
        while not condition():
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn

    async def test_it_sweeps_again_after_a_failure(self):
        self.patch(service, "FIRST_SWEEP", 0)
        self.patch(service, "SWEEP_EVERY", 0.01)
        made = RegistryService(self.settings("{access_log: 'off'}"), reactor)
        swept: list[int] = []

        async def sweep() -> int:
            swept.append(1)
            if len(swept) == 1:
                raise RuntimeError("planted")
            return 0

        made.privilegedStartService()
        made.registry.janitor.sweep = sweep  # type: ignore[method-assign]  # a janitor that fails once
        made.startService()
        self.addCleanup(made.stopService)
        await self.wait(lambda: len(swept) > 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_what_it_tells(self):
        with capturedLogs() as events:
            made = self.serve("{access_log: 'off', storage_redirect: true}")
            self.assertEqual(await self.get(self.port(made)), 200)
        told = [formatEvent(event) for event in events if event["log_namespace"] == "txregistry.service"]
        port = self.port(made)
        self.assertEqual(
            told,
            [
                f"txregistry {__version__}, flavor dev of {made.settings.source}",
                f"storing in {made.settings.storage.path} (local)",
                f"listening on http://127.0.0.1:{port}",
                "storage_redirect has no effect with storage local: it signs no addresses",
                "anybody who can connect may pull, push and delete",
                f"try: docker tag alpine localhost:{port}/alpine && docker push localhost:{port}/alpine",
            ],
        )
