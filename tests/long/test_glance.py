"""A registry whose layers are in Glance: a large one goes through a server that stays small, and Glance is killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.long.server import Server, ask, begin, sha256
from tests.services.glance import Glance

MIB = 1 << 20
SIZE = 1024 * MIB
#: What the server may have resident at most, in MB, and the free bytes that so much in several places needs.
BOUND, NEEDED = 250, 6 * SIZE
PATIENCE = 300.0


class GlanceTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        if shutil.disk_usage(folder).free < NEEDED:
            raise SkipTest(f"{NEEDED >> 30} GiB are needed")
        self.glance = Glance()
        self.addCleanup(self.glance.stop)
        config = {"storage": "glance", "storage_alternate": "local", "os_glance_url": self.glance.url}
        self.server = Server(folder, config=config)
        self.server.start()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.addCleanup(self.server.stop)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that the server does by itself."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"in vain: {what}\n{self.server.log_tail()}")
            time.sleep(0.1)

    def images(self) -> list[Any]:
        """What Glance has of blobs and layers."""
        found = json.loads(self.glance.request("GET", "/v2/images?limit=1000"))["images"]
        return [each for each in found if each["status"] == "active" and "docker_digest" in each]

    def test_a_gibibyte_up_and_down(self) -> None:
        total = hashlib.sha256()

        def zeros() -> Iterator[bytes]:
            for _ in range(SIZE // MIB):
                total.update(bytes(MIB))
                yield bytes(MIB)

        connection = self.server.connect()
        location = begin(connection, "large")
        self.assertEqual(ask(connection, "PATCH", location, zeros(), {"Content-Length": str(SIZE)})[0], 202)
        digest = f"sha256:{total.hexdigest()}"
        self.assertEqual(ask(connection, "PUT", f"{location}?digest={digest}")[0], 201)
        self.wait_until(lambda: [each["size"] for each in self.images()] == [SIZE], "it is in Glance")
        spool = os.path.join(self.server.storage, "_txregistry", "state", "glance", "bytes")
        self.wait_until(lambda: not any(names for _, _, names in os.walk(spool)), "it has left the alternate")
        moved = self.server.peak()
        connection.request("GET", f"/v2/large/blobs/{digest}")
        answer, found = connection.getresponse(), hashlib.sha256()
        while piece := answer.read(MIB):
            found.update(piece)
        self.assertEqual(f"sha256:{found.hexdigest()}", digest)
        peak = self.server.peak()
        print(f"1 GiB up, into Glance and down: peak RSS {moved:.0f} MB when it was there, {peak:.0f} MB in the end")
        self.assertLess(peak, BOUND)

    def push(self, number: int) -> dict[str, Any]:
        """An image of one layer; its manifest."""
        parts = {"config": b'{"number": %d}' % number, "layer": bytes([number]) * 300_000}
        for data in parts.values():
            self.assertEqual(self.server.upload("some/where", data, sha256(data)).status, 201)
        kind = "application/vnd.oci.image"
        described = {
            name: {"mediaType": f"{kind}.{name}.v1", "digest": sha256(data), "size": len(data)}
            for name, data in parts.items()
        }
        manifest = {
            "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
            "config": {**described["config"], "mediaType": f"{kind}.config.v1+json"},
            "layers": [{**described["layer"], "mediaType": f"{kind}.layer.v1.tar"}],
        }  # fmt: skip
        body = json.dumps(manifest).encode()
        answer = self.server.request(
            "PUT", f"/v2/some/where/manifests/v{number}", body, Content_Type=str(manifest["mediaType"])
        )
        self.assertEqual(answer.status, 201, answer.body)
        return manifest

    def pull(self, number: int) -> tuple[int, int]:
        """The status of a manifest by its tag, and of its layer, which has to be whole."""
        answer = self.server.manifest("some/where", f"v{number}")
        if answer.status != 200:
            return answer.status, 0
        layer = answer.json["layers"][0]["digest"]
        found = self.server.request("GET", f"/v2/some/where/blobs/{layer}")
        if found.status == 200:
            self.assertEqual(sha256(found.body), layer)
        return 200, found.status

    def test_glance_killed(self) -> None:
        for number in range(3):
            self.push(number)
        self.wait_until(lambda: len(self.images()) == 6, "all are in Glance")
        self.glance.kill()
        for number in range(3, 8):
            self.push(number)
        self.assertEqual([self.pull(number) for number in range(3, 8)], [(200, 200)] * 5)
        # An outage is no absence.
        self.assertEqual([self.pull(number) for number in range(3)], [(200, 503)] * 3)
        self.server.stop()
        self.server.start()
        self.assertEqual([self.pull(number) for number in range(8)], [(200, 503)] * 3 + [(200, 200)] * 5)
        self.glance.start()
        begun = time.monotonic()
        self.wait_until(lambda: len(self.images()) == 16, "all are in Glance by themselves")
        print(f"5 pushes went on without Glance; {time.monotonic() - begun:.0f} s after its return all were in it")
        self.assertEqual([self.pull(number) for number in range(8)], [(200, 200)] * 8)
