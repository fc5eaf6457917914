"""One partial object on an object store, written by two processes in turn, at once, and after a stall."""

from __future__ import annotations

import importlib.util
import random

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.processes import Worker

# The engine's library and the mock are no part of the plain installation.
MISSING = [name for name in ("boto3", "moto", "flask") if importlib.util.find_spec(name) is None]
SKIP = f"needs {', '.join(MISSING)}" if MISSING else None
if SKIP is None:
    from tests.storage.s3.mock import left, new_bucket, new_mock
    from txregistry.storage.s3.segments import SEGMENT

SESSION = "docker/registry/v2/repositories/a/b/_uploads/0001"
BLOB = "docker/registry/v2/blobs/sha256/00/0000/data"
MIB = 1024 * 1024


class TwoProcesses(SynchronousTestCase):
    """One session, PATCHed by two processes."""

    skip = SKIP

    def setUp(self) -> None:
        self.mock = new_mock(self)
        self.bucket = new_bucket(self.mock)
        self.servers = [Worker(str(self.bucket.client.meta.endpoint_url), self.bucket.name) for _ in range(2)]
        for server in self.servers:
            self.addCleanup(server.end)

    def test_taking_turns(self) -> None:
        first, second = self.servers
        self.assertEqual(first.ask("hold", SESSION, True), 0)
        self.assertIsNone(first.ask("close"))
        sizes = [1, 6 * MIB, 2, 3 * MIB, MIB, 1, 4 * MIB + 1, SEGMENT - 1, SEGMENT, 70_000, 0, 6 * MIB + 17]
        expected = b""
        for turn, size in enumerate(sizes):
            expected += random.Random(turn).randbytes(size)
            server = self.servers[turn % 2]
            self.assertEqual(server.ask("patch", SESSION, turn, size), len(expected))
        self.assertEqual(second.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(second.ask("commit", BLOB))
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket, BLOB), [])

    def test_at_the_same_time(self) -> None:
        """Both ask at once; whoever is refused tries again. No byte is lost, doubled or out of its place."""
        first, _ = self.servers
        first.ask("hold", SESSION, True)
        first.ask("close")
        expected, refused, turn = b"", 0, 0
        while turn < 10:
            offers = {turn: self.servers[0], turn + 1: self.servers[1]}
            for number, server in offers.items():
                server.send("patch", SESSION, number, 40_000 + number)
            offsets = {}
            for number, server in offers.items():
                answer = server.answer()
                if isinstance(answer, int):
                    offsets[answer] = number
                else:
                    self.assertEqual(answer, {"error": "Busy"})
                    refused += 1
            self.assertTrue(offsets)
            for offset, number in sorted(offsets.items()):
                expected += random.Random(number).randbytes(40_000 + number)
                self.assertEqual(offset, len(expected))
            turn += 2
        first.ask("hold", SESSION, False)
        first.ask("commit", BLOB)
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket, BLOB), [])

    def stalled(self) -> bytes:
        """The first process holds a session with acknowledged and other bytes and stalls; the former."""
        first, second = self.servers
        first.ask("hold", SESSION, True)
        acknowledged = random.Random(1).randbytes(6 * MIB) + random.Random(2).randbytes(3)
        first.ask("write", 1, 6 * MIB)
        self.assertEqual(first.ask("write", 2, 3), len(acknowledged))
        self.assertIsNone(first.ask("checkpoint", "state"))
        first.ask("write", 3, 6 * MIB)
        self.assertEqual(second.ask("patch", SESSION, 4, 1), {"error": "Busy"})
        self.mock.now += 6
        for server in self.servers:
            server.ask("clock", 6.0)
        return acknowledged

    def test_a_stalled_holder_wakes_after_a_patch(self) -> None:
        first, second = self.servers
        expected = self.stalled() + random.Random(4).randbytes(6 * MIB)
        self.assertEqual(second.ask("patch", SESSION, 4, 6 * MIB), len(expected))
        self.assertEqual(first.ask("write", 5, 1), {"error": "LostRace"})
        self.assertIsNone(first.ask("close"))
        self.assertEqual(first.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(first.ask("commit", BLOB))
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket, BLOB), [])

    def test_a_stalled_holder_wakes_after_the_commit(self) -> None:
        first, second = self.servers
        expected = self.stalled()
        self.assertEqual(second.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(second.ask("commit", BLOB))
        self.assertEqual(first.ask("write", 5, 6 * MIB), {"error": "LostRace"})
        self.assertIsNone(first.ask("close"))
        self.assertEqual(self.bucket.get(BLOB)[0], expected)
        self.assertEqual(left(self.bucket, BLOB), [])

    def test_a_holder_that_was_killed(self) -> None:
        first, second = self.servers
        expected = self.stalled()
        first.kill()
        self.assertEqual(second.ask("hold", SESSION, False), len(expected))
        self.assertIsNone(second.ask("cancel"))
        self.assertEqual(left(self.bucket, BLOB), [])
