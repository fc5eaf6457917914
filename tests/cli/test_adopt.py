"""`txregistry adopt` and `txregistry dump` over roots that old servers might have left."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from hashlib import sha256
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txregistry.cli.main import main
from txregistry.cli.store import Report

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
LAYER = gzip.compress(bytes(1024), mtime=0)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class AdoptCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def run_command(self, *arguments: str, terminal: bool = False) -> tuple[int, list[str], str]:
        """Exit status, lines of standard output, standard error."""
        out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        try:
            status = main(arguments)
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        return status, out.getvalue().splitlines(), err.getvalue()

    def write(self, path: str, data: bytes | str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)

    def image(self, image: str, parent: str | None = None, *ancestors: str, without: tuple[str, ...] = ()) -> None:
        document = {"id": image, **({"parent": parent} if parent else {})}
        lineage = [image, *((parent,) if parent else ()), *ancestors]
        parts = {"json": json.dumps(document).encode(), "layer": LAYER, "ancestry": json.dumps(lineage).encode()}
        parts["_checksum"] = b"sha256:" + b"0" * 64
        for part, data in parts.items():
            if part not in without:
                self.write(f"images/{image}/{part}", data)

    def manifest(self, repository: str, text: bytes, *tags: str) -> str:
        found = digest(text)
        base = f"docker/registry/v2/repositories/{repository}/_manifests"
        self.write(f"docker/registry/v2/blobs/sha256/{found[:2]}/{found}/data", text)
        self.write(f"{base}/revisions/sha256/{found}/link", f"sha256:{found}")
        for tag in tags:
            self.write(f"{base}/tags/{tag}/current/link", f"sha256:{found}")
            self.write(f"{base}/tags/{tag}/index/sha256/{found}/link", f"sha256:{found}")
        return found

    def whole(self) -> None:
        """A root in which nothing is broken, of both dialects and several versions."""
        self.image(A)
        self.image(B, A)
        self.image(C, B, A)
        self.write(f"images/{B}/_checksum", json.dumps([f"sha256:{1:064x}", "tarsum+sha256:" + "2" * 64]))
        self.write(f"images/{C}/_files", "[]")
        (self.root / f"images/{C}/_checksum").unlink()
        self.write("repositories/library/app/tag_latest", B + "\n")
        self.write("repositories/library/app/taglatest_json", "{}")
        self.write("repositories/foo/x%25%24_-t/tag_v1", A)
        self.write("repositories/foo/x%25%24_-t/_index_images", "[]")
        self.write("repositories/foo/untagged/_private", "")
        found = self.manifest("team/app", b'{"schemaVersion": 2}', "latest")
        self.manifest("team/app/deep", b"{}")
        self.write(f"docker/registry/v2/repositories/team/app/_layers/sha256/{found}/link", f"sha256:{found}")
        (self.root / f"docker/registry/v2/repositories/team/app/_layers/sha256/{'1' * 64}").mkdir()
        (self.root / "docker/registry/v2/repositories/team/app/_uploads").mkdir()

    def everything(self) -> dict[str, tuple[int, bytes]]:
        """All of the root, with the times of last change."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            data = b"" if path.is_dir() or path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(self.root))] = (path.lstat().st_mtime_ns, data)
        return found


