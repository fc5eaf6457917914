"""Secrets in text: what goes, what stays, and that no cut lets half of one through."""

from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txregistry.redact import REDACTED, Redactor, shortened

#: Text and what is left of it.
LOOKS_LIKE = (
    ("Authorization: Basic dXNlcjpwYXNz", f"Authorization: {REDACTED}"),
    ("Proxy-Authorization: x, y", f"Proxy-Authorization: {REDACTED}"),
    ("{b'authorization': [b'Bearer abc', b'def']}", f"{{b'authorization': {REDACTED}"),
    ("('Cookie', 'a=b; c=d')", f"('Cookie', {REDACTED}"),
    ("Set-Cookie: session=1; Path=/", f"Set-Cookie: {REDACTED}"),
    ("x-signature=abc", f"x-signature={REDACTED}"),
    ("redis://:pass@host:1/0 is down", f"redis://{REDACTED}@host:1/0 is down"),
    ("http://u:p@ss@host/a?b=c@d", f"http://{REDACTED}@host/a?b=c@d"),
    ("a https://u:p@h/ and ftp://v:q@i/", f"a https://{REDACTED}@h/ and ftp://{REDACTED}@i/"),
    ("GET /v2/?token=abc&n=1", f"GET /v2/?token={REDACTED}&n=1"),
    ("?X-Amz-Credential=a/b&X-Amz-Signature=c&x=1", f"?X-Amz-Credential={REDACTED}&X-Amz-Signature={REDACTED}&x=1"),
    ("Token signature=AB,repository=a/b,access=write", f"Token signature={REDACTED},repository=a/b,access=write"),
    ('{"password": "a b\\"c", "x": 1}', f'{{"password": {REDACTED}, "x": 1}}'),
    ("{'passwd': b'a b', 'x': 1}", f"{{'passwd': {REDACTED}, 'x': 1}}"),
    ("secret_key = 'cut off", f"secret_key = {REDACTED}"),
    ("aws_secret_access_key=abc/d+e", f"aws_secret_access_key={REDACTED}"),
    ("refused Bearer abcdefghijk.lmn", f"refused Bearer {REDACTED}"),
    ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln!", f"got {REDACTED}!"),
    ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nx", f"{REDACTED}\nx"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n", REDACTED),
)
HARMLESS = (
    "GET /v2/library/alpine/manifests/3.20 failed",
    "http://host:5000/v2/a/manifests/x@sha256:abc",
    "no token",
    "KeyError: 'x'",
    "a@example.com",
    "two\nlines\tand a tab",
)


class RedactorTests(SynchronousTestCase):
    def test_what_looks_like_a_secret(self):
        for text, left in LOOKS_LIKE:
            self.assertEqual(Redactor()(text, 1000), left)

    def test_what_does_not(self):
        for text in HARMLESS:
            self.assertEqual(Redactor()(text, 1000), text)

    def test_known_secrets_in_every_spelling(self):
        secret = 'p w/é"\n'
        redactor = Redactor([secret, "tiny", "abc"])
        for spelled in (
            secret, repr(secret)[1:-1], "p%20w/%C3%A9%22%0A", "p%20w%2F%C3%A9%22%0A",
            b64encode(secret.encode()).decode(),
        ):  # fmt: skip
            self.assertEqual(redactor.known(f"<{spelled}>"), f"<{REDACTED}>")
        self.assertEqual(redactor.known("a tiny abc"), f"a {REDACTED} abc")

    def test_a_secret_that_holds_another(self):
        self.assertEqual(Redactor(["word", "pass-word-x"]).known("pass-word-x word"), f"{REDACTED} {REDACTED}")

    def test_printable_ascii(self):
        self.assertEqual(Redactor()("é\r\x1b[1m\0\n\t\U0001f600", 100), "\\xe9\\x0d\\x1b[1m\\x00\n\t\\U0001f600")

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.sampled_from((2000, 4000, 6000)),
        st.integers(0, 60),
        st.sampled_from((0, 1, 5000)),
        st.sampled_from((" ", "\n", "x")),
        st.sampled_from((
            "Authorization: Basic s3cr3t s3cr3t", "http://u:s3cr3ts3cr3t@h/", "'password': 's3cr3t s3cr3t'",
            "known-s3cr3t",
        )),
    )  # fmt: skip
    def test_no_cut_shows_a_part(self, cut: int, inside: int, after: int, filler: str, secret: str):
        """Cuts are made at these lengths, in a line and in a text, and from either end."""
        redactor = Redactor(["known-s3cr3t"])
        for text in (
            f"{filler * (cut - inside)} {secret} {filler * after}",
            f"{filler * after} {secret} {filler * (cut - inside)}",
        ):  # fmt: skip
            told = redactor(text, 6000)
            self.assertNotIn("s3", told)
            self.assertNotIn("3t", told)
            self.assertLess(len(told), 6200)


class ShortenedTests(SynchronousTestCase):
    def test_short_ones_stay(self):
        self.assertEqual(shortened("a\nbc", 6), "a\nbc")

    def test_the_ends_are_kept_and_more_of_the_last(self):
        text = "\n".join(f"{number:03}" for number in range(100))
        self.assertEqual(
            shortened(text, 36).split("\n"),
            ["000", "001", "002", "[91 lines left out]", "094", "095", "096", "097", "098", "099"],
        )

    def test_long_lines_end_at_a_word(self):
        self.assertEqual(shortened("one two" + "o" * 5000, 6000), "one [5007 characters, cut]")
        self.assertEqual(shortened("o" * 5000, 6000), " [5000 characters, cut]")
