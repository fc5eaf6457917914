"""What `txregistry config check` prints."""

from __future__ import annotations

from tests.config.helpers import ConfigCase
from tests.config.test_settings import ORIGINAL_S3
from txregistry.config import Options, check


class CheckTests(ConfigCase):
    def test_whole_text(self) -> None:
        settings = self.load(
            "common: {threads: 4, secret_key: hidden, bugsnag: x, s3_secret_key: hidden}\n"
            "dev: {storage: local, storage_path: /x, cache: {host: h, password: hidden}, standalone: false}",
            options=Options(listen=("tcp:1", "tcp:2")),
        )
        self.assertEqual(
            check(settings),
            f"""\
file:     {self.folder}/config.yml
flavor:   dev
listens:  tcp:1, tcp:2
stores:   local, folder /x
access:   tokens of https://index.docker.io
deletes:  allowed

keys that are set:
  listen = [tcp:1, tcp:2]  (--listen)
  threads = 4  (common)
  standalone = false  (dev)
  secret_key = ****  (common)
  storage = local  (dev)
  storage_path = /x  (dev)
  cache = {{host: h, password: ****}}  (dev)

warnings:
  {self.folder}/config.yml: common.bugsnag: has no effect here: errors are logged, and mailed by email_exceptions
""",
        )

    def test_s3(self) -> None:
        text = check(
            self.load(
                ORIGINAL_S3,
                flavor="prod",
                environ={
                    "AWS_S3_ACCESS_KEY": "AKIA",
                    "AWS_S3_SECRET_KEY": "12345",
                    "AWS_S3_BUCKET": "images",
                },
            )
        )
        self.assertIn("stores:   s3, bucket images, prefix /srv/docker\n", text)
        self.assertIn("  s3_access_key = ****  (prod", text)
        self.assertNotIn("12345", text)
        self.assertNotIn("AKIA", text)
        self.assertIn("\nno warnings\n", text)

    def test_embedded(self) -> None:
        text = check(self.load(environ={"HOME": "/me"}))
        self.assertIn("file:     none, the embedded default\n", text)
        self.assertIn("  storage_path = /me/.local/share/txregistry  (embedded default)\n", text)