class CheckTests(AdoptCase):
    def check(self) -> tuple[int, list[str], str]:
        before = self.everything()
        result = self.run_command("adopt", "--check", str(self.root))
        self.assertEqual(self.everything(), before)
        return result

    def faults(self) -> list[str]:
        """The lines about what is broken; of each kind a count must follow."""
        status, lines, error = self.check()
        self.assertEqual((status, error), (1, ""))
        faults, counts = lines[: lines.index("")], lines[lines.index("") + 1 :]
        kinds = [line.split(": ")[1] for line in faults]
        self.assertEqual(sorted(f"{kind}: {kinds.count(kind)}" for kind in set(kinds)), counts[1:-1])
        self.assertEqual(counts[-1], f"broken: {len(faults)}")
        return faults

    def test_a_whole_root(self) -> None:
        self.whole()
        self.assertEqual(
            self.check(),
            (
                0,
                [
                    "looked at: 3 images, 3 V1 repositories, 2 V1 tags, 2 revisions, 1 V2 tags, 2 V2 repositories",
                    "broken: nothing",
                ],
                "",
            ),
        )

    def test_images(self) -> None:
        self.whole()
        self.image(D, "e" * 64, without=("layer",))
        for n, parts in enumerate((("json",), ("ancestry",))):
            self.image(f"{n:064x}", without=parts)
        self.image("2" * 64, without=("json",))
        self.write(f"images/{'2' * 64}/json", '{"id": "other"}')
        self.write(f"images/{'2' * 64}/ancestry", '["other"]')
        self.write(f"images/{'3' * 64}/json", "{}")
        self.write(f"images/{'3' * 64}/_inprogress", "true")
        os.utime(self.root / f"images/{'3' * 64}/_inprogress", (0, 0))
        self.image("4" * 64)
        self.write(f"images/{'4' * 64}/_checksum", "d41d8cd9\n")
        self.assertEqual(
            self.faults(),
            [
                f"images/{0:064x}/json: json missing",
                f"images/{1:064x}/ancestry: ancestry missing",
                f"images/{'2' * 64}/json: json damaged: JSON data contains invalid id",
                f"images/{'2' * 64}/ancestry: ancestry damaged:"
                " not a list of ids that begins with the image's own",
                f"images/{'3' * 64}/_inprogress: unfinished image: begun 1970-01-01 00:00 UTC",
                f"images/{'4' * 64}/_checksum: odd checksum: 'd41d8cd9\\n'",
                f"images/{D}/layer: layer missing",
                f"images/{D}/ancestry: ancestor missing: {'e' * 64}",
            ],
        )

    def test_tags(self) -> None:
        self.whole()
        self.write(f"images/{D}/_inprogress", "true")
        base = "repositories/library/app/tag_"
        for name, text in (("a", D), ("b", "e" * 64), ("c", "../x"), ("d", "")):
            self.write(base + name, text)
        self.assertEqual(
            self.faults()[1:],
            [
                f"{base}a: tag of an unfinished image: {D}",
                f"{base}b: tag to nowhere: there is no image {'e' * 64}",
                f"{base}c: tag to nowhere: '../x' is no id of an image",
                f"{base}d: tag to nowhere: '' is no id of an image",
            ],
        )

    def test_v2(self) -> None:
        self.whole()
        base = "docker/registry/v2/repositories/team/app"
        first, second = "1" * 64, "2" * 64
        self.write(f"{base}/_layers/sha256/{first}/link", f"sha256:{first}\n")
        self.write(f"{base}/_layers/sha256/{second}/link", b"\xff")
        self.write(f"{base}/_manifests/revisions/sha256/{first}/link", f"sha256:{first}")
        self.write(f"{base}/_manifests/revisions/sha256/{second}/link", f"sha256:{first}")
        self.write(f"{base}/_manifests/tags/bad/current/link", "sha256:short")
        self.write(f"{base}/_manifests/tags/gone/current/link", f"sha256:{'3' * 64}")
        self.write(f"{base}/_manifests/tags/stray", "")
        (self.root / f"{base}/_manifests/tags/void").mkdir()
        blob = f"docker/registry/v2/blobs/sha256/11/{first}/data"
        self.assertEqual(
            self.faults(),
            [
                f"{base}/_layers/sha256/{first}/link: damaged link: not a digest",
                f"{base}/_layers/sha256/{second}/link: damaged link: not a digest",
                f"{base}/_manifests/revisions/sha256/{second}/link: damaged link: names another digest, sha256:{first}",
                f"{base}/_manifests/revisions/sha256/{first}/link: revision without data: {blob}",
                f"{base}/_manifests/revisions/sha256/{second}/link: revision without data: {blob}",
                f"{base}/_manifests/tags/bad/current/link: damaged link: not a digest",
                f"{base}/_manifests/tags/gone/current/link: tag to nowhere:"
                f" sha256:{'3' * 64} is no manifest of the repository",
                f"{base}/_manifests/tags/stray: tag to nowhere: a file where only tags may be",
                f"{base}/_manifests/tags/void/current/link: tag to nowhere: not there",
            ],
        )

    def test_each_dialect_alone(self) -> None:
        self.image(A)
        self.assertEqual(self.check()[1], ["looked at: 1 images", "broken: nothing"])
        self.root = self.root / "other"
        self.manifest("app", b"{}", "latest")
        self.assertEqual(
            self.check()[1], ["looked at: 1 revisions, 1 V2 tags, 1 V2 repositories", "broken: nothing"]
        )

    def test_what_is_no_root(self) -> None:
        for path, reason in (
            (self.root, "holds nothing of a registry"),
            (self.root / "gone", "is not a folder"),
            (self.root / "file", "is not a folder"),
        ):
            (self.root / "file").write_text("x")
            status, lines, error = self.run_command("adopt", "--check", str(path))
            self.assertEqual((status, lines, error.count("\n")), (1, [], 1))
            self.assertIn(reason, error)

    def test_names_that_are_not_utf8(self) -> None:
        os.makedirs(os.fsencode(self.root) + b"/images/\xff\xe4")
        status, lines, _ = self.run_command("adopt", "--check", str(self.root))
        self.assertEqual((status, lines[0]), (1, "images/\\udcff\\udce4/json: json missing"))

    def test_what_cannot_be_read(self) -> None:
        self.whole()
        (self.root / f"images/{A}/_checksum").unlink()
        (self.root / f"images/{A}/_checksum").symlink_to("_checksum")
        (fault,) = self.faults()
        self.assertTrue(fault.startswith(f"images/{A}: cannot be read: "), fault)

    def test_a_bar_on_a_terminal_alone(self) -> None:
        self.whole()
        self.write("repositories/library/app/tag_x", "")
        status, lines, error = self.run_command("adopt", "--check", str(self.root), terminal=True)
        self.assertEqual(status, 1)
        self.assertEqual(self.run_command("adopt", "--check", str(self.root))[:2], (1, lines))
        self.assertIn("\r[" + " " * 30 + "]   0% of ", error)
        self.assertIn("\r[" + "#" * 30 + "] 100% of 8", error)
        self.assertTrue(error.endswith("\r\x1b[K"))

    def test_the_bar_is_written_as_it_changes(self) -> None:
        bar = Terminal()
        report = Report(io.StringIO(), bar)
        report.expect(100_000)
        for _ in range(100_000):
            report.step()
        self.assertLess(bar.getvalue().count("\r"), 200)


