"""What comes out: the engines and their keys, blocks, mail, and that every value has the type it says."""

from __future__ import annotations

import typing
from dataclasses import fields

from tests.config.helpers import ConfigCase, flavor
from txregistry.config import ConfigError, Mail, Settings, Storage

LOCAL = "storage: local, storage_path: /srv"

#: The two example configurations that operators of the original have.
ORIGINAL_S3 = """
common: {loglevel: info}
prod:
    loglevel: warn
    storage: s3
    s3_access_key: _env:AWS_S3_ACCESS_KEY
    s3_secret_key: _env:AWS_S3_SECRET_KEY
    s3_bucket: _env:AWS_S3_BUCKET
    storage_path: /srv/docker
    smtp_host: localhost
    from_addr: docker@myself.com
    to_addr: my@myself.com
dev: {loglevel: debug, storage: local, storage_path: /home/myself/docker}
test: {storage: local, storage_path: /tmp/tmpdockertmp}
"""

ORIGINAL_ELLIPTICS = """
dev:
    storage: elliptics
    nodes: {elliptics-host1: 1025, elliptics-host2: 1025}
    wait-timeout: 60
    check_timeout: 60
    io-thread-num: 2
    net-thread-num: 2
    nonblocking_io_thread_num: 2
    groups: [1, 2, 3]
    verbosity: 4
    logfile: "/tmp/logfile.log"
    loglevel: debug
"""


class OriginalExamplesTests(ConfigCase):
    ENVIRON = {"AWS_S3_ACCESS_KEY": "AKIA", "AWS_S3_SECRET_KEY": "12345", "AWS_S3_BUCKET": "images"}

    def test_s3(self) -> None:
        settings = self.load(ORIGINAL_S3, flavor="prod", environ=self.ENVIRON)
        self.assertEqual(settings.warnings, ())
        self.assertEqual(settings.loglevel, "warn")
        self.assertEqual((settings.storage.engine, settings.storage.path), ("s3", "/srv/docker"))
        self.assertEqual(settings.storage.keys["boto_bucket"], "images")
        self.assertEqual(settings.storage.keys["s3_secret_key"], "12345")
        self.assertEqual(
            settings.mail,
            Mail(
                host="localhost",
                port=25,
                login=None,
                password=None,
                secure=False,
                keyfile=None,
                certfile=None,
                from_addr="docker@myself.com",
                to_addr=("my@myself.com",),
            ),
        )

    def test_s3_without_its_variables(self) -> None:
        self.assertEqual(
            self.line(ORIGINAL_S3, flavor="prod"),
            "config.yml: prod.s3_bucket: found nothing (the environment variable AWS_S3_BUCKET is not set);"
            " storage s3 needs this key, allowed is text",
        )

    def test_local_flavors(self) -> None:
        self.assertEqual(self.load(ORIGINAL_S3).storage.path, "/home/myself/docker")
        self.assertEqual(self.load(flavor="test").loglevel, "info")
        storage = self.load(ORIGINAL_S3.replace("s3\n", "local\n"), flavor="prod").storage
        self.assertEqual(storage, Storage(engine="local", path="/srv/docker", alternate=None, keys={"fsync": True}))

    def test_elliptics(self) -> None:
        settings = self.load(ORIGINAL_ELLIPTICS)
        self.assertEqual(settings.storage.engine, "elliptics")
        self.assertEqual(
            dict(settings.storage.keys),
            {
                "elliptics_nodes": (("elliptics-host1", 1025, 2), ("elliptics-host2", 1025, 2)),
                "elliptics_groups": (1, 2, 3),
                "elliptics_wait_timeout": 60,
                "elliptics_check_timeout": 60,
                "elliptics_io_thread_num": 2,
                "elliptics_net_thread_num": 2,
                "elliptics_nonblocking_io_thread_num": 2,
                "elliptics_verbosity": 4,
                "elliptics_logfile": "/tmp/logfile.log",
                "elliptics_namespace": "DOCKER",
                "elliptics_node_flags": None,
                "elliptics_addr_family": None,
                "elliptics_version": None,
                "elliptics_write_quorum": None,
            },
        )

    def test_elliptics_in_every_spelling(self) -> None:
        same = self.load(ORIGINAL_ELLIPTICS).storage.keys
        for text in (
            ORIGINAL_ELLIPTICS.replace("wait-timeout", "wait_timeout").replace(
                "net-thread-num", "net_thread_num"
            ),
            ORIGINAL_ELLIPTICS.replace("wait-timeout", "elliptics_wait_timeout").replace(
                "groups", "elliptics_groups"
            ),
            ORIGINAL_ELLIPTICS.replace("check_timeout", "elliptics-check-timeout"),
            ORIGINAL_ELLIPTICS.replace("[1, 2, 3]", "'[1, 2, 3]'").replace(
                "verbosity: 4", "verbosity: debug"
            ),
            ORIGINAL_ELLIPTICS.replace("[1, 2, 3]", "1 2 3"),
            ORIGINAL_ELLIPTICS.replace(
                "{elliptics-host1: 1025, elliptics-host2: 1025}",
                "elliptics-host1:1025:2 elliptics-host2:1025",
            ),
            ORIGINAL_ELLIPTICS.replace(
                "{elliptics-host1: 1025, elliptics-host2: 1025}",
                "['elliptics-host1:1025', 'elliptics-host2:1025:2']",
            ),
        ):
            self.assertNotEqual(text, ORIGINAL_ELLIPTICS)
            self.assertEqual(self.load(text).storage.keys, same, text)


