"""Each storage engine on its real server: skopeo, docker and a V1 client push and pull, and a layer of 1 GiB.

An engine is a function that starts its server and gives what the configuration has to say of it, and one line at the
end.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.clients.base import ClientCase
from tests.clients.docker_daemon import DockerCase
from tests.clients.images import write_docker_archive
from tests.clients.tools import missing
from tests.long.server import Server, ask, begin
from tests.running import ROOT
from tests.services.glance import shared_glance
from tests.services.s3 import S3Server
from tests.services.swift import KEY, USER, shared_swift

MIB = 1 << 20
SIZE = 1024 * MIB
#: Most resident memory of the server, in MB, and the free bytes that the copies of the layer at all its stages need.
BOUND, NEEDED = 250, 6 << 30
PATIENCE = 300.0

_numbers = itertools.count(os.getpid() * 1000)


@dataclass
class Engine:
    """What a configuration says of an engine, and what waits until a large layer is where it belongs."""

    config: dict[str, Any]
    settle: Callable[[], None] = lambda: None


def _require(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise missing(f"{library} is not installed")


def local(_: ClientCase) -> Engine:
    return Engine({})


def s3(test: ClientCase) -> Engine:
    _require("boto3")
    server = S3Server(test.path("s3"))
    test.addCleanup(server.stop)
    server.make_bucket("bucket")
    return Engine(server.config("bucket"))


def swift(_: ClientCase) -> Engine:
    _require("treq")
    server, container = shared_swift(with_keystone=False), f"engine-{next(_numbers)}"
    server.make_container(container)
    keys = {"swift_authurl": server.auth_url, "swift_auth_version": 1, "swift_user": USER, "swift_password": KEY}
    return Engine({"storage": "swift", "swift_container": container, **keys})


def glance(test: ClientCase) -> Engine:
    _require("treq")
    server = shared_glance()
    server.clear()
    test.addCleanup(server.clear)

    def settle() -> None:
        """The layer comes to Glance in the background."""
        deadline = time.monotonic() + PATIENCE
        while True:
            images = json.loads(server.request("GET", "/v2/images?limit=100"))["images"]
            if any(image["status"] == "active" and image["size"] == SIZE for image in images):
                return
            test.assertLess(time.monotonic(), deadline, images)
            time.sleep(0.5)

    return Engine({"storage": "glance", "storage_alternate": "local", "os_glance_url": server.url}, settle)


def elliptics(test: ClientCase) -> Engine:
    """Two groups, each on a node that is a process of its own."""
    ports = []
    for group in ("1", "2"):
        folder = test.path(f"group{group}")
        os.mkdir(folder)
        node = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.elliptics.node", "--groups", group, "--folder", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        test.addCleanup(_end, node)
        assert node.stdout is not None
        ports.append(int(node.stdout.readline().split()[1]))
    nodes = [f"127.0.0.1:{port}" for port in ports]
    return Engine({"storage": "elliptics", "elliptics_nodes": nodes, "elliptics_groups": [1, 2]})


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Stream:
    """A layer that is made as it is read, no two pieces alike, and its digest."""

    def __init__(self) -> None:
        self._piece = os.urandom(MIB)
        self._sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for number in range(SIZE // MIB):
            piece = number.to_bytes(8, "big") + self._piece[8:]
            self._sha256.update(piece)
            yield piece

    @property
    def digest(self) -> str:
        return "sha256:" + self._sha256.hexdigest()


class Each:
    """Not a test by itself, so that nobody runs it without an engine."""

    class EngineTests(DockerCase):
        """The tests of one engine; `engine` starts it."""

        needs = ("skopeo", "v1docker", "dockerd", "docker")
        engine: Callable[[ClientCase], Engine]

        def setUp(self) -> None:
            super().setUp()
            self.started = self.engine(self)
            # Of the engines for which it is no folder it is a prefix, or nothing.
            storage = (
                self.path("store") if self.started.config.get("storage", "local") in ("local", "glance") else "store"
            )
            self.registry = Server(self.path("server"), storage=storage, config=self.started.config)
            self.registries.append(self.registry)
            self.addCleanup(self.registry.stop)
            self.registry.start()

        def test_skopeo(self) -> None:
            remote = f"docker://{self.registry.host}/lab/app"
            push = ("copy", "--all", "--preserve-digests", "--dest-tls-verify=false")
            pull = ("copy", "--all", "--preserve-digests", "--src-tls-verify=false")
            for tag, descriptor in (("app", self.images.app), ("multi", self.images.multi)):
                self.call("skopeo", *push, f"oci:{self.images.layout.path}:{tag}", f"{remote}:{tag}")
                self.assert_served(self.registry, "lab/app", tag, descriptor)
                self.call("skopeo", *pull, f"{remote}:{tag}", f"oci:{self.path(tag)}:{tag}")
                self.assert_layout(self.path(tag), descriptor)
            self.call("skopeo", "delete", "--tls-verify=false", f"{remote}:multi")
            self.assertEqual(self.registry.manifest("lab/app", "multi").status, 404)

        def test_docker(self) -> None:
            self.start_dockerd()
            name = f"{self.registry.host}/lab/docker"
            self.docker("load", "--input", write_docker_archive(self.path("archive.tar"), f"{name}:1"))
            image_id = self.image_id(f"{name}:1")
            digest = self.docker_push(f"{name}:1")
            self.docker("rmi", "--force", image_id)
            self.docker("pull", f"{name}@{digest}")
            # The id is the digest of the configuration, which has those of all layers.
            self.assertEqual(self.image_id(f"{name}@{digest}"), image_id)

        def test_v1(self) -> None:
            index = ("-index", self.registry.host, "-name", "lab/v1")
            pushed = self.call("v1docker", *index, "push").split()
            # It looks itself that all files of all layers have come back.
            self.assertEqual(self.call("v1docker", *index, "pull").split(), pushed)
            self.registry.stop()
            self.registry.start()
            self.assertEqual(self.call("v1docker", *index, "pull").split(), pushed)

        def test_a_large_layer(self) -> None:
            free = shutil.disk_usage(self.folder).free
            if free < NEEDED:
                raise missing(f"{free >> 30} GiB are free, {NEEDED >> 30} GiB are needed")
            connection, stream = self.registry.connect(), Stream()
            location = begin(connection, "large")
            began = time.monotonic()
            headers = {"Content-Length": str(SIZE)}
            status, answer, text = ask(connection, "PATCH", location, stream, headers)
            self.assertEqual(status, 202, text)
            status, _, text = ask(connection, "PUT", f"{answer['location']}?digest={stream.digest}")
            self.assertEqual(status, 201, text)
            self.started.settle()
            up, seconds_up = self.registry.peak(), time.monotonic() - began
            began = time.monotonic()
            connection.request("GET", f"/v2/large/blobs/{stream.digest}")
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            found, size = hashlib.sha256(), 0
            while piece := response.read(MIB):
                found.update(piece)
                size += len(piece)
            connection.close()
            self.assertEqual((size, f"sha256:{found.hexdigest()}"), (SIZE, stream.digest))
            peak = self.registry.peak()
            engine = self.started.config.get("storage", "local")
            print(
                f"{engine}: 1 GiB up in {seconds_up:.0f} s, down in {time.monotonic() - began:.0f} s,"
                f" peak RSS {up:.0f} MB after the upload, {peak:.0f} MB in the end"
            )
            self.assertLess(peak, BOUND)


class LocalTests(Each.EngineTests):
    engine = staticmethod(local)


class S3Tests(Each.EngineTests):
    engine = staticmethod(s3)


class SwiftTests(Each.EngineTests):
    engine = staticmethod(swift)


class GlanceTests(Each.EngineTests):
    engine = staticmethod(glance)


class EllipticsTests(Each.EngineTests):
    engine = staticmethod(elliptics)