class RepairTests(AdoptCase):
    def repair(self, *further: str) -> tuple[int, list[str], str]:
        return self.run_command("adopt", "--repair-ancestry", str(self.root), *further)

    def make(self) -> None:
        self.image(A, without=("ancestry", "_checksum"))
        self.image(B, A, without=("ancestry",))
        self.image(C, B, without=("ancestry",))
        self.image(D, A)

    def test_first_only_told(self) -> None:
        self.make()
        before = self.everything()
        status, lines, _ = self.repair()
        self.assertEqual(self.everything(), before)
        self.assertEqual(
            (status, lines),
            (
                1,
                [
                    f"images/{A}/ancestry: would be made",
                    f"images/{A}/_checksum: would be made",
                    f"images/{B}/ancestry: would be made",
                    f"images/{C}/ancestry: would be made",
                    "",
                    "looked at: 4 images",
                    "would be made: 4",
                    "broken: nothing",
                ],
            ),
        )

    def test_then_made(self) -> None:
        self.make()
        before = self.everything()
        status, lines, _ = self.repair("--seriously")
        self.assertEqual((status, lines[-2:]), (0, ["made: 4", "broken: nothing"]))
        for image, lineage in ((A, [A]), (B, [B, A]), (C, [C, B, A])):
            self.assertEqual(json.loads((self.root / f"images/{image}/ancestry").read_bytes()), lineage)
        data = (self.root / f"images/{A}/json").read_bytes()
        checksum = "sha256:" + sha256(data + b"\n" + LAYER).hexdigest()
        self.assertEqual((self.root / f"images/{A}/_checksum").read_text(), checksum)
        after = self.everything()
        self.assertEqual([path for path in before if after[path][1] != before[path][1]], [])
        self.assertEqual(self.run_command("adopt", "--check", str(self.root))[0], 0)
        self.assertEqual(self.repair()[:2], (0, ["looked at: 4 images", "would be made: 0", "broken: nothing"]))

    def test_what_stands_in_the_way(self) -> None:
        self.image(A, "e" * 64, without=("ancestry",))
        self.image(B, C, without=("ancestry",))
        self.image(C, B, without=("ancestry",))
        self.image(D, without=("ancestry", "layer"))
        self.write(f"images/{D}/json", '{"id": "other"}')
        self.write(f"images/{'f' * 64}/json", "{}")
        self.write(f"images/{'f' * 64}/_inprogress", "true")
        status, lines, _ = self.repair("--seriously")
        self.assertEqual(status, 1)
        self.assertEqual(
            lines[: lines.index("")],
            [
                f"images/{A}/ancestry: ancestor missing: {'e' * 64}",
                f"images/{B}/json: ancestry damaged: its own ancestor",
                f"images/{C}/json: ancestry damaged: its own ancestor",
                f"images/{D}/json: json damaged: JSON data contains invalid id",
                f"images/{D}/layer: layer missing",
            ],
        )
        self.assertEqual(list(self.root.rglob("ancestry")), [])

    def test_seriously_alone(self) -> None:
        self.assertEqual(self.run_command("adopt", "--check", "--seriously", str(self.root))[0], 2)
        self.assertEqual(self.run_command("adopt", str(self.root))[0], 2)


