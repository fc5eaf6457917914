"""`twistd registry` as a user meets it: what it says when it starts, and the one line when it cannot."""

import os
import signal
import socket
import ssl
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.running import TWISTD, Running, environment, run, wait_until
from txregistry.tap import Options

LOCAL = "tcp:0:interface=127.0.0.1"


class OptionsTests(SynchronousTestCase):
    def test_defaults(self):
        options = Options()
        options.parseOptions([])
        self.assertEqual(options["listen"], [])
        self.assertIsNone(options["config"])

    def test_listen_is_repeatable(self):
        options = Options()
        options.parseOptions(["--listen", "tcp:1", "--listen=https:2", "--flavor", "prod", "-c", "x.yml"])
        self.assertEqual(options["listen"], ["tcp:1", "https:2"])
        self.assertEqual((options["flavor"], options["config"]), ("prod", "x.yml"))

    def test_two_do_not_share_their_list(self):
        Options().parseOptions(["--listen", "tcp:1"])
        self.assertEqual(Options()["listen"], [])

    def test_unknown(self):
        self.assertRaises(UsageError, Options().parseOptions, ["--nonesuch"])
        self.assertRaises(UsageError, Options().parseOptions, ["word"])

    def pid_file(self, nodaemon: bool, pidfile: str) -> str:
        options = Options()
        twistd = Options()
        twistd.update(nodaemon=nodaemon, pidfile=pidfile)
        options.parent = twistd
        options.parseOptions([])
        self.assertEqual(options.daemon, not nodaemon)
        found: str = twistd["pidfile"]
        return found

    def test_no_pid_file_in_the_foreground(self):
        self.assertEqual(self.pid_file(True, "twistd.pid"), "")
        self.assertEqual(self.pid_file(True, "mine.pid"), "mine.pid")
        self.assertEqual(self.pid_file(False, "twistd.pid"), "twistd.pid")


