"""Which file and flavor are read, and what the environment and the options add."""

from __future__ import annotations

import os

from tests.config.helpers import ConfigCase, flavor
from txregistry.config import ConfigError, Options, Redis, document, load

LOCAL = "storage: local, storage_path: /srv"


class WithoutFileTests(ConfigCase):
    def test_embedded_default(self) -> None:
        settings = self.load(environ={"HOME": "/home/me"})
        self.assertIsNone(settings.source)
        self.assertEqual(settings.flavor, "dev")
        self.assertEqual(settings.listen, ("tcp:5000:interface=127.0.0.1",))
        self.assertEqual(settings.storage.engine, "local")
        self.assertEqual(settings.storage.path, "/home/me/.local/share/txregistry")
        self.assertTrue(settings.delete)
        self.assertTrue(settings.standalone)
        self.assertEqual(settings.warnings, ())

    def test_data_folder(self) -> None:
        environ = {"HOME": "/home/me", "XDG_DATA_HOME": "/data"}
        self.assertEqual(self.load(environ=environ).storage.path, "/data/txregistry")
        environ["XDG_DATA_HOME"] = "relative"
        self.assertEqual(self.load(environ=environ).storage.path, "/home/me/.local/share/txregistry")

    def test_no_home(self) -> None:
        self.assertEqual(
            self.line(),
            "--storage-path: found nothing, and neither XDG_DATA_HOME nor HOME tells a folder for data;"
            " allowed is a path",
        )
        path = self.load(options=Options(storage_path="here")).storage.path
        self.assertEqual(path, os.path.join(self.folder, "here"))

    def test_flavor_without_file(self) -> None:
        expected = (
            "flavor: found 'prod', but there is no configuration file; allowed is a file named by --config or"
            " DOCKER_REGISTRY_CONFIG, config.yml in the working directory"
        )
        self.assertEqual(self.line(environ={"HOME": "/", "SETTINGS_FLAVOR": "prod"}), expected)
        self.assertEqual(self.line(flavor="prod", environ={"HOME": "/"}), expected)


class FileTests(ConfigCase):
    def test_order(self) -> None:
        def text(path: str) -> str:
            return f"dev: {{storage: local, storage_path: {path}}}"

        system = self.write(text("/system"), "system.yml")
        self.patch(document, "SYSTEM_FILES", (os.path.join(self.folder, "missing.yml"), system))
        self.assertEqual(self.load().source, system)
        here = self.write(text("/here"))
        self.assertEqual(self.load().source, here)
        named = self.write(text("/environment"), "environment.yml")
        environ = {"DOCKER_REGISTRY_CONFIG": "environment.yml"}
        self.assertEqual(self.load(environ=environ).source, named)
        option = self.write(text("/option"), "option.yml")
        settings = load("option.yml", None, environ, self.folder)
        self.assertEqual((settings.source, settings.storage.path), (option, "/option"))

    def test_empty_variables_count_as_absent(self) -> None:
        self.write(flavor(LOCAL))
        settings = self.load(environ={"DOCKER_REGISTRY_CONFIG": "", "SETTINGS_FLAVOR": ""})
        self.assertEqual(settings.flavor, "dev")

    def test_named_but_missing(self) -> None:
        self.assertEqual(
            self.line(environ={"DOCKER_REGISTRY_CONFIG": "gone.yml"}),
            "gone.yml: cannot be read: No such file or directory",
        )
        error = self.assertRaises(ConfigError, load, "/nowhere/x.yml", None, {}, self.folder)
        self.assertEqual(str(error), "/nowhere/x.yml: cannot be read: No such file or directory")
        error = self.assertRaises(ConfigError, load, self.folder, None, {}, self.folder)
        self.assertEqual(str(error), f"{self.folder}: cannot be read: Is a directory")

    def test_default_listen_with_file(self) -> None:
        self.assertEqual(self.load(flavor(LOCAL)).listen, ("tcp:5000",))

    def test_relative_paths(self) -> None:
        settings = self.load(
            "dev: {storage: local, storage_path: ../data, users_file: ~/users, access_log: log}",
            environ={"HOME": "/home/me"},
        )
        self.assertEqual(settings.storage.path, os.path.join(os.path.dirname(self.folder), "data"))
        self.assertEqual(settings.users_file, "/home/me/users")
        self.assertEqual(settings.access_log, os.path.join(self.folder, "log"))