class LaterVersionsTests(ConfigCase):
    def test_keys_without_effect_warn(self) -> None:
        settings = self.load(
            "common: {bugsnag: abc, search_backend: sqlalchemy, mirroring: {source: x}, debug: null}\n"
            "dev: {storage: file, storage_path: /x, cors: {origins: '*', vary_header: true}}"
        )
        self.assertEqual(
            [warning.split("config.yml: ")[1] for warning in settings.warnings],
            [
                "common.bugsnag: has no effect here: errors are logged, and mailed by email_exceptions",
                "common.search_backend: has no effect here: search always works on the store itself",
                "common.mirroring: has no effect here: nothing is read through to another registry",
                "dev.cors.vary_header: has no effect here: it is always decided from origins",
            ],
        )
        self.assertEqual(settings.storage.engine, "local")
        assert settings.cors is not None
        self.assertEqual(settings.cors.origins, ("*",))
        self.assertEqual(settings.cors.headers, ("Content-Type",))

    def test_mail(self) -> None:
        def mail(keys: str) -> Settings:
            return self.load(flavor(f"{LOCAL}, smtp_port: 26, email_exceptions: {{{keys}}}"))

        whole = mail("smtp_host: h, from_addr: a, to_addr: b, smtp_secure: {keyfile: /k, certfile: /c}").mail
        assert whole is not None
        self.assertEqual((whole.port, whole.secure, whole.keyfile, whole.certfile), (26, True, "/k", "/c"))
        pem = mail("smtp_host: h, from_addr: a, to_addr: b, smtp_port: 27, smtp_secure: /p").mail
        assert pem is not None
        self.assertEqual((pem.port, pem.secure, pem.keyfile, pem.certfile), (27, True, "/p", "/p"))
        none = mail("smtp_host: REPLACEME, from_addr: a, to_addr: b")
        self.assertIsNone(none.mail)
        self.assertEqual(
            none.warnings,
            (f"{none.source}: dev.email_exceptions: no mail is sent, as there is no smtp_host",),
        )

    def test_mail_server_recipients_and_login(self) -> None:
        def mail(keys: str) -> Settings:
            return self.load(flavor(f"{LOCAL}, from_addr: a, {keys}"))

        for host, expected in (
            ("r", ("r", 26)),
            ("r:587", ("r", 587)),
            ("'::1'", ("::1", 26)),
            ("'[::1]'", ("::1", 26)),
            ("'[::1]:587'", ("::1", 587)),
        ):
            made = mail(f"to_addr: b, smtp_port: 26, smtp_host: {host}").mail
            assert made is not None
            self.assertEqual((made.host, made.port), expected)
        for written, recipients in (
            ("b", ("b",)),
            ("'b, C <c@d>'", ("b", "C <c@d>")),
            ("['D, E <d@e>', b]", None),
            ("['\"D, E\" <d@e>', b]", ('"D, E" <d@e>', "b")),
        ):
            if recipients is None:
                self.assertRaises(ConfigError, mail, f"smtp_host: h, to_addr: {written}")
                continue
            made = mail(f"smtp_host: h, to_addr: {written}").mail
            assert made is not None
            self.assertEqual(made.to_addr, recipients)
        empty = mail("smtp_host: h, to_addr: []")
        self.assertIsNone(empty.mail)
        for keys, login, warnings in (
            ("smtp_login: u, smtp_password: p", ("u", "p"), 0),
            ("smtp_login: '', smtp_password: ''", (None, None), 0),
            ("smtp_login: u", (None, None), 1),
            ("smtp_password: p", (None, None), 1),
        ):
            settings = mail(f"smtp_host: h, to_addr: b, {keys}")
            assert settings.mail is not None
            self.assertEqual((settings.mail.login, settings.mail.password), login)
            self.assertEqual(len([line for line in settings.warnings if "no login at the mail" in line]), warnings)

    def test_certificate_without_https(self) -> None:
        settings = self.load(flavor(LOCAL + ", tls_certificate: /c"))
        self.assertEqual(
            settings.warnings,
            (
                f"{settings.source}: dev.tls_certificate: has no effect here: no endpoint of listen begins with"
                " https:",
            ),
        )

    def test_fsync(self) -> None:
        self.assertEqual(self.load(flavor(LOCAL)).warnings, ())
        settings = self.load(flavor(f"{LOCAL}, fsync: false"))
        self.assertIs(settings.storage.keys["fsync"], False)
        self.assertEqual(len(settings.warnings), 1)
        self.assertIn("fsync: a power cut may lose pushes", settings.warnings[0])

    def test_glance(self) -> None:
        settings = self.load(
            "dev: {storage: Glance, storage_alternate: S3, boto_bucket: b, s3_bucket: b, os_tenant_name: t}"
        )
        self.assertEqual((settings.storage.engine, settings.storage.alternate), ("glance", "s3"))
        self.assertEqual(settings.storage.keys["boto_bucket"], "b")
        self.assertEqual(settings.storage.keys["os_project_name"], "t")


