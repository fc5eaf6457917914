"""Accounts: right and wrong passwords, and how much hashing one address gets."""

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from txregistry.auth import accounts
from txregistry.auth.accounts import REMEMBERED, TRIES, WINDOW, Accounts
from txregistry.auth.users import UserExists, UsersFile
from txregistry.concurrency import start
from txregistry.errors import TooManyRequests, UpstreamUnavailable, V1Error
from txregistry.testing.pools import ImmediatePool, ManualPool

try:
    import bcrypt
except ImportError:
    raise SkipTest("bcrypt is not installed") from None

HERE, THERE = "192.0.2.1", "192.0.2.2"


class AccountsTests(SynchronousTestCase):
    def setUp(self):
        gensalt = bcrypt.gensalt
        self.patch(bcrypt, "gensalt", lambda: gensalt(4))
        self.hashed = 0
        checkpw = bcrypt.checkpw

        def counted(password, hashed):
            self.hashed += 1
            return checkpw(password, hashed)

        self.patch(bcrypt, "checkpw", counted)
        self.path = Path(self.mktemp())
        self.file = UsersFile(str(self.path))
        self.file.set("joe", "secret")
        self.clock = Clock()
        self.use(ImmediatePool())

    def use(self, pool):
        self.accounts = Accounts(self.file, pool, self.clock, open=True)

    def check(self, name: str = "joe", password: str = "secret", address: str = HERE) -> bool:
        return self.successResultOf(start(self.accounts.check(name, password, address)))

    def test_right_and_wrong(self):
        self.assertTrue(self.check())
        for name, password in [("joe", "Secret"), ("joe", ""), ("ann", "secret"), ("joe", "x" * 100), ("joe", "a\0b")]:
            self.assertFalse(self.check(name, password), (name, password))

    def test_a_right_password_is_hashed_once(self):
        for _ in range(5):
            self.assertTrue(self.check())
        self.assertEqual(self.hashed, 1)
        self.clock.advance(REMEMBERED)
        self.assertTrue(self.check())
        self.assertEqual(self.hashed, 2)

    def test_what_is_known_at_once(self):
        """Only what was found right before, as long as that counts, and only if the file may be looked at in place."""
        for in_place in (True, False):
            self.file = UsersFile(str(self.path), in_place=in_place)
            self.use(ImmediatePool())
            self.assertFalse(self.accounts.knows("joe", "secret"))
            self.check()
            self.check("joe", "wrong")
            self.assertEqual(self.accounts.knows("joe", "secret"), in_place)
            self.assertFalse(self.accounts.knows("joe", "wrong"))
            self.assertFalse(self.accounts.knows("ann", "secret"))
            hashed = self.hashed
            self.clock.advance(REMEMBERED)
            self.assertFalse(self.accounts.knows("joe", "secret"))
            self.assertEqual(self.hashed, hashed)

    def test_a_changed_password_is_not_remembered(self):
        self.assertTrue(self.check())
        self.file.set("joe", "other")
        self.assertFalse(self.check())
        self.assertTrue(self.check("joe", "other"))
        self.file.remove("joe")
        self.assertFalse(self.check("joe", "other"))

    def test_names_that_are_not_there_take_as_long(self):
        self.assertFalse(self.check("ann"))
        self.assertEqual(self.hashed, 1)

    def test_wrong_passwords_of_one_address_are_limited(self):
        for _ in range(TRIES):
            self.assertFalse(self.check("joe", "wrong"))
        hashed = self.hashed
        error = self.failureResultOf(start(self.accounts.check("joe", "secret", HERE)), TooManyRequests).value
        self.assertEqual(self.hashed, hashed)
        self.assertTrue(0 < error.retry_after <= WINDOW + 1)
        self.assertTrue(self.check(address=THERE))
        # What is remembered costs nothing, and goes on.
        self.assertTrue(self.check())
        self.clock.advance(WINDOW)
        self.assertFalse(self.check("joe", "wrong"))

    def test_addresses_are_forgotten(self):
        self.patch(accounts, "_MOST_ADDRESSES", 3)
        for number in range(10):
            self.check("joe", "wrong", f"192.0.2.{number}")
        self.assertEqual(len(self.accounts._tries), 3)

    def test_hashing_is_bounded(self):
        pool = ManualPool()
        self.use(pool)
        waiting = [start(self.accounts.check("joe", f"wrong {number}", HERE)) for number in range(12)]
        for _ in waiting:
            pool.step()  # reads the file
        self.assertEqual(pool.waiting, ["bulk"] * 2)
        refused = [each for each in waiting if each.called]
        self.assertEqual(len(refused), 2)
        for each in refused:
            self.failureResultOf(each, TooManyRequests)
        other = start(self.accounts.check("joe", "secret", THERE))
        pool.flush()
        self.assertTrue(self.successResultOf(other))
        for each in waiting:
            if each not in refused:
                self.assertFalse(self.successResultOf(each))
        self.assertEqual(self.accounts._waiting, {})

    def test_a_client_that_leaves_gives_its_place_back(self):
        pool = ManualPool()
        self.use(pool)
        first = start(self.accounts.check("joe", "secret", HERE))
        pool.step()
        first.cancel()
        self.assertNoResult(first)
        pool.flush()
        self.failureResultOf(first)
        self.assertEqual((self.accounts._waiting, self.accounts._slots.tokens), ({}, 2))

    def test_create(self):
        self.successResultOf(start(self.accounts.create("ann", "word", HERE)))
        self.assertTrue(self.check("ann", "word"))
        self.assertTrue(self.successResultOf(start(self.accounts.exists("ann"))))
        self.failureResultOf(start(self.accounts.create("ann", "other", HERE)), UserExists)

    def test_what_cannot_be_created(self):
        for name, password in [("", "x"), ("a b", "x"), ("ann", ""), ("ann", "x" * 73), ("ann", "é" * 37)]:
            self.failureResultOf(start(self.accounts.create(name, password, HERE)), V1Error)
        self.assertEqual(set(self.file.read()), {"joe"})

    def test_creating_is_limited(self):
        for number in range(TRIES):
            self.successResultOf(start(self.accounts.create(f"u{number}", "x", HERE)))
        self.failureResultOf(start(self.accounts.create("one-more", "x", HERE)), TooManyRequests)
        self.successResultOf(start(self.accounts.create("one-more", "x", THERE)))

    def test_change(self):
        self.assertTrue(self.check())
        self.successResultOf(start(self.accounts.change("joe", "new", HERE)))
        self.assertFalse(self.check())
        self.assertTrue(self.check("joe", "new"))
        self.failureResultOf(start(self.accounts.change("joe", "x" * 73, HERE)), V1Error)

    def test_a_file_that_cannot_be_read(self):
        self.path.unlink()
        self.path.mkdir()
        self.failureResultOf(start(self.accounts.check("joe", "secret", HERE)), UpstreamUnavailable)
        self.failureResultOf(start(self.accounts.change("joe", "x", HERE)), UpstreamUnavailable)
