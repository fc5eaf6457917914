"""Memory is constant: a large blob goes up and down through a server that stays small."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterator

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.long.server import Server, ask, begin

MIB = 1 << 20
SIZE = 4096 * MIB
NEEDED = 10 << 30
#: Most resident memory of the server, in MB.
BOUND = 120


class Stream:
    """Bytes that are made as they are read, no two pieces alike, and their digest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._piece = random.Random(size).randbytes(MIB)
        self._sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._size // MIB):
            piece = number.to_bytes(8, "big") + self._piece[8:]
            self._sha256.update(piece)
            yield piece

    @property
    def digest(self) -> str:
        return "sha256:" + self._sha256.hexdigest()


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        self.server = Server(folder)
        free = shutil.disk_usage(folder).free
        if free < NEEDED:
            raise SkipTest(f"{free >> 30} GiB are free, {NEEDED >> 30} GiB are needed")
        self.server.start()
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(self.server.stop)

    def upload(self, size: int) -> str:
        """A blob by one PATCH and a closing PUT; its digest."""
        connection = self.server.connect()
        location = begin(connection, "large")
        stream = Stream(size)
        status, headers, _ = ask(connection, "PATCH", location, stream, {"Content-Length": str(size)})
        self.assertEqual((status, headers["range"]), (202, f"0-{size - 1}"))
        self.assertEqual(ask(connection, "PUT", f"{location}?digest={stream.digest}")[0], 201)
        connection.close()
        return stream.digest

    def download(self, digest: str) -> str:
        """The digest of what comes back."""
        connection = self.server.connect()
        connection.request("GET", f"/v2/large/blobs/{digest}")
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        found = hashlib.sha256()
        while piece := response.read(MIB):
            found.update(piece)
        connection.close()
        return "sha256:" + found.hexdigest()

    def test_four_gibibytes_up_and_down(self) -> None:
        digest = self.upload(SIZE)
        up = self.server.peak()
        self.assertEqual(self.download(digest), digest)
        peak = self.server.peak()
        print(f"{SIZE >> 30} GiB up and down: peak RSS {up:.0f} MB after the upload, {peak:.0f} MB in the end")
        self.assertLess(peak, BOUND)

    def test_the_processor_time_of_an_upload(self) -> None:
        before = self.server.cpu()
        self.upload(256 * MIB)
        user, system = ((after - first) * 4 for first, after in zip(before, self.server.cpu(), strict=True))
        print(f"256 MiB up: {user + system:.2f} CPU s/GiB ({user:.2f} user, {system:.2f} system)")
        self.assertEqual(self.server.request("GET", "/v2/").status, 200)
