"""`txregistry copy` to a real S3 server and back, killed half-way."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tests.cli.copying import MIB, SECONDS, CopyCase
from tests.clients.tools import missing
from tests.running import environment
from tests.services.s3 import S3Server

#: Large enough for segments on S3, and for a kill in the middle of one.
LARGE, BLOBS = 24 * MIB, 12


class S3Tests(CopyCase):
    """To a real server and back."""

    def setUp(self) -> None:
        super().setUp()
        if importlib.util.find_spec("boto3") is None:
            raise missing("boto3 is not installed")
        self.s3 = S3Server(str(self.folder / "s3"))
        self.addCleanup(self.s3.stop)
        self.s3.make_bucket("bucket")
        self.flavors["bucket"] = {**self.s3.config("bucket"), "storage_path": "/some/root"}

    def bucket(self) -> Path:
        return self.s3.data / "bucket" / "some" / "root"

    def copy_killed(self, source: str, target: str, grown: int) -> None:
        """A copy that is killed when the target has so many blobs."""
        at = {"bucket": self.bucket(), "new": self.folder / "target"}[target]
        running = subprocess.Popen(
            self.command("--from", source, "--to", target, "--jobs", "2"),
            cwd=self.folder,
            env=environment(self.folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + SECONDS
            while len(list(at.glob("docker/registry/v2/blobs/*/*/*/data"))) < grown:
                self.assertIsNone(running.poll(), "it had ended before it was killed")
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait()

    def test_there_and_back_again(self) -> None:
        self.fill(BLOBS)
        self.blob(os.urandom(LARGE))
        for source, target, root in (("old", "bucket", self.bucket()), ("bucket", "new", self.folder / "target")):
            for grown in (2, BLOBS // 2):
                self.copy_killed(source, target, grown)
                half = self.files(root)
                self.assertLess(len(half), len(self.files(self.root)))
                for name, data in half.items():
                    self.assertEqual(data, (self.root / name).read_bytes())
                self.assertEqual([name for name in half if "/tags/" in name or "tag_" in name], [])
            status, lines, error = self.copy("--from", source, "--to", target, "--verify")
            self.assertEqual((status, error), (0, ""), lines)
            skipped = re.search(r"(\d+) skipped, 0 failed", lines[-1])
            assert skipped is not None
            self.assertGreaterEqual(int(skipped[1]), BLOBS // 2)
            self.assert_same(root)
            status, lines, error = self.copy("--from", source, "--to", target)
            self.assertEqual((status, error, lines[-1].split()[0]), (0, "", "0"))

    def test_a_bucket_that_is_not_there(self) -> None:
        self.fill()
        self.flavors["bucket"]["boto_bucket"] = "nonesuch"
        status, lines, error = self.copy("--from", "old", "--to", "bucket")
        self.assertEqual((status, lines, error.count("\n")), (1, [], 1))
        self.assertIn("nonesuch", error)
