"""The table of keys, and that the sample and the documentation keep up with it."""

from __future__ import annotations

import os
import re
from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from tests.config.helpers import ConfigCase
from txregistry.config import ConfigError, Settings, load, reference, sample
from txregistry.config.keys import Block, Key, default_of
from txregistry.config.schema import IGNORED, KEYS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def inner(key: Key) -> tuple[Key, ...]:
    return key.kind.keys if isinstance(key.kind, Block) else ()


class SchemaTests(SynchronousTestCase):
    def test_names_are_unique(self) -> None:
        spellings = [name for key in KEYS for name in (key.name, *key.aliases)] + list(IGNORED)
        self.assertEqual(sorted(spellings), sorted(set(spellings)))

    def test_defaults_are_of_their_kind(self) -> None:
        for key in KEYS:
            for each in (key, *inner(key)):
                self.assertEqual(default_of(each) is None, each.default is None, each.name)

    def test_what_looks_secret_is(self) -> None:
        open_names = {"s3_kms_key", "tls_key", "privileged_key"}  # a name, and two paths
        for key in KEYS:
            for each in (key, *inner(key)):
                looks = (
                    re.search("secret|password|_key$|_pass$|^key", each.name) and each.name not in open_names
                )
                self.assertEqual(each.secret, bool(looks), each.name)

    def test_every_general_key_is_a_setting(self) -> None:
        names = {field.name for field in fields(Settings)}
        mail = {"email_exceptions", "smtp_host", "smtp_port", "smtp_login", "smtp_password", "smtp_secure"}
        for key in KEYS:
            if not key.engines and key.name not in mail | {"from_addr", "to_addr"}:
                self.assertIn(key.name, names)

    def test_every_key_of_the_original_is_known(self) -> None:
        known = {name for key in KEYS for name in (key.name, *key.aliases)}
        original = """loglevel secret_key standalone index_endpoint disable_token_auth registry_endpoints
            privileged_key nginx_x_accel_redirect storage storage_path storage_alternate boto_bucket cache cache_lru
            email_exceptions s3_access_key s3_secret_key s3_bucket s3_encrypt s3_secure gs_access_key gs_secret_key
            gs_secure swift_authurl swift_container swift_user swift_password swift_tenant_name swift_region_name
            nodes wait-timeout check_timeout io-thread-num net-thread-num nonblocking_io_thread_num groups verbosity
            logfile"""
        self.assertEqual(set(original.split()) - known, set())


class SampleTests(ConfigCase):
    def test_conf_has_the_packaged_one(self) -> None:
        with open(os.path.join(ROOT, "conf", "config_sample.yml"), encoding="utf-8") as file:
            self.assertEqual(file.read(), sample())

    def test_loads_in_every_flavor(self) -> None:
        for flavor, engine in (
            ("dev", "local"),
            ("prod", "local"),
            ("test", "local"),
            ("openstack", "glance"),
        ):
            settings = self.load(sample(), flavor=flavor)
            self.assertEqual((settings.warnings, settings.storage.engine), ((), engine), flavor)
        settings = self.load(flavor="prod", environ={"STORAGE": "s3", "AWS_BUCKET": "b", "AWS_SECRET": "1"})
        self.assertEqual(settings.storage.keys["boto_bucket"], "b")
        self.assertEqual(settings.storage.keys["s3_secret_key"], "1")

    def test_has_every_key_with_a_comment(self) -> None:
        lines = sample().splitlines()
        for key in KEYS:
            pattern = re.compile(rf"\s*#?\s*{re.escape(key.name)}:")
            places = [index for index, line in enumerate(lines) if pattern.match(line)]
            self.assertNotEqual(places, [], key.name)
            for index in places:
                commented = re.match(r"\s*# \S", lines[index - 1]) or " # " in lines[index]
                self.assertTrue(commented, lines[index])

    def test_loads_with_every_comment_taken_away(self) -> None:
        # Each of them apart, since some only go together with others.
        lines = sample().splitlines()
        tried = 0
        for index, line in enumerate(lines):
            match = re.match(r"  #([a-z_0-9]+:)(.*)", line)
            if not match or not match[2].strip():
                continue
            text = "\n".join([*lines[:index], "  " + match[1] + match[2], *lines[index + 1 :]])
            tried += 1
            flavor = "openstack" if index > lines.index("openstack:") else "dev"
            try:
                self.load(text, flavor=flavor)
            except ConfigError as error:
                self.assertIn("found a key without a certificate", str(error))
        self.assertGreater(tried, 40)


class DocumentationTests(SynchronousTestCase):
    def test_tables_are_those_of_the_schema(self) -> None:
        with open(os.path.join(ROOT, "docs", "configuration.md"), encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text, reference.renew(text))
        for key in KEYS:
            self.assertIn(f"| `{key.name}` |", text)

    def test_every_mistake_shown_is_told(self) -> None:
        with open(os.path.join(ROOT, "docs", "configuration.md"), encoding="utf-8") as file:
            text = file.read()
        for keys, flavor in (("cache: {port: 99999}", "prod"), ("storge: local", "dev")):
            path = self.mktemp()
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"{flavor}: {{storage_path: /x, {keys}}}")
            error = self.assertRaises(ConfigError, load, path, flavor, {}, os.getcwd())
            self.assertIn(str(error).replace(os.path.abspath(path), "/etc/txregistry/config.yml"), text)
