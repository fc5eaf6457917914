"""Several workers as processes: how connections are spread, what a killed one costs, and five graceful restarts."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.running import ROOT, SECONDS, Running, environment, run, wait_until
from tests.web.v1.base import archive, simple

LOCAL = "tcp:0:interface=127.0.0.1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
WORKERS = 4
RESTARTS = 5
CLIENTS = 3


def say(text: str) -> None:
    """Put a measured number into the output of the tests."""
    sys.stdout.write(f"\n    {text}\n")
    sys.stdout.flush()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def children(pid: int) -> "set[int]":
    """The processes that a process has started and whose end it has not noticed."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    return len(inodes(pid))


def inodes(pid: int) -> "set[str]":
    """The sockets that a process has open, as /proc/net names them."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            kind, _, inode = os.readlink(descriptor).partition(":[")
            if kind == "socket":
                found.add(inode.rstrip("]"))
    return found


def accepts(pid: int, port: int) -> bool:
    """Whether a process has a listening socket of an IPv4 port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {line[9] for line in lines if line[3] == "0A" and int(line[1].partition(":")[2], 16) == port}
    return not listening.isdisjoint(inodes(pid))


class Client(threading.Thread):
    """Pushes and pulls images over one connection at a time until told to stop, and keeps count."""

    def __init__(self, name: str, host: str) -> None:
        super().__init__()
        self.repository = name
        self.host = host
        self.stopping = threading.Event()
        #: What was acknowledged: path -> content.
        self.kept: dict[str, bytes] = {}
        self.requests = 0
        self.refused = 0
        self.failures: list[str] = []
        self.closes = 0
        self._connection = http.client.HTTPConnection(host, timeout=SECONDS)

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                self.push(number)
                self.push_v1(number)
            except ConnectionRefusedError as error:
                self.refused += 1
                self._failed(error)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self._failed(error)
        self._connection.close()

    def _failed(self, error: BaseException) -> None:
        self.failures.append(f"{type(error).__name__}: {error}")
        self._connection.close()

    def ask(
        self, method: str, path: str, body: "bytes | None" = None, wanted: int = 200, **headers: str
    ) -> "tuple[http.client.HTTPResponse, bytes]":
        self._connection.request(
            method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = self._connection.getresponse()
        data = response.read()
        self.requests += 1
        self.closes += response.getheader("Connection") == "close"
        assert response.status == wanted, f"{method} {path}: {response.status} {data[:200]!r}"
        return response, data

    def push(self, number: int) -> None:
        """A blob in two chunks and an end, a blob in one request, a manifest; then all of it back."""
        base = f"/v2/{self.repository}"
        config = json.dumps({"number": number, "of": self.repository}).encode()
        layer = f"{self.repository} {number} ".encode() * 4000
        location = self.ask("POST", f"{base}/blobs/uploads/", wanted=202)[0].getheader("Location")
        half = len(layer) // 2
        for start, piece in ((0, layer[:half]), (half, layer[half:])):
            assert location is not None
            place = f"{start}-{start + len(piece) - 1}"
            answer, _ = self.ask(
                "PATCH", location, piece, 202, Content_Range=place, Content_Type="application/octet-stream"
            )
            location = answer.getheader("Location")
        assert location is not None
        mark = "&" if "?" in location else "?"
        self.ask("PUT", f"{location}{mark}digest={digest_of(layer)}", b"", 201)
        self.kept[f"{base}/blobs/{digest_of(layer)}"] = layer
        self.ask("POST", f"{base}/blobs/uploads/?digest={digest_of(config)}", config, 201)
        self.kept[f"{base}/blobs/{digest_of(config)}"] = config
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": "application/x", "digest": digest_of(config), "size": len(config)},
                "layers": [{"mediaType": "application/y", "digest": digest_of(layer), "size": len(layer)}],
            }
        ).encode()
        self.ask("PUT", f"{base}/manifests/t{number}", manifest, 201, Content_Type=MANIFEST)
        self.kept[f"{base}/manifests/{digest_of(manifest)}"] = manifest
        self.kept[f"{base}/manifests/t{number}"] = manifest
        for path, content in list(self.kept.items())[-4:]:
            assert self.ask("GET", path, Accept=MANIFEST)[1] == content, path

    def push_v1(self, number: int) -> None:
        """An image of V1 with its tag, and all of it back. The cookie of the layer's answer goes with the checksum."""
        image = hashlib.sha256(f"{self.repository} {number}".encode()).hexdigest()
        base = f"/v1/images/{image}"
        data = json.dumps({"id": image}).encode()
        layer = archive("etc/motd", f"{self.repository} {number}\n".encode() * 1000)
        self.ask("PUT", f"{base}/json", data)
        cookie = self.ask("PUT", f"{base}/layer", layer)[0].getheader("Set-Cookie")
        assert cookie is not None
        cookie = cookie.partition(";")[0]
        self.ask("PUT", f"{base}/checksum", b"", X_Docker_Checksum=simple(data, layer), Cookie=cookie)
        tag = f"/v1/repositories/{self.repository}/tags/v{number}"
        self.ask("PUT", tag, json.dumps(image).encode())
        self.kept.update({f"{base}/json": data, f"{base}/layer": layer, tag: json.dumps(image).encode()})
        for path, content in list(self.kept.items())[-3:]:
            assert self.ask("GET", path)[1] == content, path

    def lost(self) -> "list[str]":
        """What was acknowledged and is not there."""
        self._connection = http.client.HTTPConnection(self.host, timeout=SECONDS)
        gone = []
        for path, content in self.kept.items():
            self._connection.request("GET", path, headers={"Accept": MANIFEST})
            response = self._connection.getresponse()
            if response.read() != content or response.status != 200:
                gone.append(path)
        self._connection.close()
        return gone