class InAFolder(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def config(self, text: str) -> str:
        path = self.folder / "registry.yml"
        path.write_text(text)
        return str(path)


class StartTests(InAFolder):
    def test_without_any_configuration(self):
        with Running(self.folder, "--listen", LOCAL) as server:
            self.assertEqual(server.get("/v2/")[0], 200)
            told = "\n".join(server.lines)
            store = self.folder / ".local" / "share" / "txregistry"
            self.assertIn(f"storing in {store} (local)", told)
            self.assertIn("flavor dev without a configuration file", told)
            self.assertIn("anybody who can connect may pull, push and delete", told)
            self.assertTrue(store.is_dir())
            self.assertEqual(server.stop(), -signal.SIGTERM)
            told = "\n".join(server.lines)
            name = server.addresses[0].removeprefix("http://127.0.0.1")
            self.assertIn(f"docker push localhost{name}/alpine", told)
            self.assertNotIn("Traceback", told)
            self.assertNotIn("[txregistry.service#warn]", told)
        self.assertEqual(sorted(os.listdir(self.folder)), [".local"])

    def test_two_in_one_working_directory(self):
        with Running(self.folder, "--listen", LOCAL) as one, Running(self.folder, "--listen", LOCAL) as two:
            self.assertEqual((one.get("/v2/")[0], two.get("/v2/")[0]), (200, 200))

    def test_options_win_over_the_file(self):
        config = self.config("common: {storage_path: /no/such}\nprod: {listen: 'tcp:1', loglevel: debug}\n")
        arguments = ("--config", config, "--flavor", "prod", "--storage-path", "here", "--listen", LOCAL)
        with Running(self.folder, *arguments) as server:
            told = "\n".join(server.lines)
            self.assertIn(f"flavor prod of {config}", told)
            self.assertIn(f"storing in {self.folder / 'here'}", told)
            self.assertEqual(len(server.addresses), 1)

    def test_from_the_environment(self):
        config = self.config(f"dev: {{}}\nprod: {{storage_path: here, listen: '{LOCAL}'}}\n")
        with Running(self.folder, SETTINGS_FLAVOR="prod", DOCKER_REGISTRY_CONFIG=config) as server:
            self.assertIn(f"flavor prod of {config}", "\n".join(server.lines))

    def test_several_endpoints_with_tls(self):
        authority = Authority(str(self.folder / "tls"))
        certificate, key = authority.issue("server")
        arguments = ("--listen", LOCAL, "--listen", "https:0:interface=127.0.0.1", "--listen", "unix:r.sock")
        with Running(self.folder, *arguments, "--tls-certificate", certificate, "--tls-key", key) as server:
            self.assertEqual(len(server.addresses), 3)
            context = ssl.create_default_context(cafile=authority.path)
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.assertEqual(server.get("/v2/")[0], 200)
            self.assertEqual(server.get("/v2/", context, address=1)[0], 200)
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(os.path.relpath(self.folder / "r.sock"))
                plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                self.assertTrue(plain.recv(100).startswith(b"HTTP/1.1 200"))

    def test_warning_where_anybody_may_push(self):
        with Running(self.folder, "--listen", "tcp:0") as server:
            server.stop()
            told = "\n".join(server.lines)
        self.assertIn("anybody who can reach http://0.0.0.0:", told)

    def test_no_warning_where_certificates_are_asked_for(self):
        authority = Authority(str(self.folder / "tls"))
        certificate, key = authority.issue("server")
        tls = ("--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", authority.path)
        with Running(self.folder, "--listen", "https:0", *tls) as server:
            server.stop()
            told = "\n".join(server.lines)
        self.assertIn(f"whoever shows a certificate of {authority.path} may pull, push and delete", told)
        self.assertNotIn("anybody", told)

    def test_access_log_on_standard_output(self):
        with Running(self.folder, "--listen", LOCAL) as server:
            server.get("/v2/")
            server.stop()
        logged = [line for line in server.lines if line.startswith("127.0.0.1 - - [")]
        self.assertEqual(len(logged), 1, server.lines)
        self.assertIn('"GET /v2/ HTTP/1.1" 200 ', logged[0])

    def test_access_log_in_a_file_and_loglevel(self):
        config = self.config(
            f"dev: {{storage_path: here, listen: '{LOCAL}', access_log: access.log, loglevel: error}}\n"
        )
        with Running(self.folder, "--config", config) as server:
            server.get("/v2/")
            server.stop()
        self.assertIn('"GET /v2/ HTTP/1.1" 200 ', (self.folder / "access.log").read_text())
        told = "\n".join(server.lines)
        self.assertIn("listening on", told)
        # What twistd logs at a stop is of level info.
        self.assertNotIn("Server Shut Down", told)

    def test_interrupted_from_the_terminal(self):
        with Running(self.folder, "--listen", LOCAL) as server:
            self.assertEqual(server.stop(signal.SIGINT), -signal.SIGINT)
            self.assertNotIn("Traceback", "\n".join(server.lines))

    def test_in_the_background(self):
        result = run(self.folder, "registry", "--listen", LOCAL)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        pid = int((self.folder / "twistd.pid").read_text())
        # The first twistd ends before the second has begun to listen to signals.
        log = self.folder / "twistd.log"
        wait_until(lambda: "listening on http://127.0.0.1:" in log.read_text(), "its first lines")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the daemon")
        self.assertIn("Server Shut Down", log.read_text())
        self.assertFalse((self.folder / "twistd.pid").exists())


class RefusalTests(InAFolder):
    def refusal(self, *arguments: str, **more: str) -> str:
        """The line on standard error of a start that fails, and that it is all there is."""
        result = run(self.folder, "-n", "registry", *arguments, **more)
        self.assertEqual(result.returncode, 1, result.stderr + result.stdout)
        self.assertNotIn("Traceback", result.stderr + result.stdout)
        self.assertTrue(result.stderr.endswith("\n"))
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertNotIn("Usage", result.stdout)
        self.assertFalse((self.folder / "twistd.pid").exists())
        line = result.stderr.rstrip("\n")
        self.assertTrue(line.startswith("txregistry: "), line)
        return line.removeprefix("txregistry: ")

    def taken_port(self) -> int:
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port: int = taken.getsockname()[1]
        return port

    def test_port_taken(self):
        endpoint = f"tcp:{self.taken_port()}:interface=127.0.0.1"
        self.assertEqual(
            self.refusal("--listen", endpoint),
            f"cannot listen on {endpoint}: the address is already in use by another program",
        )

    def test_storage_is_no_folder(self):
        (self.folder / "file").write_text("")
        line = self.refusal("--listen", LOCAL, "--storage-path", "file")
        self.assertEqual(line, f"storage path {self.folder / 'file'} is not a directory")

    def test_storage_cannot_be_made(self):
        line = self.refusal("--listen", LOCAL, "--storage-path", "/proc/no/store")
        self.assertIn("storage path /proc/no/store cannot be written: ", line)

    def test_certificate_and_key(self):
        authority = Authority(str(self.folder / "tls"))
        certificate, _ = authority.issue("one")
        _, key = authority.issue("two")
        tls = ("--listen", "https:0:interface=127.0.0.1", "--tls-certificate", certificate, "--tls-key")
        self.assertIn("do not belong together", self.refusal(*tls, key))
        self.assertIn("cannot read the key /no/such.key: No such file", self.refusal(*tls, "/no/such.key"))

    def test_https_without_certificate(self):
        self.assertIn("tls_certificate is missing", self.refusal("--listen", "https:0"))

    def test_endpoints(self):
        self.assertIn("endpoint", self.refusal("--listen", "5000"))
        self.assertIn("nonesuch", self.refusal("--listen", "nonesuch:1"))
        self.assertIn("interface is an address", self.refusal("--listen", "tcp:0:interface=eth0"))

    def test_unknown_flavor(self):
        config = self.config("dev: {storage_path: here}\nprod: {storage_path: here}\n")
        line = self.refusal("--config", config, "--flavor", "prdo")
        self.assertIn(config, line)
        self.assertIn("prdo", line)
        self.assertIn("prod", line)

    def test_unknown_key(self):
        config = self.config("dev: {storage_pat: here}\n")
        line = self.refusal("--config", config)
        self.assertIn("storage_pat", line)
        self.assertIn("storage_path", line)

    def test_missing_file(self):
        self.assertIn("/no/such.yml", self.refusal("--config", "/no/such.yml"))
        self.assertIn("/no/such.yml", self.refusal(DOCKER_REGISTRY_CONFIG="/no/such.yml"))

    def test_engine_that_does_not_answer(self):
        if find_spec("boto3") is None:
            raise SkipTest("needs boto3")
        with socket.socket() as taken:  # bound, but nobody listens
            taken.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
            config = self.config(
                f"dev: {{storage: s3, s3_bucket: bkt, s3_access_key: a, s3_secret_key: hidden, listen: '{LOCAL}',"
                f" s3_endpoint: '{endpoint}'}}\n"
            )
            line = self.refusal("--config", config)
        self.assertIn(f"storage: bucket bkt at {endpoint} cannot be used", line)
        self.assertNotIn("hidden", line)

    def test_access_control_that_contradicts_itself(self):
        config = self.config("dev: {storage_path: here, standalone: false, users_file: users}\n")
        self.assertIn("users_file", self.refusal("--config", config))
        config = self.config("dev: {storage_path: here, accounts: open}\n")
        self.assertIn("users_file", self.refusal("--config", config))

    def test_access_log_that_cannot_be_written(self):
        config = self.config(f"dev: {{storage_path: here, listen: '{LOCAL}', access_log: /no/such/folder/log}}\n")
        self.assertIn("access_log: /no/such/folder/log cannot be written", self.refusal("--config", config))

    def test_in_the_background(self):
        endpoint = f"tcp:{self.taken_port()}:interface=127.0.0.1"
        result = run(self.folder, "registry", "--listen", endpoint)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot listen", result.stderr)
        self.assertIn(f"cannot listen on {endpoint}", (self.folder / "twistd.log").read_text())

    def test_nothing_is_opened_before_the_configuration_is_read(self):
        self.refusal("--listen", LOCAL, "--listen", "nonsense")
        self.assertEqual(os.listdir(self.folder), [])


class StartCostTests(InAFolder):
    def imported(self, code: str) -> set[str]:
        """The modules that are there after some code ran in a fresh interpreter."""
        import subprocess

        script = f"import sys\n{code}\nsys.stdout.write(' '.join(sys.modules))"
        output = subprocess.run(
            [sys.executable, "-c", script],
            cwd=self.folder,
            env=environment(self.folder),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        return set(output.split())

    def test_options_are_light(self):
        loaded = self.imported("import txregistry.tap; txregistry.tap.Options()")
        self.assertEqual(loaded & {"klein", "yaml", "OpenSSL", "txregistry.service", "twisted.internet.reactor"}, set())

    def test_a_server_on_local_storage_needs_no_other_engine(self):
        loaded = self.imported(
            "import txregistry.tap as tap\n"
            "options = tap.Options()\n"
            "options.parseOptions([])\n"
            "tap.makeService(options)\n"
        )
        self.assertIn("klein", loaded)
        self.assertEqual(loaded & {"boto3", "botocore", "treq", "txredisapi", "rsa", "prometheus_client"}, set())

    def test_the_plugin_is_found(self):
        self.assertTrue(TWISTD)
        result = run(self.folder, "--help")
        self.assertRegex(result.stdout, r"registry +A container registry")