class TypesTests(ConfigCase):
    EVERYTHING = """
dev:
  storage: local
  storage_path: /x
  listen: [https:1]
  tls_certificate: /c
  tls_key: /k
  tls_client_ca: /a
  external_url: https://r.example.com/
  access_log: off
  workers: auto
  trusted_proxies: 10.0.0.1, 192.168.0.0/16
  registry_endpoints: a, b
  nginx_x_accel_redirect: /r
  cors: {origins: [a, b], max_age: 1h}
  upload_purge_age: 12h
  secret_key: s
  privileged_key: /p
  users_file: /u
  cache: true
  cache_lru: {host: h, db: "2"}
  email_exceptions: {smtp_host: h, from_addr: a, to_addr: b}
"""

    def test_values_are_what_the_annotations_say(self) -> None:
        hints = typing.get_type_hints(Settings)
        for settings in (self.load(flavor(LOCAL)), self.load(self.EVERYTHING)):
            for field in fields(Settings):
                value, hint = getattr(settings, field.name), hints[field.name]
                kinds = [typing.get_origin(part) or part for part in typing.get_args(hint) or (hint,)]
                if typing.get_origin(hint) is tuple:
                    self.assertIsInstance(value, tuple, field.name)
                    self.assertEqual({type(item) for item in value} - {str}, set(), field.name)
                elif not field.name.startswith(("values", "origins")):
                    self.assertIn(type(value), kinds, field.name)

    def test_conversions(self) -> None:
        settings = self.load(self.EVERYTHING)
        self.assertEqual(settings.external_url, "https://r.example.com")
        self.assertIsNone(settings.access_log)
        self.assertIsNone(settings.workers)
        self.assertEqual(settings.trusted_proxies, ("10.0.0.1/32", "192.168.0.0/16"))
        self.assertEqual(settings.registry_endpoints, ("a", "b"))
        self.assertEqual(settings.upload_purge_age, 43200)
        assert settings.cors is not None
        self.assertEqual(settings.cors.max_age, 3600)
        assert settings.cache_lru is not None
        self.assertEqual(settings.cache_lru.db, 2)

    def test_secrets_are_not_in_the_repr(self) -> None:
        settings = self.load(
            "dev: {storage: s3, boto_bucket: b, s3_secret_key: hidden1, secret_key: hidden2,"
            " cache: {password: hidden3}, smtp_password: hidden4, smtp_host: h, from_addr: a, to_addr: b}"
        )
        self.assertNotIn("hidden", repr(settings))
