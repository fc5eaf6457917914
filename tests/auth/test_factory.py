"""From what an operator decided to the guard, and what is refused before anything is opened."""

from dataclasses import replace
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.test_signatures import private_key
from txregistry.auth import factory
from txregistry.auth.factory import AccessError, AccessOptions, check, make_guard, warnings
from txregistry.auth.facts import By, Facts, Kind, Refused
from txregistry.auth.guard import Guard
from txregistry.auth.signatures import load_private, public_pem, sign
from txregistry.concurrency import start
from txregistry.model.v1.names import V1Repository
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.pools import ImmediatePool

INDEX = AccessOptions(index_endpoint="https://index.example", standalone=False)
PUT = Facts("PUT", "/v1/repositories/a/b/tags/x", Kind.REPOSITORY, repository=V1Repository("a", "b"))


class FactoryTests(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.clock = Clock()
        self.users = AccessOptions(users_file=str(self.folder / "users"))

    def make(self, options: AccessOptions) -> Guard:
        guard = make_guard(options, check(options), MemoryDriver(self.clock), ImmediatePool(), self.clock)
        self.successResultOf(start(guard.close()))
        return guard

    def wrong(self, options: AccessOptions) -> str:
        return str(self.assertRaises(AccessError, check, options))

    def test_who_is_let_in(self):
        for options, is_open, knows_v2 in [
            (AccessOptions(), True, True),
            (AccessOptions(standalone=False), True, True),
            (INDEX, False, False),
            (self.users, False, True),
        ]:
            guard = self.make(options)
            self.assertEqual((guard.is_open, guard.knows_v2), (is_open, knows_v2))
            decision = start(guard.allow(PUT))
            if is_open:
                self.assertEqual(self.successResultOf(decision).by, By.ANYBODY)
            else:
                self.failureResultOf(decision, Refused)

    def test_accounts(self):
        self.assertIsNone(self.make(INDEX).accounts)
        for is_open in (False, True):
            accounts = self.make(replace(self.users, accounts_open=is_open)).accounts
            self.assertEqual(accounts is not None and accounts.open, is_open)

    def test_privileged_key(self):
        key = load_private(private_key())
        file = self.folder / "public.pem"
        file.write_bytes(public_pem(key))
        guard = self.make(replace(INDEX, privileged_key=str(file)))
        headers = {name.lower(): value for name, value in sign(key, PUT.method, PUT.path, {}, 0).items()}
        self.assertEqual(self.successResultOf(start(guard.allow(replace(PUT, headers=headers)))).by, By.SIGNATURE)

    def test_a_key_that_was_read_before(self):
        options = replace(INDEX, privileged_key="/nonesuch")
        self.assertIsNotNone(check(options, {"/nonesuch": public_pem(load_private(private_key()))}))

    def test_mistakes(self):
        self.assertIn("standalone", self.wrong(replace(INDEX, users_file="/u")))
        self.assertIn("standalone", self.wrong(AccessOptions(standalone=False, users_file="/u")))
        self.assertIn("users_file", self.wrong(AccessOptions(accounts_open=True)))
        self.assertIn("/nonesuch", self.wrong(AccessOptions(users_file="/nonesuch/users")))
        self.assertIn("cannot be read", self.wrong(AccessOptions(privileged_key="/nonesuch")))
        broken = self.folder / "key"
        broken.write_text("hello")
        self.assertIn(f"{broken}: found no RSA", self.wrong(AccessOptions(privileged_key=str(broken))))

    def test_what_is_not_installed(self):
        self.patch(factory, "find_spec", lambda name: None)
        self.assertIn("txregistry[index]", self.wrong(INDEX))
        self.assertIn("txregistry[accounts]", self.wrong(self.users))
        check(AccessOptions())

    def test_warnings(self):
        for options, expected in [
            (AccessOptions(), []),
            (INDEX, ["secret_key"]),
            (self.users, ["secret_key"]),
            (replace(INDEX, secret_key="k"), []),
            (AccessOptions(privileged_key="/k"), ["privileged_require_date"]),
            (replace(INDEX, privileged_key="/k"), ["secret_key", "privileged_require_date"]),
            (AccessOptions(privileged_key="/k", privileged_require_date=True), []),
        ]:
            self.assertEqual([line.split(" ")[0] for line in warnings(options)], expected)

    def test_secrets_are_not_shown(self):
        self.assertNotIn("hidden", repr(AccessOptions(secret_key="hidden")))