class FlavorTests(ConfigCase):
    TEXT = """
common: {loglevel: error, threads: 3, cache: {host: a, port: 1}, storage: local, storage_path: /common}
dev: {}
prod: {loglevel: warning, cache: {host: b}, storage_path: null}
broken: {storage: nowhere, nonsense: _env:NOT_SET, other: [1}
""".replace("[1}", "[1]}")

    def test_merge_is_shallow(self) -> None:
        settings = self.load(
            self.TEXT,
            flavor="prod",
            environ={"SETTINGS_FLAVOR": "broken"},
            options=Options(storage_path="/x"),
        )
        self.assertEqual((settings.loglevel, settings.threads), ("warn", 3))
        self.assertEqual(settings.cache, Redis(host="b", port=6379, db=0, password=None))
        self.assertEqual(settings.origins["threads"], "common")
        self.assertEqual(settings.origins["loglevel"], "prod")

    def test_dev_is_the_default(self) -> None:
        settings = self.load(self.TEXT)
        self.assertEqual((settings.flavor, settings.loglevel), ("dev", "error"))
        self.assertEqual(settings.cache, Redis(host="a", port=1, db=0, password=None))

    def test_environment_chooses(self) -> None:
        settings = self.load(flavor(LOCAL, "a"), environ={"SETTINGS_FLAVOR": "a"})
        self.assertEqual(settings.flavor, "a")

    def test_common_may_be_chosen(self) -> None:
        self.assertEqual(self.load(self.TEXT, flavor="common").storage.path, "/common")

    def test_null_hides_common(self) -> None:
        line = self.line(self.TEXT, flavor="prod")
        self.assertIn("prod.storage_path: found nothing; storage local needs this key", line)

    def test_anchors_and_merge_keys(self) -> None:
        text = "a: &a {storage: local, storage_path: /a}\ndev: {<<: *a, storage_path: /dev, <<: *a}"
        self.assertEqual(self.load(text).storage.path, "/dev")


