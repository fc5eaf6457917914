"""A registry as a process of its own: ours, or Debian's `docker-registry`, on a free port of the loopback.

With TXREGISTRY_LAB_SERVER=docker-registry the whole lab runs against Debian's, which tells a fault of the lab from
one of ours.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.clients import tools
from tests.clients.images import MANIFESTS

START_SECONDS = 60
STOP_SECONDS = 30


@dataclass(frozen=True)
class Certificates:
    """Paths of a CA, of a server's certificate under it, of a client's, and of a CA that signed neither."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str
    stranger: str


def make_certificates(folder: str) -> Certificates:
    """Make all of them in `folder`, good for 127.0.0.1, ::1, localhost and registry.test, for two days."""
    os.makedirs(folder, exist_ok=True)

    def make(name: str, *extra: str) -> tuple[str, str]:
        key, certificate = (os.path.join(folder, name + ending) for ending in (".key", ".crt"))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate, *extra]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return certificate, key

    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    ca, ca_key = make("ca", *authority)
    stranger, _ = make("stranger", *authority)
    leaf = ["-CA", ca, "-CAkey", ca_key, "-addext", "basicConstraints=critical,CA:FALSE"]
    names = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1,IP:::1"
    server, server_key = make("server", *leaf, "-addext", names, "-addext", "extendedKeyUsage=serverAuth")
    client, client_key = make("client", *leaf, "-addext", "extendedKeyUsage=clientAuth")
    return Certificates(ca, server, server_key, client, client_key, stranger)


@dataclass
class Answer:
    """An answer over HTTP; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _free_port(address: str) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


class Registry:
    """One registry process over `storage`; `certificates` makes it speak TLS, `client_ca` ask for certificates.

    `config` is a configuration for ours alone: the settings of one flavor; Debian's is told of its bucket, if it has
    one, with `storage` as a prefix. `peer` asks for Debian's.
    """

    def __init__(
        self,
        folder: str,
        storage: str | None = None,
        certificates: Certificates | None = None,
        client_ca: bool = False,
        address: str = "127.0.0.1",
        config: Mapping[str, Any] | None = None,
        peer: bool = False,
    ) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.storage = storage or os.path.join(folder, "store")
        self.certificates = certificates
        self.client_ca = client_ca
        self.address = address
        self.config = config
        self.peer = peer or os.environ.get("TXREGISTRY_LAB_SERVER") == "docker-registry"
        self.port = _free_port(address)
        self.log = os.path.join(folder, "server.log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """HOST:PORT as clients write it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        return ("https://" if self.certificates else "http://") + self.host

    def start(self) -> Registry:
        """Start it and wait until it answers."""
        command = self._peer_command() if self.peer else self._our_command()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=peer_environment() if self.peer else None,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection((self.address, self.port), timeout=5):
                    return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"{command} does not answer:\n{self.log_tail()}") from None
                time.sleep(0.05)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        """Stop it and wait until it is gone; nothing if it is."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the registry did not stop:\n{self.log_tail()}") from None

    def log_tail(self) -> str:
        with open(self.log, errors="replace") as file:
            return "".join(line[:300] for line in file.readlines()[-15:])

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; underscores in header names stand for hyphens."""
        connection: http.client.HTTPConnection
        if self.certificates:
            context = ssl.create_default_context(cafile=self.certificates.ca)
            context.load_cert_chain(self.certificates.client, self.certificates.client_key)
            connection = http.client.HTTPSConnection(self.address, self.port, timeout=60, context=context)
        else:
            connection = http.client.HTTPConnection(self.address, self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            answer_headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answer_headers, response.read())
        finally:
            connection.close()

    def manifest(self, name: str, reference: str) -> Answer:
        return self.request("GET", f"/v2/{name}/manifests/{reference}", Accept=", ".join(MANIFESTS))

    def upload(self, name: str, data: bytes, digest: str) -> Answer:
        """A blob by POST and PUT."""
        begun = self.request("POST", f"/v2/{name}/blobs/uploads/")
        if begun.status != 202:
            return begun
        location = begun.headers["location"].removeprefix(self.url)
        joint = "&" if "?" in location else "?"
        return self.request("PUT", f"{location}{joint}digest={digest}", data, Content_Type="application/octet-stream")

    def _our_command(self) -> list[str]:
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        found = twistd if os.path.exists(twistd) else shutil.which("twistd")
        if found is None:
            raise tools.missing("twistd is not installed")
        command = [found, "-n", "--pidfile=", "registry", "--storage-path", self.storage]
        where = self.address.replace(":", "\\:")
        scheme = "https" if self.certificates else "tcp"
        command += ["--listen", f"{scheme}:{self.port}:interface={where}"]
        if self.certificates:
            command += ["--tls-certificate", self.certificates.server, "--tls-key", self.certificates.server_key]
            if self.client_ca:
                command += ["--tls-client-ca", self.certificates.ca]
        if self.config is not None:
            path = os.path.join(self.folder, "config.yml")
            with open(path, "w") as file:
                json.dump({"lab": {"storage": "local", **self.config}}, file)
            command += ["--config", path, "--flavor", "lab"]
        return command

    def _peer_command(self) -> list[str]:
        return [tools.find("docker-registry"), "serve", write_peer_config(self)]


def peer_environment() -> dict[str, str]:
    """The environment of Debian's: with a bundle of authorities for S3 in it, it does not start."""
    return {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}


def write_peer_config(registry: Registry) -> str:
    """The configuration with which Debian's registry serves the storage of `registry`; its path."""
    tls: dict[str, Any] = {}
    if registry.certificates:
        tls = {"certificate": registry.certificates.server, "key": registry.certificates.server_key}
        if registry.client_ca:
            tls["clientcas"] = [registry.certificates.ca]
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {**_peer_storage(registry), "delete": {"enabled": True}},
        "http": {"addr": registry.host, "tls": tls},
    }
    path = os.path.join(registry.folder, "peer.yml")
    with open(path, "w") as file:
        json.dump(settings, file)
    return path


def _peer_storage(registry: Registry) -> dict[str, Any]:
    ours = registry.config or {}
    if ours.get("storage") != "s3":
        return {"filesystem": {"rootdirectory": registry.storage}}
    bucket = {
        "bucket": ours["boto_bucket"],
        "region": ours["s3_region"],
        "regionendpoint": ours["s3_endpoint"],
        "accesskey": ours["s3_access_key"],
        "secretkey": ours["s3_secret_key"],
        "secure": False,
        "v4auth": True,
        "rootdirectory": f"/{registry.storage}",
    }
    # Clients would be sent to the bucket, and ours of these tests do not follow.
    return {"s3": bucket, "redirect": {"disable": True}}
