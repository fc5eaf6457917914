"""The grammar of tokens, in all the forms that clients and servers write."""

from twisted.trial.unittest import SynchronousTestCase

from txregistry.auth.tokens import Token, allows_method, parameters, repository_of
from txregistry.model.v1.names import V1Repository

BAR = V1Repository("foo", "bar")


class TokenTests(SynchronousTestCase):
    def test_the_four_forms(self):
        for text in (
            'Token signature=abc,repository="foo/bar",access=write',
            'Token signature=abc, repository="foo/bar", access=write',
            'Token Token signature=abc,repository="foo/bar",access=write',
            "Token signature:abc,repository:foo/bar,access:write",
        ):
            self.assertEqual(Token.parse(text), Token("abc", BAR, "write"), text)

    def test_odd_ones(self):
        for text, expected in [
            ("TOKEN repository=foo/bar", Token(None, BAR, None)),
            ('token x,, ;repository="foo/bar"access=read', Token(None, BAR, "read")),
            ("Token repository=a/b,repository=foo/bar", Token(None, BAR, None)),
            ("Token other=1,repository= foo/bar", Token(None, BAR, None)),
            ("Token repository=foo/b%2Bx", Token(None, V1Repository("foo", "b%2Bx"), None)),
            ("Token repository=foo/b+x", Token(None, V1Repository("foo", "b+x"), None)),
        ]:
            self.assertEqual(Token.parse(text), expected, text)

    def test_what_is_no_token(self):
        for text in (
            "",
            "Token",
            "Token nothing",
            "Basic repository=foo/bar",
            "Tokens repository=foo/bar",
            "Token signature=abc,access=write",
            "Token repository=foo",
            "Token repository=foo/bar/baz",
            "Token repository=/bar",
            "Token repository=foo/",
            "Token repository=../bar",
            "Token repository=foo/..",
            "Token repository=\udcff/bar",
        ):
            self.assertIsNone(Token.parse(text), text)

    def test_repository_of_any_scheme(self):
        self.assertEqual(repository_of("Basic x, repository=foo/bar"), BAR)
        self.assertEqual(repository_of("Token repository=ubuntu"), V1Repository("library", "ubuntu"))
        self.assertIsNone(repository_of("Basic Og=="))
        self.assertIsNone(repository_of("Token repository=.."))

    def test_last_of_a_name_counts(self):
        self.assertEqual(parameters("a=1,b=2,a=3"), {"a": "3", "b": "2"})

    def test_long_headers_take_no_time(self):
        # With quadratic matching this would not end today.
        self.assertEqual(parameters("a" * 1_000_000 + ";b=1"), {"b": "1"})

    def test_methods(self):
        for access, allowed in [
            ("read", {"GET"}),
            ("write", {"PUT", "POST"}),
            ("delete", {"DELETE"}),
            (None, {"GET", "HEAD", "PUT", "POST", "DELETE"}),
            ("admin", {"GET", "HEAD", "PUT", "POST", "DELETE"}),
        ]:
            found = {m for m in ("GET", "HEAD", "PUT", "POST", "DELETE") if allows_method(access, m)}
            self.assertEqual(found, allowed, access)
