"""Many clients that do not behave: they stall, wake too late, send what nobody wants, or hardly read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.long.server import Halted, Server, ask, begin, sha256
from tests.web.v2.base import OCI_MANIFEST, image

MB = 1_000_000


class StressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(os.path.abspath(self.mktemp()), config={"threads": 4})
        self.server.start()
        self.addCleanup(self.server.stop)
        self.connection = self.server.connect()
        self.addCleanup(self.connection.close)
        self.rng = random.Random(0)

    def push_blob(self, name: str, data: bytes) -> str:
        location = begin(self.connection, name)
        status = ask(self.connection, "PUT", f"{location}?digest={sha256(data)}", data)[0]
        self.assertEqual(status, 201)
        return sha256(data)

    def test_a_manifest_is_taken_while_uploads_stall(self) -> None:
        halted = []
        data = self.rng.randbytes(2 * MB)
        for number in range(40):
            one = Halted(self.server, "PATCH", begin(self.connection, f"stalled/{number}"), 10 * MB)
            self.addCleanup(one.close)
            one.send(data)
            halted.append(one)
        self.push_blob("busy", b"{}")
        self.push_blob("busy", b"layer")
        begun = time.monotonic()
        manifest = image(b"{}", [b"layer"])
        status = ask(self.connection, "PUT", "/v2/busy/manifests/latest", manifest, {"Content-Type": OCI_MANIFEST})[0]
        took = (time.monotonic() - begun) * 1000
        print(f"4 threads, {len(halted)} stalled uploads: a manifest PUT answers {status} after {took:.0f} ms;"
              f" peak RSS {self.server.peak():.0f} MB")  # fmt: skip
        self.assertEqual(status, 201)
        for one in halted:
            one.send(bytes(10 * MB - len(data)))
        self.assertEqual({one.answer() for one in halted}, {202})

    def test_two_requests_on_one_session(self) -> None:
        """One stalls; the other is refused, waits, and takes over; the first wakes before, during or after."""
        sessions = [begin(self.connection, "contended") for _ in range(60)]
        right = [self.rng.randbytes(self.rng.randrange(1, 2 * MB)) for _ in sessions]
        first = [Halted(self.server, "PATCH", location, 3 * MB) for location in sessions]
        for one in first:
            one.send(self.rng.randbytes(self.rng.randrange(1, 2 * MB)))
        refused = takeovers = woken = 0
        for location in sessions:
            status, headers, _ = ask(self.connection, "PATCH", location, b"too early")
            refused += status == 409 and int(headers["retry-after"]) > 0
            # Refused before its body was read, so that the connection may have been closed.
            self.connection.close()
        time.sleep(7.5)
        wakers = []
        for number, (location, data) in enumerate(zip(sessions, right, strict=True)):
            waker = threading.Thread(target=self.wake, args=(first[number], number % 3 * 0.01), daemon=True)
            wakers.append(waker)
            if number % 2:
                waker.start()
            # With a range, as the first may have got its bytes in before.
            place = {"Content-Range": f"0-{len(data) - 1}"}
            status = ask(self.connection, "PATCH", location, data, place)[0]
            self.connection.close()
            if not number % 2:
                waker.start()
            if status == 202:
                takeovers += 1
                status = ask(self.connection, "PUT", f"{location}?digest={sha256(data)}")[0]
                self.assertEqual(status, 201)
        for waker in wakers:
            waker.join(60)
            woken += not waker.is_alive()
        differ = self.blobs_that_differ()
        print(f"two requests on {len(sessions)} sessions: {refused} refused at first, {takeovers} takeovers,"
              f" {woken} woke, {differ} blobs differ from their digest")  # fmt: skip
        self.assertEqual((differ, woken), (0, len(sessions)))
        self.assertEqual(refused, len(sessions))
        self.assertGreater(takeovers, len(sessions) // 3)

    def wake(self, one: Halted, delay: float) -> None:
        time.sleep(delay)
        with contextlib.suppress(OSError):  # cut off, which is an answer too
            one.send(bytes(3 * MB))  # more than it lacks: what is too much is no request
        one.answer()

    def blobs_that_differ(self) -> int:
        differ = 0
        for folder, _, files in os.walk(os.path.join(self.server.storage, "docker/registry/v2/blobs/sha256")):
            if "data" in files:
                with open(os.path.join(folder, "data"), "rb") as file:
                    differ += hashlib.sha256(file.read()).hexdigest() != os.path.basename(folder)
        return differ

    def test_a_large_body_that_is_refused(self) -> None:
        unknown = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000"
        digest = sha256(b"never")
        session = begin(self.connection, "a")
        cases: tuple[tuple[int, str, str, dict[str, str]], ...] = (
            (404, "PUT", f"{unknown}?digest={digest}", {}),
            (404, "PATCH", unknown, {}),
            (416, "PUT", f"{session}?digest={digest}", {"Content-Range": f"7-{300 * MB + 6}"}),
            (413, "PUT", "/v2/a/manifests/latest", {"Content-Type": OCI_MANIFEST}),
        )
        for expected, method, target, headers in cases:
            self.refused_early(self.server, expected, method, target, headers)

    def test_a_large_body_without_credentials(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        users = os.path.join(folder, "users")
        with open(users, "w"):
            pass
        closed = Server(folder, config={"users_file": users})
        closed.start()
        self.addCleanup(closed.stop)
        target = f"/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000?digest={sha256(b'never')}"
        self.refused_early(closed, 401, "PUT", target, {})

    def refused_early(self, server: Server, expected: int, method: str, target: str, headers: dict[str, str]) -> None:
        status, sent = self.send_until_answered(server, method, target, headers)
        print(f"{method} of 300 MB refused with {status}: {sent / MB:.1f} MB sent when its answer was read")
        self.assertEqual(status, expected)
        self.assertLess(sent, 8 * MB)

    def send_until_answered(
        self, server: Server, method: str, target: str, headers: dict[str, str]
    ) -> tuple[int, int]:
        """Status, and bytes handed to the kernel by then."""
        one = Halted(server, method, target, 300 * MB, headers)
        one.socket.setblocking(False)
        sent = 0
        piece = bytes(65536)
        while sent < 300 * MB:
            readable, writable, _ = select.select([one.socket], [one.socket], [], 60)
            self.assertTrue(readable or writable, "neither an answer nor room to send")
            if readable:
                break
            sent += one.socket.send(piece)
        one.socket.setblocking(True)
        one.socket.settimeout(60)
        return one.answer(), sent

    def test_slow_readers(self) -> None:
        data = self.rng.randbytes(32 * MB)
        digest = self.push_blob("slow", data)
        before = self.server.peak()
        readers = []
        for _ in range(200):
            one = Halted(self.server, "GET", f"/v2/slow/blobs/{digest}", 0)
            self.addCleanup(one.close)
            readers.append((one, one.connection.getresponse()))
        for _ in range(20):
            for _, response in readers:
                self.assertEqual(len(response.read(1024)), 1024)
            self.assertEqual(self.server.request("GET", "/v2/").status, 200)
        peak = self.server.peak()
        print(f"{len(readers)} slow readers of 32 MB: peak RSS {peak:.0f} MB ({before:.0f} MB before)")
        self.assertLess(peak, 250)
        for _, response in readers[::40]:
            self.assertEqual(hashlib.sha256(data[:20480] + response.read()).hexdigest(), digest.partition(":")[2])
