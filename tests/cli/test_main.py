"""The command `txregistry`: its help, exit statuses, and what goes where."""

import io
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.running import environment
from txregistry import config
from txregistry.cli.main import main
from txregistry.storage import factory
from txregistry.version import __version__


class CommandTests(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        for name in ("SETTINGS_FLAVOR", "DOCKER_REGISTRY_CONFIG", "XDG_DATA_HOME"):
            self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != name})
        os.environ["HOME"] = str(self.folder)

    def run_command(self, *arguments: str) -> "tuple[int, str, str]":
        """Exit status, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        try:
            status = main(arguments)
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        return status, out.getvalue(), err.getvalue()

    def test_version(self):
        self.assertEqual(self.run_command("version"), (0, f"txregistry {__version__}\n", ""))

    def test_every_command_has_help(self):
        for words in ([], ["version"], ["config"], ["config", "check"], ["config", "sample"]):
            status, out, _ = self.run_command(*words, "--help")
            self.assertEqual(status, 0)
            self.assertTrue(out.startswith("usage: " + " ".join(["txregistry", *words])), out)

    def test_no_command_shows_the_help_that_fits(self):
        status, out, err = self.run_command()
        self.assertEqual((status, out), (2, ""))
        self.assertIn("config", err)
        status, _, err = self.run_command("config")
        self.assertEqual(status, 2)
        self.assertIn("sample", err)

    def test_unknown_command(self):
        status, out, err = self.run_command("nonesuch")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("nonesuch", err)

    def test_sample_is_what_can_be_checked(self):
        status, out, _ = self.run_command("config", "sample")
        self.assertEqual((status, out), (0, config.sample()))
        Path("config.yml").write_text(out)
        status, out, err = self.run_command("config", "check")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(str(self.folder / "config.yml"), out)

    def test_check_without_a_file(self):
        status, out, err = self.run_command("config", "check")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("tcp:5000:interface=127.0.0.1", out)
        self.assertEqual(os.listdir("."), [])

    def test_check_masks_secrets(self):
        Path("r.yml").write_text("prod: {storage_path: here, secret_key: hidden-word}\n")
        status, out, _ = self.run_command("config", "check", "r.yml", "--flavor", "prod")
        self.assertEqual(status, 0)
        self.assertIn("secret_key", out)
        self.assertNotIn("hidden-word", out)

    def refusal(self, text: str) -> str:
        """The one line about a flavor `dev` that cannot run."""
        Path("r.yml").write_text(f"dev: {text}\n")
        status, out, err = self.run_command("config", "check", "r.yml")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
        self.assertTrue(err.startswith("txregistry: "), err)
        return err

    def test_check_refuses_what_the_server_would_refuse(self):
        self.assertIn("storage_pat", self.refusal("{storage_pat: x}"))
        self.assertIn("nonesuch", self.refusal("{storage_path: x, listen: 'tcp:0:nonesuch=1'}"))
        tls = "{storage_path: x, listen: 'https:0', tls_certificate: /no/such.crt}"
        self.assertIn("/no/such.crt", self.refusal(tls))
        self.patch(factory, "find_spec", lambda name: None)
        self.assertIn("txregistry[s3]", self.refusal("{storage: s3, boto_bucket: b}"))

    def test_a_reader_that_leaves_is_no_traceback(self):
        read, write = os.pipe()
        os.close(read)
        result = subprocess.run(
            [sys.executable, "-m", "txregistry.cli.main", "config", "sample"],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environment(self.folder),
            timeout=60,
            check=False,
        )
        os.close(write)
        self.assertEqual((result.returncode, result.stderr), (1, b""))
