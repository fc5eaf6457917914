"""Sessions: what opens, what does not, and for how long."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.auth.sessions import CLEAR, COOKIE, LIFE, RENEW, Session, Sessions
from txregistry.model.v1.names import V1Repository

BAR = V1Repository("foo", "bar")


class SessionTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.sessions = self.make()

    def make(self, key: str = "foobar42", purpose: str = "session") -> Sessions:
        return Sessions(key, purpose, self.clock.seconds)

    def test_opens_what_was_sealed(self):
        for access, user in (("read", None), (None, None), ("write", "joe")):
            session = self.sessions.new(BAR, access, user)
            self.assertEqual(session, Session(BAR, access, 1_700_000_000, user))
            self.assertEqual(self.sessions.open(self.sessions.seal(session)), session)

    def test_another_worker_opens_it(self):
        session = self.sessions.new(BAR, "read")
        self.assertEqual(self.make().open(self.sessions.seal(session)), session)

    def test_another_key_or_purpose_does_not(self):
        sealed = self.sessions.seal(self.sessions.new(BAR, "read"))
        self.assertIsNone(self.make("foobar43").open(sealed))
        self.assertIsNone(self.make(purpose="token").open(sealed))

    def test_an_hour(self):
        sealed = self.sessions.seal(self.sessions.new(BAR, "read"))
        self.clock.advance(LIFE)
        self.assertIsNotNone(self.sessions.open(sealed))
        self.clock.advance(1)
        self.assertIsNone(self.sessions.open(sealed))

    def test_not_from_the_future(self):
        sealed = self.sessions.seal(Session(BAR, "read", 1_700_000_061))
        self.assertIsNone(self.sessions.open(sealed))
        sealed = self.sessions.seal(Session(BAR, "read", 1_700_000_060))
        self.assertIsNotNone(self.sessions.open(sealed))

    def test_renewed_while_used(self):
        session = self.sessions.new(BAR, "read", "joe")
        self.clock.advance(RENEW - 1)
        self.assertIsNone(self.sessions.renewed(session))
        self.clock.advance(1)
        self.assertEqual(self.sessions.renewed(session), Session(BAR, "read", 1_700_000_000 + RENEW, "joe"))

    def test_every_tampered_character(self):
        sealed = self.sessions.seal(self.sessions.new(BAR, "read"))
        for at, character in enumerate(sealed):
            for other in ("A" if character != "A" else "B", "", ".", "\xe9"):
                changed = sealed[:at] + other + sealed[at + 1 :]
                # The last characters of base64 may have bits that say nothing; they are compared all the same.
                if changed != sealed:
                    self.assertIsNone(self.sessions.open(changed), changed)

    def test_garbage(self):
        sign = self.sessions._sign
        for body in ("", "W10", "bnVsbA", "WzEsMiwzLDQsNV0", "!!!"):
            self.assertIsNone(self.sessions.open(f"{body}.{sign(body)}"), body)
            self.assertIsNone(self.sessions.open(body))
        self.assertIsNone(self.sessions.open("a" * 100_000))

    def test_cookie(self):
        session = self.sessions.new(V1Repository("f o", "b%2Fr"), "write")
        plain, secure = self.sessions.cookie(session, False), self.sessions.cookie(session, True)
        self.assertRegex(plain, rf"\A{COOKIE}=[A-Za-z0-9_.-]+; Path=/v1/; HttpOnly; SameSite=Strict\Z")
        self.assertEqual(secure, plain + "; Secure")
        self.assertTrue(re.match(rf"{COOKIE}=; Max-Age=0; Path=/v1/", CLEAR))

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(st.text(max_size=60))
    def test_any_text(self, text):
        self.assertIsNone(self.sessions.open(text))
