"""`txregistry copy` between two folders, and what it shows of its progress."""

from __future__ import annotations

import shutil
import time
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.copying import MIB, CopyCase, digest
from txregistry.cli.copy import Progress, amount
from txregistry.core.copying.objects import Copied


class LocalTests(CopyCase):
    def test_twice(self) -> None:
        self.fill()
        status, lines, error = self.copy("--from", "old", "--to", "new")
        self.assertEqual((status, error), (0, ""))
        count = len(self.files(self.root))
        self.assertEqual(lines, [f"{count} objects copied (3.0 MiB), 0 skipped, 0 failed"])
        self.assert_same(self.folder / "target")
        status, lines, error = self.copy("--from", "old", "--to", "new", "--verify", "--jobs", "1")
        self.assertEqual((status, lines, error), (0, [f"0 objects copied (0 bytes), {count} skipped, 0 failed"], ""))

    def test_what_was_deleted(self) -> None:
        self.fill()
        self.copy("--from", "old", "--to", "new")
        shutil.rmtree(self.root / "repositories")
        status, lines, _ = self.copy("--from", "old", "--to", "new")
        path = "repositories/team/old/tag_latest"
        told = [f"{path}: only in the target", "only in the target (--delete removes): 1"]
        self.assertEqual((status, lines[:2]), (0, told))
        status, lines, _ = self.copy("--from", "old", "--to", "new", "--delete")
        self.assertEqual((status, lines[1]), (0, "removed from the target: 1"))
        self.assert_same(self.folder / "target")

    def test_what_is_damaged(self) -> None:
        self.fill()
        wrong = "2" * 64
        path = f"docker/registry/v2/blobs/sha256/22/{wrong}/data"
        self.write(path, "something else")
        status, lines, error = self.copy("--from", "old", "--to", "new")
        self.assertEqual((status, error), (1, ""))
        self.assertEqual(lines[0], f"{path}: damaged, not copied: its digest is sha256:{digest(b'something else')}")
        self.assertTrue(lines[-1].endswith(", 0 skipped, 1 failed"))

    def test_what_cannot_be(self) -> None:
        self.flavors |= {
            "same": self.flavors["old"],
            "within": {"storage": "local", "storage_path": str(self.root / "below")},
            "gone": {"storage": "local", "storage_path": str(self.folder / "gone")},
            "odd": {"storage": "nonesuch"},
        }
        self.fill()
        for source, target, reason in (
            ("old", "same", "are the same storage"),
            ("old", "within", "is inside"),
            ("within", "old", "is inside"),
            ("gone", "new", "is not a folder"),
            ("odd", "new", "nonesuch"),
            ("old", "unknown", "unknown"),
        ):
            status, lines, error = self.copy("--from", source, "--to", target)
            self.assertEqual((status, lines, error.count("\n")), (1, [], 1), error)
            self.assertIn(reason, error)
        self.assertFalse((self.folder / "target").exists())
        self.assertFalse((self.folder / "gone").exists())
        self.assertEqual(self.copy("--from", "old")[0], 2)
        self.assertEqual(self.copy("--from", "old", "--to", "new", "--jobs", "0")[0], 2)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    def progress(self, err: StringIO) -> Progress:
        self.now = 1000.0
        self.patch(time, "monotonic", lambda: self.now)
        progress = Progress(StringIO(), err)
        progress.found = Copied(copied=3, skipped=1)
        progress.expect(8)
        return progress

    def test_a_bar(self) -> None:
        err = Terminal()
        progress = self.progress(err)
        for _ in range(4):
            self.now += 0.06
            progress.step()
            progress.moved(MIB)
        bar = "[" + "#" * 15 + " " * 15 + "]"
        self.assertEqual(err.getvalue(), f"\r{bar}  50%, 3.0 MiB, 12.5 MiB/s, 3 copied, 1 skipped\x1b[K")
        progress.tell("a\udcff: b\n")
        self.assertTrue(err.getvalue().endswith("\r\x1b[K"))

    def test_lines(self) -> None:
        err = StringIO()
        progress = self.progress(err)
        for _ in range(8):
            self.now += 10
            progress.step()
        self.assertEqual(
            err.getvalue().splitlines(),
            [f"{share}%, 0 bytes, 0 bytes/s, 3 copied, 1 skipped" for share in (38, 75)],
        )

    def test_amounts(self) -> None:
        found = [amount(size) for size in (0, 1023, 1024, 1536 * MIB, 5 << 50)]
        self.assertEqual(found, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 GiB", "5120.0 TiB"])