class InAFolder(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def config(self, access_log: str = "off") -> str:
        path = self.folder / "registry.yml"
        # Nobody reads the output of these servers, so it must be little.
        log = f"access_log: '{access_log}'"
        path.write_text(f"dev: {{storage_path: store, {log}, workers: {WORKERS}, listen: '{LOCAL}'}}\n")
        return str(path)

    def workers(self, server: Running) -> "set[int]":
        return children(server.process.pid)

    def other_workers(self, server: Running, before: "set[int]", count: int) -> None:
        """Wait until none is left of those before, and so many others run."""
        wait_until(lambda: len(now := self.workers(server)) == count and not now & before, "other workers")


class WorkersTests(InAFolder):
    def test_connections_are_spread(self):
        with Running(self.folder, "--config", self.config()) as server:
            host, _, port = server.addresses[0].removeprefix("http://").partition(":")
            before = {pid: sockets_of(pid) for pid in self.workers(server)}
            self.assertEqual(len(before), WORKERS)
            connections = [socket.create_connection((host, int(port))) for _ in range(64)]
            for each in connections:
                each.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            answers = [each.recv(65536) for each in connections]
            spread = sorted((sockets_of(pid) - before[pid] for pid in before), reverse=True)
            for each in connections:
                each.close()
            say(f"64 connections over {WORKERS} workers: {'/'.join(map(str, spread))}")
            self.assertTrue(all(answer.startswith(b"HTTP/1.1 200") for answer in answers))
            self.assertEqual(sum(spread), 64)
            # With an even chance for each, one of four goes empty once in 25 million runs.
            self.assertTrue(min(spread) > 0, spread)
            self.assertEqual(server.stop(), -signal.SIGTERM)
            self.assertEqual(len([line for line in server.lines if "listening on" in line]), 1)
            self.assertNotIn("Traceback", "\n".join(server.lines))

    def test_kills_and_restarts(self):
        with Running(self.folder, "--config", self.config()) as server:
            host = server.addresses[0].removeprefix("http://")
            clients = [Client(f"r{number}/i", host) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            try:
                self.restarts(server, clients)
                quiet = sum(len(client.failures) for client in clients)
                failures = [failure for client in clients for failure in client.failures]
                self.kill(server, clients)
            finally:
                for client in clients:
                    client.stopping.set()
                for client in clients:
                    client.join()
            refused = sum(client.refused for client in clients)
            lost = [path for client in clients for path in client.lost()]
            kept = sum(len(client.kept) for client in clients)
            requests = sum(client.requests for client in clients)
            closes = sum(client.closes for client in clients)
            say(f"{requests} requests of {CLIENTS} clients, {closes} connections ended by an answer")
            say(f"five graceful restarts: requests failed by a restart ({quiet})")
            say(f"with a worker killed as well: refused connections ({refused})")
            say(f"acknowledged objects lost ({len(lost)} of {kept})")
            self.assertEqual(failures, [])
            self.assertEqual((refused, lost), (0, []))
            self.assertTrue(closes >= 1)
            self.assertEqual(server.stop(), -signal.SIGTERM)
            self.assertNotIn("Traceback", "\n".join(server.lines))

    def restarts(self, server: Running, clients: "list[Client]") -> None:
        for _ in range(RESTARTS):
            before = self.workers(server)
            asked = [client.requests for client in clients]
            server.process.send_signal(signal.SIGHUP)
            self.other_workers(server, before, WORKERS)
            self.assertTrue(all(client.requests > past for client, past in zip(clients, asked, strict=True)))

    def kill(self, server: Running, clients: "list[Client]") -> None:
        before = self.workers(server)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(self.workers(server) - {victim}) == WORKERS, "another worker in its place")
        asked = [client.requests for client in clients]
        wait_until(
            lambda: all(client.requests > past + 20 for client, past in zip(clients, asked, strict=True)),
            "more requests",
        )
        self.assertEqual(len(self.workers(server) & before), WORKERS - 1)

    def test_what_waits_for_a_killed_worker_is_served_by_the_next(self):
        with Running(self.folder, "--config", self.config(), "--workers", "1") as server:
            (pid,) = self.workers(server)
            os.kill(pid, signal.SIGKILL)
            self.assertEqual(server.get("/v2/")[0], 200)
            self.assertNotIn(pid, self.workers(server))

    def test_workers_end_with_their_parent(self):
        with Running(self.folder, "--config", self.config()) as server:
            pids = self.workers(server)
            self.assertEqual({os.getpgid(pid) for pid in pids}, pids)
            server.process.kill()
            wait_until(
                lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of the workers"
            )

    def test_requests_in_flight_and_idle_connections(self):
        """A slow upload ends well on the worker that began it, and an idle connection gets one more answer."""
        with Running(self.folder, "--config", self.config(), "--workers", "1") as server:
            host = server.addresses[0].removeprefix("http://")
            idle, slow = (http.client.HTTPConnection(host, timeout=SECONDS) for _ in range(2))
            idle.request("GET", "/v2/")
            idle.getresponse().read()
            data = b"d" * 300_000
            slow.putrequest("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}")
            slow.putheader("Content-Length", str(len(data)))
            slow.endheaders()
            slow.send(data[:100_000])
            before = self.workers(server)
            server.process.send_signal(signal.SIGHUP)
            (old,) = before
            wait_until(lambda: not accepts(old, int(host.partition(":")[2])), "a second worker that serves")
            self.assertEqual(server.get("/v2/")[0], 200)
            slow.send(data[100_000:])
            response = slow.getresponse()
            self.assertEqual(
                (response.status, response.getheader("Connection")), (201, "close"), response.read()
            )
            self.assertTrue(before & self.workers(server))
            idle.request("GET", "/v2/")
            response = idle.getresponse()
            self.assertEqual((response.status, response.getheader("Connection")), (200, "close"))
            response.read()
            wait_until(lambda: not before & self.workers(server), "the end of the first worker")
            self.assertEqual(server.get(f"/v2/a/blobs/{digest_of(data)}")[1], data)
            slow.close()
            idle.close()

    def test_an_upload_goes_on_elsewhere(self):
        with Running(self.folder, "--config", self.config(), "--workers", "1") as server:
            host = server.addresses[0].removeprefix("http://")

            def ask(method: str, path: str, body: bytes, **headers: str) -> http.client.HTTPResponse:
                connection = http.client.HTTPConnection(host, timeout=SECONDS)
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                response.read()
                connection.close()
                return response

            data = os.urandom(100_000)
            location = ask("POST", "/v2/a/blobs/uploads/", b"").getheader("Location")
            for start in range(0, len(data), 20_000):
                assert location is not None
                response = ask("PATCH", location, data[start : start + 20_000])
                self.assertEqual(response.status, 202)
                location = response.getheader("Location")
                before = self.workers(server)
                if start % 40_000:
                    os.kill(min(before), signal.SIGKILL)
                else:
                    server.process.send_signal(signal.SIGHUP)
                self.other_workers(server, before, 1)
            assert location is not None
            mark = "&" if "?" in location else "?"
            self.assertEqual(ask("PUT", f"{location}{mark}digest={digest_of(data)}", b"").status, 201)
            self.assertEqual(server.get(f"/v2/a/blobs/{digest_of(data)}")[1], data)

    def test_tls_and_sockets_with_a_name(self):
        authority = Authority(str(self.folder / "tls"))
        certificate, key = authority.issue("server")
        listen = ("--listen", "https:0:interface=127.0.0.1", "--listen", "unix:r.sock:mode=600")
        tls = ("--tls-certificate", certificate, "--tls-key", key)
        with Running(self.folder, "--config", self.config(), "--workers", "2", *listen, *tls) as server:
            context = ssl.create_default_context(cafile=authority.path)
            path = self.folder / "r.sock"
            for _ in range(2):
                self.assertEqual(server.get("/v2/", context)[0], 200)
                with socket.socket(socket.AF_UNIX) as plain:
                    plain.connect(os.path.relpath(path))
                    plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    self.assertTrue(plain.recv(100).startswith(b"HTTP/1.1 200"))
                self.assertEqual(path.stat().st_mode & 0o777, 0o600)
                before = self.workers(server)
                server.process.send_signal(signal.SIGHUP)
                self.other_workers(server, before, 2)
            # New workers read the certificate anew.
            os.replace(authority.issue("other")[0], certificate)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(self.workers(server)) == 3, "an attempt")
            wait_until(lambda: len(self.workers(server)) == 2, "its end")
            self.assertEqual(server.get("/v2/", context)[0], 200)
            server.stop()
            self.assertIn(
                "do not belong together; those that serve go on as they are", "\n".join(server.lines)
            )
        self.assertFalse(path.exists())

    def test_as_many_as_cpus(self):
        with Running(self.folder, "--config", self.config(), "--workers", "auto") as server:
            self.assertEqual(len(self.workers(server)), len(os.sched_getaffinity(0)))

    def test_access_log(self):
        with Running(self.folder, "--listen", LOCAL, "--workers", "2") as server:
            server.get("/v2/")
            server.stop()
        self.assertEqual(
            len([line for line in server.lines if line.startswith("127.0.0.1 - - [")]), 1, server.lines
        )

    def test_in_the_background(self):
        result = run(self.folder, "registry", "--config", self.config())
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        pid = int((self.folder / "twistd.pid").read_text())
        log = self.folder / "twistd.log"
        wait_until(lambda: " may pull" in log.read_text(), "its first lines")
        pids = children(pid)
        self.assertEqual(len(pids), WORKERS)
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: len(now := children(pid)) == WORKERS and not now & pids, "other workers")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the daemon")
        self.assertIn("Server Shut Down", log.read_text())
        self.assertNotIn("Traceback", log.read_text())
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_one_process_outlives_hangups(self):
        log = self.folder / "access.log"
        with Running(self.folder, "--config", self.config("access.log"), "--workers", "0") as server:
            server.get("/v2/")
            log.rename(self.folder / "old.log")
            server.process.send_signal(signal.SIGHUP)

            def reopened() -> bool:
                server.get("/v2/")
                return log.exists()

            wait_until(reopened, "a new file")
            self.assertEqual(server.stop(), -signal.SIGTERM)


