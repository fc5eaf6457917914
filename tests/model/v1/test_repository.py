"""The small documents of a V1 repository."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import V1Error, V1NotFound
from txregistry.model.v1.names import ImageId
from txregistry.model.v1.repository import decode_tag, describe_client, parse_tag_value, parse_user_agent


class ClientTests(SynchronousTestCase):
    def test_example(self):
        document = json.loads(describe_client("docker/0.7.2-dev go/go1.2 os/osTest arch/archTest", 1390255309.9))
        self.assertEqual(
            document,
            {
                "last_update": 1390255309,
                "docker_version": "0.7.2-dev",
                "docker_go_version": "go1.2",
                "os": "ostest",
                "arch": "archtest",
            },
        )

    def test_what_is_not_there_is_left_out(self):
        for text in ("", "curl/7.88.1", "docker", "/", "docker/ x"):
            self.assertEqual(json.loads(describe_client(text, 5)), {"last_update": 5})

    def test_pairs(self):
        text = "docker/1.3.2 go/go1.3.3 git-commit/39fa2fa kernel/3.13.0-24-generic os/linux arch/amd64"
        self.assertEqual(parse_user_agent(text)["kernel"], "3.13.0-24-generic")
        self.assertEqual(parse_user_agent("a/b/c d//e"), {"a": "b"})

    def test_a_long_word(self):
        """With the square of its length this would not come to its end."""
        self.assertEqual(parse_user_agent("a" * 1_000_000 + " b/c"), {"b": "c"})

    @FEW
    @given(st.text(max_size=60))
    def test_any_text(self, text):
        self.assertIn("last_update", json.loads(describe_client(text, 0)))


class TagValueTests(SynchronousTestCase):
    def test_body(self):
        self.assertEqual(parse_tag_value(b' "abc" '), ImageId("abc"))
        for data in (b"", b"abc", b"7", b"[]", b'""', b"null", b"\xff", b"[" * 100_000):
            with self.subTest(data[:20]):
                self.assertEqual(self.assertRaises(V1Error, parse_tag_value, data).message, "Invalid data")
        for data in (b'".."', b'"../x"', b'"a\\u0000"', b'"\\ud800"'):
            self.assertRaises(V1NotFound, parse_tag_value, data)

    def test_stored(self):
        self.assertEqual(decode_tag(b" abc\n"), ImageId("abc"))
        for data in (b"", b"..", b"a/b"):
            self.assertRaises(V1NotFound, decode_tag, data)
