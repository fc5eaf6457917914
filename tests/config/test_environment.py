"""What the start scripts of docker-registry read from the environment still means what it meant."""

from __future__ import annotations

from tests.config.helpers import ConfigCase, flavor
from txregistry.config import Options, check

LOCAL = "storage: local, storage_path: /srv"
SWIFT = "storage: swift, swift_authurl: REPLACEME, swift_container: REPLACEME, swift_user: REPLACEME"
OPENSTACK = {
    "OS_AUTH_URL": "http://keystone:5000/v2.0",
    "OS_USERNAME": "me",
    "OS_PASSWORD": "12345",
    "OS_TENANT_NAME": "project",
    "OS_REGION_NAME": "here",
    "SWIFT_CONTAINER": "images",
}


class EnvironmentTests(ConfigCase):
    def test_port(self) -> None:
        for name in ("REGISTRY_PORT", "PORT_WWW"):
            settings = self.load(flavor(LOCAL), environ={name: "5001"})
            self.assertEqual(settings.listen, ("tcp:5001",))
            self.assertEqual(settings.origins["listen"], f"${name}")
            self.assertEqual(settings.warnings, ())
            self.assertIn(f"  listen = [tcp:5001]  (${name})\n", check(settings))

    def test_port_without_a_file(self) -> None:
        settings = self.load(environ={"HOME": "/me", "REGISTRY_PORT": "5001"})
        self.assertEqual(settings.listen, ("tcp:5001:interface=127.0.0.1",))
        self.assertEqual(settings.origins["listen"], "$REGISTRY_PORT")
        settings = self.load(environ={"HOME": "/me"})
        self.assertEqual(settings.listen, ("tcp:5000:interface=127.0.0.1",))
        self.assertEqual(settings.origins["listen"], "embedded default")

    def test_two_ports(self) -> None:
        settings = self.load(flavor(LOCAL), environ={"REGISTRY_PORT": "5001", "PORT_WWW": "5002"})
        self.assertEqual(settings.listen, ("tcp:5001",))
        self.assertEqual(settings.warnings, ("PORT_WWW: no effect, as listen is set by $REGISTRY_PORT",))
        self.assertEqual(self.load(environ={"REGISTRY_PORT": "1", "PORT_WWW": "1"}).warnings, ())

    def test_what_is_no_port(self) -> None:
        for text in ("tcp://10.0.0.1:5000", "70000", "x", "true"):
            settings = self.load(flavor(LOCAL), environ={"REGISTRY_PORT": text})
            self.assertEqual(settings.listen, ("tcp:5000",))
            self.assertEqual(settings.warnings, ("REGISTRY_PORT: no effect, as it is no port",))

    def test_a_key_wins(self) -> None:
        environ = {"REGISTRY_PORT": "5001", "WORKER_SECRET_KEY": "other", "GUNICORN_WORKERS": "2"}
        settings = self.load(flavor(f"{LOCAL}, listen: 'tcp:6000', secret_key: mine, workers: 2"), environ=environ)
        self.assertEqual((settings.listen, settings.secret_key, settings.workers), (("tcp:6000",), "mine", 2))
        self.assertEqual(
            settings.warnings,
            ("REGISTRY_PORT: no effect, as listen is set", "WORKER_SECRET_KEY: no effect, as secret_key is set"),
        )

    def test_an_option_wins(self) -> None:
        options = Options(listen=("tcp:1",))
        settings = self.load(flavor(LOCAL), environ={"REGISTRY_PORT": "5001"}, options=options)
        self.assertEqual((settings.listen, settings.warnings), (("tcp:1",), ()))

    def test_workers_and_secret_key(self) -> None:
        environ = {"GUNICORN_WORKERS": "4", "WORKER_SECRET_KEY": "12345"}
        settings = self.load(flavor(f"{LOCAL}, secret_key: REPLACEME"), environ=environ)
        self.assertEqual((settings.workers, settings.secret_key), (4, "12345"))
        self.assertNotIn("12345", check(settings))
        self.assertEqual(
            self.line(flavor(LOCAL), environ={"GUNICORN_WORKERS": "many"}),
            "GUNICORN_WORKERS: found the text 'many' (from the environment variable GUNICORN_WORKERS);"
            " allowed is a whole number from 0 to 1024, or auto",
        )

    def test_what_counts_as_absent(self) -> None:
        for text in ("", "REPLACEME"):
            environ = {"REGISTRY_PORT": text, "WORKER_SECRET_KEY": text, "S3_BUCKET": text}
            settings = self.load(flavor(LOCAL), environ=environ)
            self.assertEqual((settings.listen, settings.secret_key, settings.warnings), (("tcp:5000",), None, ()))

    def test_s3(self) -> None:
        environ = {
            "S3_BUCKET": "images",
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_KEY": "12345",
            "S3_ENCRYPT": "False",
            "S3_SECURE": "True",
        }
        settings = self.load(flavor("storage: s3, s3_bucket: REPLACEME, boto_bucket: REPLACEME"), environ=environ)
        keys = settings.storage.keys
        self.assertEqual(keys["boto_bucket"], "images")
        self.assertEqual((keys["s3_access_key"], keys["s3_secret_key"]), ("AKIA", "12345"))
        self.assertEqual((keys["s3_encrypt"], keys["s3_secure"], settings.warnings), (False, True, ()))
        settings = self.load(flavor("storage: s3, boto_bucket: mine"), environ={"S3_BUCKET": "images"})
        self.assertEqual(settings.storage.keys["boto_bucket"], "mine")
        self.assertEqual(settings.warnings, ("S3_BUCKET: no effect, as boto_bucket is set",))

    def test_a_key_that_reads_the_variable_itself(self) -> None:
        text = flavor("storage: s3, s3_bucket: '_env:S3_BUCKET'")
        settings = self.load(text, environ={"S3_BUCKET": "images"})
        self.assertEqual((settings.storage.keys["boto_bucket"], settings.warnings), ("images", ()))

    def test_swift(self) -> None:
        settings = self.load(flavor(f"{SWIFT}, swift_password: REPLACEME"), environ=OPENSTACK)
        keys = settings.storage.keys
        self.assertEqual(
            [keys[f"swift_{name}"] for name in ("user", "password", "tenant_name", "region_name", "container")],
            ["me", "12345", "project", "here", "images"],
        )
        self.assertEqual(settings.warnings, ())

    def test_glance_beside_swift(self) -> None:
        text = flavor(SWIFT.replace("storage: swift", "storage: glance, storage_alternate: swift"))
        settings = self.load(text, environ={**OPENSTACK, "OS_GLANCE_URL": "http://glance:9292"})
        keys = settings.storage.keys
        self.assertEqual((keys["os_username"], keys["os_project_name"]), ("me", "project"))
        self.assertEqual((keys["swift_user"], keys["swift_password"]), ("me", "12345"))
        self.assertEqual(settings.warnings, ())

    def test_one_warning_for_engines_that_are_not_used(self) -> None:
        environ = {**OPENSTACK, "S3_BUCKET": "images", "AWS_ACCESS_KEY_ID": "AKIA"}
        settings = self.load(flavor(LOCAL), environ=environ)
        names = "S3_BUCKET, SWIFT_CONTAINER, OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_TENANT_NAME, OS_REGION_NAME"
        self.assertEqual(settings.warnings, (f"{names}: no effect, as storage is local",))

    def test_timeouts(self) -> None:
        settings = self.load(flavor(LOCAL), environ={"GUNICORN_SILENT_TIMEOUT": "3600"})
        self.assertEqual(
            settings.warnings,
            ("GUNICORN_SILENT_TIMEOUT: no effect here: a worker is never killed for being slow",),
        )