class EnvironmentTests(ConfigCase):
    def value(self, written: str, **environ: str) -> object:
        settings = self.load(f"dev: {{{LOCAL}, {written}}}", environ=environ)
        return settings.values.get(written.partition(":")[0])

    def test_grammar(self) -> None:
        for written, environ, expected in (
            ("secret_key: _env:A", {"A": "x"}, "x"),
            ("secret_key: _env:A", {}, None),
            ("secret_key: _env:A:y", {"A": "x"}, "x"),
            ("secret_key: _env:A:y", {}, "y"),
            ("secret_key: '_env:A:y:z:'", {}, "y:z:"),
            ("secret_key: '_env:A:'", {"A": "x"}, "x"),
            ("secret_key: '_env:A:'", {}, None),
            ("secret_key: _env:A:y", {"A": ""}, None),
            ("secret_key: '_env:'", {}, None),
            ("secret_key: x_env:A", {"A": "x"}, "x_env:A"),
            ("secret_key: _env", {}, "_env"),
            ("secret_key: _env/A", {"A": "x"}, "_env/A"),
            ("secret_key: REPLACEME", {}, None),
            ("secret_key: _env:A", {"A": "REPLACEME"}, None),
            ("secret_key: _env:A", {"A": "_env:B", "B": "x"}, "_env:B"),
        ):
            self.assertEqual(self.value(written, **environ), expected, written)

    def test_yaml_scalars(self) -> None:
        for written, text, expected in (
            ("threads: _env:A", "12", 12),
            ("standalone: _env:A", "false", False),
            ("standalone: _env:A", "yes", True),
            ("standalone: _env:A", "0", False),
            ("standalone: _env:A", "1", True),
            ("listen: _env:A", "[tcp:1, tcp:2]", ("tcp:1", "tcp:2")),
            ("listen: _env:A", "tcp:1", ("tcp:1",)),
            ("max_manifest_size: _env:A", "2M", 2 * 1024**2),
            ("cache: _env:A", "{host: h, password: REPLACEME}", {"host": "h"}),
            ("access_log: _env:A", "-", "-"),
            ("access_log: _env:A", "off", "off"),
            ("loglevel: _env:A", "WARN", "warn"),
        ):
            self.assertEqual(self.value(written, A=text), expected, (written, text))

    def test_text_stays_text(self) -> None:
        for text, expected in (
            ("0123", "0123"),
            ("1e5", "1e5"),
            ("yes", "yes"),
            ("a #b", "a #b"),
            ("*x", "*x"),
            ("a: b", "a: b"),
            ('"quoted"', "quoted"),
            ("[a]", "[a]"),
            (" spaced\n", "spaced"),
        ):
            self.assertEqual(self.value("secret_key: _env:A", A=text), expected, text)

    def test_nested(self) -> None:
        settings = self.load(
            "dev: {storage: local, storage_path: /x, cache: {host: _env:H, port: _env:P, password: _env:W},"
            " listen: [_env:L, _env:M, tcp:3]}",
            environ={"P": "7", "L": "tcp:1"},
        )
        self.assertEqual(settings.cache, Redis(host="localhost", port=7, db=0, password=None))
        self.assertEqual(settings.listen, ("tcp:1", "tcp:3"))

    def test_block_of_nothing_is_off(self) -> None:
        self.assertIsNone(self.load(flavor(LOCAL + ", cache: {host: _env:H}")).cache)
        self.assertIsNone(self.load(flavor(LOCAL + ", cache: false")).cache)
        default = Redis(host="localhost", port=6379, db=0, password=None)
        self.assertEqual(self.load(flavor(LOCAL + ", cache: true")).cache, default)

    def test_unset_hides_common(self) -> None:
        settings = self.load(flavor(f"threads: 3, {LOCAL}", "common") + "\ndev: {threads: _env:NOT_SET}")
        self.assertEqual(settings.threads, 8)


class OptionTests(ConfigCase):
    def test_options_win(self) -> None:
        options = Options(
            storage_path="/option",
            listen=("https:1", "tcp:2"),
            tls_certificate="c.pem",
            tls_key="k.pem",
            tls_client_ca="/ca.pem",
        )
        settings = self.load(flavor(LOCAL + ", listen: tcp:9, tls_key: /other"), options=options)
        self.assertEqual(settings.storage.path, "/option")
        self.assertEqual(settings.listen, ("https:1", "tcp:2"))
        self.assertEqual(settings.tls_certificate, os.path.join(self.folder, "c.pem"))
        self.assertEqual(settings.tls_key, os.path.join(self.folder, "k.pem"))
        self.assertEqual(settings.tls_client_ca, "/ca.pem")
        self.assertEqual(settings.origins["listen"], "--listen")

    def test_storage_path_is_what_local_needs(self) -> None:
        self.assertEqual(self.load("dev: {}", options=Options(storage_path="/o")).storage.path, "/o")

    def test_key_in_the_certificate_file(self) -> None:
        settings = self.load(flavor(LOCAL + ", listen: https:1, tls_certificate: /c"))
        self.assertEqual(settings.tls_key, "/c")

    def test_mistakes_name_the_option(self) -> None:
        text = flavor(LOCAL)
        endpoint = (
            "allowed is an endpoint such as tcp:5000, tcp:5000:interface=127.0.0.1, https:5443 or"
            " unix:/run/registry.sock"
        )
        line = self.line(text, options=Options(listen=("5000",)))
        self.assertEqual(line, f"--listen: found the text '5000'; {endpoint}")
        line = self.line(text, options=Options(listen=("tcp:1", "tcp:x")))
        self.assertEqual(line, f"--listen[1]: found the text 'tcp:x'; {endpoint}")
        line = self.line(text, options=Options(tls_key="/k"))
        self.assertEqual(
            line,
            "--tls-key: found a key without a certificate; allowed is both, or tls_certificate alone with the"
            " key in its file",
        )
