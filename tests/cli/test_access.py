"""The commands for privileged keys, signed requests and accounts."""

import io
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.auth.test_signatures import private_key
from txregistry.auth.signatures import Signatures, load_public
from txregistry.auth.users import UsersFile, is_password
from txregistry.cli.main import main


class Commands(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        self.patch(os, "environ", {"HOME": str(self.folder), "PATH": os.environ["PATH"]})

    def run_command(self, *arguments: str, given: str = "") -> "tuple[int, str, str]":
        """Exit status, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        self.patch(sys, "stdin", io.StringIO(given))
        try:
            status = main(arguments)
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        return status, out.getvalue(), err.getvalue()

    def refusal(self, *arguments: str, given: str = "") -> str:
        status, out, err = self.run_command(*arguments, given=given)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
        self.assertTrue(err.startswith("txregistry: "), err)
        return err

    def test_help(self):
        for words in (["key"], ["key", "public"], ["sign"], ["user"], ["user", "add"], ["user", "remove"]):
            status, out, _ = self.run_command(*words, "--help")
            self.assertEqual(status, 0)
            self.assertTrue(out.startswith("usage: " + " ".join(["txregistry", *words])), out)


class KeyTests(Commands):
    def test_public_of_both_forms(self):
        printed = set()
        for form in ("pkcs1", "pkcs8"):
            Path("private.pem").write_bytes(private_key(form))
            status, out, err = self.run_command("key", "public", "private.pem")
            self.assertEqual((status, err), (0, ""))
            printed.add(out)
        self.assertEqual(len(printed), 1)
        load_public(printed.pop().encode())

    def test_the_same_as_pyrsa(self):
        program = which("pyrsa-priv2pub")
        if program is None or "shims" in program:
            program = str(Path(sys.executable).parent / "pyrsa-priv2pub")
        if not Path(program).exists():
            raise SkipTest("pyrsa-priv2pub is not installed")
        Path("private.pem").write_bytes(private_key("pkcs1"))
        subprocess.run([program, "-i", "private.pem", "-o", "public.pem"], check=True, capture_output=True, timeout=60)
        _, out, _ = self.run_command("key", "public", "private.pem")
        self.assertEqual(
            load_public(Path("public.pem").read_bytes()).public_numbers(), load_public(out.encode()).public_numbers()
        )

    def test_what_is_no_key(self):
        Path("x.pem").write_text("hello")
        self.assertIn("x.pem", self.refusal("key", "public", "x.pem"))
        self.assertIn("No such file", self.refusal("key", "public", "nonesuch.pem"))


class SignTests(Commands):
    def setUp(self):
        super().setUp()
        Path("private.pem").write_bytes(private_key())
        _, public, _ = self.run_command("key", "public", "private.pem")
        self.signatures = Signatures(load_public(public.encode()), True)

    def sign(self, *arguments: str) -> "tuple[list[str], dict[str, str]]":
        """The words of the printed command, and the headers among them."""
        status, out, err = self.run_command("sign", "private.pem", *arguments)
        self.assertEqual((status, err, out.count("\n")), (0, "", 1))
        words = shlex.split(out)
        pairs = [words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H"]
        return words, {name.lower(): value for name, value in pairs}

    def test_what_is_printed_counts(self):
        url = "https://r.example:5000//v1/repositories/foo/a%20b/tags?x=1"
        for digest in ("sha256", "sha1"):
            words, headers = self.sign("put", url, "-H", "X-Docker-Token: it's", "-H", "Accept: x", "--digest", digest)
            self.assertEqual((words[:3], words[-1]), (["curl", "-X", "PUT"], url))
            self.assertEqual((headers["x-docker-token"], headers["accept"]), ("it's", "x"))
            self.assertIn("x-docker-date", headers)
            now, path = time.time(), "/v1/repositories/foo/a b/tags"
            self.assertTrue(self.signatures.signed("PUT", path, headers, now))
            self.assertFalse(self.signatures.signed("PUT", path, headers, now + 1000))
            self.assertFalse(self.signatures.signed("GET", path, headers, now))

    def test_head(self):
        words, _ = self.sign("HEAD", "http://r/v1/images/a/json")
        self.assertEqual(words[:2], ["curl", "--head"])

    def test_mistakes(self):
        self.assertIn("ftp", self.refusal("sign", "private.pem", "GET", "ftp://r/"))
        self.assertIn("r.example", self.refusal("sign", "private.pem", "GET", "r.example/v1"))
        for header in ("nonsense", "X-Docker-Date: now", "X-Signature: data=", "A: b\nC: d"):
            self.assertIn("header", self.refusal("sign", "private.pem", "GET", "http://r/", "-H", header))
        self.assertIn("nonesuch", self.refusal("sign", "nonesuch", "GET", "http://r/"))


class UserTests(Commands):
    def setUp(self):
        super().setUp()
        try:
            import bcrypt
        except ImportError:
            raise SkipTest("bcrypt is not installed") from None
        gensalt = bcrypt.gensalt
        self.patch(bcrypt, "gensalt", lambda: gensalt(4))

    def test_add_and_remove(self):
        Path("config.yml").write_text("dev: {storage_path: s, users_file: users}\n")
        self.assertEqual(self.run_command("user", "add", "joe", given="secret\nmore\n"), (0, "", ""))
        self.assertTrue(is_password("secret", UsersFile("users").read()["joe"]))
        self.assertEqual(self.run_command("user", "add", "joe", given="new"), (0, "", ""))
        self.assertTrue(is_password("new", UsersFile("users").read()["joe"]))
        self.assertEqual(self.run_command("user", "remove", "joe"), (0, "", ""))
        self.assertIn("joe", self.refusal("user", "remove", "joe"))

    def test_another_file(self):
        self.assertEqual(self.run_command("user", "add", "joe", "--users-file", "u", given="x"), (0, "", ""))
        self.assertEqual(set(UsersFile("u").read()), {"joe"})

    def test_mistakes(self):
        self.assertIn("users_file", self.refusal("user", "add", "joe", given="x"))
        for name, given in [("a b", "x"), ("joe", ""), ("joe", "x" * 73)]:
            self.refusal("user", "add", name, "--users-file", "u", given=given)
        self.assertIn("nonesuch", self.refusal("user", "add", "joe", "--users-file", "nonesuch/u", given="x"))
        self.assertIn("config.yml", self.refusal("user", "remove", "joe", "--config", "config.yml"))
