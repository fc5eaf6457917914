"""The servers that are compared: how each is got, configured and started."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from bench.builds import built_go, installed
from bench.connection import Address, Connection, Failed
from bench.processes import Cpu, Program
from tests.certificates import Authority

#: Without these CNCF distribution does not show what it has.
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
START_SECONDS = 60.0
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class Place(NamedTuple):
    """Where a server runs: its folder for configuration and logs, its store, its port, and if it is to speak TLS."""

    folder: str
    store: str
    port: int
    #: Certificate and key.
    tls: tuple[str, str] | None
    #: Where a probe within our server notes how long its reactor was busy.
    lags: str | None = None


@dataclass(frozen=True)
class Peer:
    """A server: `command` writes its configuration and returns what starts it; Missing if it cannot be had."""

    name: str
    label: str
    command: Callable[[Place], list[str]]
    #: Whether it can be pushed to; the other one serves files that the benchmark has laid out.
    registry: bool = True
    #: Whether its store is in the layout of CNCF distribution.
    distribution: bool = False
    #: Whether it answers a push only when it is on the disk.
    syncs: bool = False


def _write(path: str, text: str) -> str:
    with open(path, "w") as file:
        file.write(text)
    return path


def _ours(place: Place, workers: int = 0, fsync: bool = True) -> list[str]:
    """Ours; one process, or several. Its access log goes where its output goes, into a file."""
    document: dict[str, object] = {
        "storage": "local", "storage_path": place.store, "fsync": fsync, "loglevel": "info", "workers": workers,
        "listen": f"{'https' if place.tls else 'tcp'}:{place.port}:interface=127.0.0.1",
    }  # fmt: skip
    if place.tls:
        document["tls_certificate"], document["tls_key"] = place.tls
    # JSON is YAML.
    config = _write(os.path.join(place.folder, "config.yml"), json.dumps({"dev": document}))
    starter = TWISTD if place.lags is None else [sys.executable, "-m", "bench.server", place.lags]
    return [*starter, "-n", "registry", "--config", config]


def _distribution(place: Place, program: Callable[[], str]) -> list[str]:
    """CNCF distribution, version 2 or 3, as fast as it can be: no access log, descriptors of blobs in memory."""
    http: dict[str, object] = {"addr": f"127.0.0.1:{place.port}"}
    if place.tls:
        http["tls"] = dict(zip(("certificate", "key"), place.tls, strict=True))
    storage = {
        "filesystem": {"rootdirectory": place.store},
        "cache": {"blobdescriptor": "inmemory"},
        "delete": {"enabled": True},
    }
    document = {
        "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}}, "storage": storage, "http": http,
        # Else its catalogue ends at 1000 for each request, which would cost it time.
        "catalog": {"maxentries": 100_000},
    }  # fmt: skip
    return [program(), "serve", _write(os.path.join(place.folder, "config.yml"), json.dumps(document))]


def _olareg(place: Place) -> list[str]:
    command = [built_go("olareg"), "serve", "--addr", "127.0.0.1", "--port", str(place.port), "--dir", place.store]
    tls = ["--tls-cert", place.tls[0], "--tls-key", place.tls[1]] if place.tls else []
    return [*command, "--api-delete", "--api-blob-delete", *tls]


def _nginx(place: Place) -> list[str]:
    """nginx, with the files of `Content.lay_out`, as the limit for reading."""
    folder = place.folder
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    tls = f"ssl_certificate {place.tls[0]}; ssl_certificate_key {place.tls[1]};" if place.tls else ""
    config = f"""daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
events {{ worker_connections 16000; }}
http {{
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  {temporary}
  server {{
    listen 127.0.0.1:{place.port} {"ssl" if place.tls else ""} backlog=4096;
    {tls}
    root {place.store};
    default_type application/octet-stream;
    location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
    location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
  }}
}}
"""
    return [installed("nginx"), "-c", _write(f"{folder}/nginx.conf", config), "-e", f"{folder}/error.log"]


OURS, OURS_2, UNSYNCED, NGINX = "ours", "ours-2", "ours-unsynced", "nginx"
DISTRIBUTION_3, DISTRIBUTION_2, OLAREG = "distribution-3", "distribution-2", "olareg"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "txregistry", _ours, distribution=True, syncs=True),
        Peer(OURS_2, "txregistry, 2 workers", partial(_ours, workers=2), distribution=True, syncs=True),
        Peer(UNSYNCED, "txregistry, `fsync: false`", partial(_ours, fsync=False), distribution=True),
        Peer(
            DISTRIBUTION_3,
            "distribution 3.1.2",
            partial(_distribution, program=partial(built_go, "distribution")),
            distribution=True,
            syncs=True,
        ),
        Peer(OLAREG, "olareg 0.2.2", _olareg),
        Peer(NGINX, "nginx", _nginx, registry=False),
        Peer(
            DISTRIBUTION_2,
            "distribution 2.8",
            partial(_distribution, program=partial(installed, "docker-registry")),
            distribution=True,
            syncs=True,
        ),
    )
}


class Server:
    """A started server. `started` and `ready` are seconds on the wall and processor time until its first answer."""

    def __init__(self, peer: Peer, program: Program, address: Address, store: str) -> None:
        self.peer, self.program, self.address, self.store = peer, program, address, store
        self.started = 0.0
        self.ready = Cpu(0.0, 0.0, 0.0)

    def answers(self, path: str) -> bool:
        """Whether it answers a GET with 200."""
        connection = Connection(self.address, 30.0)
        try:
            return connection.request("GET", path, [("Accept", ACCEPT)]).status == 200
        except (OSError, Failed):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop it."""
        self.program.stop()


class Ground:
    """Where all servers run: a folder with an authority for certificates and a folder for each server."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        authority = Authority(os.path.join(folder, "certificates"))
        self.certificate = authority.issue("server")
        self.tls = ssl.create_default_context(cafile=authority.path)
        self.tls.set_alpn_protocols(["http/1.1"])
        self._started = 0

    def start(
        self,
        peer: Peer,
        *,
        store: str | None = None,
        tls: bool = False,
        lags: str | None = None,
        path: str = "/v2/",
    ) -> Server:
        """Start a server and wait until it answers a GET of `path` with 200; Missing, or RuntimeError if it ends."""
        self._started += 1
        folder = os.path.join(self.folder, f"{peer.name}-{self._started}")
        os.mkdir(folder)
        store = store or os.path.join(folder, "store")
        os.makedirs(store, exist_ok=True)
        port = _free_port()
        command = peer.command(Place(folder, store, port, self.certificate if tls else None, lags))
        began = time.monotonic()
        program = Program(command, ROOT, os.path.join(folder, "log"))
        server = Server(peer, program, Address("127.0.0.1", port, self.tls if tls else None), store)
        try:
            while not server.answers(path):
                program.check()
                if time.monotonic() - began > START_SECONDS:
                    raise RuntimeError(f"{peer.name} does not answer; see {folder}/log")
                time.sleep(0.002)
        except BaseException:
            server.stop()
            raise
        server.started, server.ready = time.monotonic() - began, program.cpu()
        return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def labels(names: Sequence[str]) -> list[str]:
    """What the table calls these servers."""
    return [PEERS[name].label for name in names]