class PrivilegeTests(InAFolder):
    NOBODY = 65534

    def test_files_and_ports_of_root(self):
        """The sockets and the key are root's, the workers are not; a restart knows the files that they cannot read."""
        # The folders of trial are closed to others.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o755)
        able = [sys.executable, "-c", "import txregistry.workers.worker"]
        if os.geteuid() != 0:
            self.skipTest("needs to be root")
        try:
            subprocess.run(
                able, cwd="/", env=environment(ROOT), check=True, user=self.NOBODY, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("only root may use this Python")
        certificate, key = Authority(str(self.folder / "tls")).issue("server")
        os.chmod(key, 0o600)
        os.chmod(self.config(), 0o600)
        store = self.folder / "store"
        store.mkdir()
        os.chown(store, self.NOBODY, self.NOBODY)
        arguments = ("--config", self.config(), "--workers", "2", "--listen", "https:0:interface=127.0.0.1")
        identity = ("--uid", str(self.NOBODY), "--gid", str(self.NOBODY))
        tls = ("--tls-certificate", certificate, "--tls-key", key)
        with Running(self.folder, *arguments, *tls, before=identity) as server:
            context = ssl._create_unverified_context()
            for _ in range(2):
                self.assertEqual(server.get("/v2/", context)[0], 200)
                before = self.workers(server)
                self.assertEqual({Path(f"/proc/{pid}").stat().st_uid for pid in before}, {self.NOBODY})
                server.process.send_signal(signal.SIGHUP)
                self.other_workers(server, before, 2)


class RefusalTests(InAFolder):
    def refusal(self, *arguments: str) -> str:
        """The one line with which a start fails."""
        result = run(self.folder, "-n", "registry", "--workers", "2", *arguments)
        self.assertEqual(result.returncode, 1, result.stderr + result.stdout)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertNotIn("Traceback", result.stdout)
        return result.stderr.removeprefix("txregistry: ").rstrip("\n")

    def test_storage(self):
        (self.folder / "file").write_text("")
        line = self.refusal("--listen", LOCAL, "--storage-path", "file")
        self.assertEqual(line, f"storage path {self.folder / 'file'} is not a directory")

    def test_storage_in_the_background(self):
        (self.folder / "file").write_text("")
        result = run(self.folder, "registry", "--workers", "2", "--listen", LOCAL, "--storage-path", "file")
        self.assertEqual(result.returncode, 1)
        self.assertIn("StartFailed", result.stderr)
        self.assertIn("is not a directory", (self.folder / "twistd.log").read_text())
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_port_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            line = self.refusal("--listen", endpoint)
        self.assertEqual(
            line, f"cannot listen on {endpoint}: the address is already in use by another program"
        )

    def test_port_taken_by_other_workers(self):
        with Running(self.folder, "--config", self.config()) as server:
            endpoint = f"tcp:{server.addresses[0].rpartition(':')[2]}:interface=127.0.0.1"
            self.assertIn("already in use", self.refusal("--listen", endpoint))

    def test_endpoints_that_cannot_be_shared(self):
        self.assertIn("workers serve tcp:", self.refusal("--listen", "ssl:0"))

    def test_certificate_and_key(self):
        authority = Authority(str(self.folder / "tls"))
        certificate, _ = authority.issue("one")
        _, key = authority.issue("two")
        tls = ("--listen", "https:0:interface=127.0.0.1", "--tls-certificate", certificate, "--tls-key")
        self.assertIn("do not belong together", self.refusal(*tls, key))
        self.assertIn("cannot read the key /no/such.key: No such file", self.refusal(*tls, "/no/such.key"))