class DumpTests(AdoptCase):
    EXPECTED = [
        {"namespace": "foo", "repository": "x%25%24_-t", "images": [{"id": A, "checksum": "sha256:" + "0" * 64}]},
        {
            "namespace": "library",
            "repository": "app",
            "images": [{"id": B, "checksum": f"sha256:{1:064x}"}, {"id": A, "checksum": "sha256:" + "0" * 64}],
        },
    ]

    def test_a_root(self) -> None:
        self.whole()
        before = self.everything()
        status, lines, error = self.run_command("dump", str(self.root))
        self.assertEqual((status, error, json.loads("".join(lines))), (0, "", self.EXPECTED))
        self.assertEqual(self.everything(), before)

    def test_a_configuration(self) -> None:
        self.whole()
        file = self.root.parent / "r.yml"
        file.write_text(f"prod: {{storage: local, storage_path: {self.root}}}\n")
        status, lines, error = self.run_command("dump", "--config", str(file), "--flavor", "prod")
        self.assertEqual((status, error, json.loads("".join(lines))), (0, "", self.EXPECTED))
        status, lines, error = self.run_command("dump", "--config", str(file))
        self.assertEqual((status, lines, error.count("\n")), (1, [], 1))

    def test_unknown_checksums_and_odd_tags(self) -> None:
        self.image(A, without=("_checksum", "ancestry"))
        self.write("repositories/library/app/tag_a", A)
        self.write("repositories/library/app/tag_b", "../x")
        _, lines, _ = self.run_command("dump", str(self.root))
        expected = {"namespace": "library", "repository": "app", "images": [{"id": A, "checksum": None}]}
        self.assertEqual(json.loads("".join(lines)), [expected])

    def test_both_are_too_many(self) -> None:
        self.assertEqual(self.run_command("dump", str(self.root), "--config", "x")[0], 2)

    def test_help(self) -> None:
        for command in ("adopt", "dump"):
            status, lines, _ = self.run_command(command, "--help")
            self.assertEqual(status, 0)
            self.assertTrue(lines[0].startswith(f"usage: txregistry {command} "), lines[0])
