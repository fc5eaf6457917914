"""`txregistry copy` from engine to engine, through each real server and back: the last folder is as the first."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.clients.base import ClientCase
from tests.clients.test_engines import elliptics, glance, s3, swift
from tests.running import environment

MIB = 1 << 20
#: Of the largest blob, in bytes, and most resident memory of the command, in MB.
SIZE, BOUND = 512 * MIB, 250
ENGINES = {"s3": s3, "swift": swift, "glance": glance, "elliptics": elliptics}
#: What runs a command, and tells the most memory that it took, in KiB.
MEASURED = """
import resource, sys
from txregistry.cli.main import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


class CopyTests(ClientCase):
    needs = ("v1docker",)

    def fill(self) -> Path:
        """A store of both dialects, with one large blob."""
        registry = self.start_registry()
        self.push(registry, "lab/app", "app", self.images.app)
        self.push(registry, "lab/index", "multi", self.images.multi)
        self.push(registry, "lab/app", self.images.sbom["digest"], self.images.sbom)
        self.call("v1docker", "-index", registry.host, "-name", "lab/v1", "push")
        registry.stop()
        root = Path(registry.storage)
        part, total = root / "large", hashlib.sha256()
        with part.open("wb") as file:
            piece = os.urandom(MIB)
            for number in range(SIZE // MIB):
                data = number.to_bytes(8, "big") + piece[8:]
                total.update(data)
                file.write(data)
        hex_ = total.hexdigest()
        blob = root / f"docker/registry/v2/blobs/sha256/{hex_[:2]}/{hex_}/data"
        blob.parent.mkdir(parents=True)
        part.rename(blob)
        link = root / f"docker/registry/v2/repositories/lab/app/_layers/sha256/{hex_}/link"
        link.parent.mkdir(parents=True)
        link.write_text(f"sha256:{hex_}")
        return root

    def files(self, root: Path) -> dict[str, str]:
        """The digest of each file that is copied."""
        found = {}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_file() and not name.startswith(("_txregistry/index/", "_txregistry/tmp/")):
                with path.open("rb") as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def run_command(self, *arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments, self.path("config.yml")],
            cwd=self.folder,
            env=environment(Path(self.folder)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout.splitlines()

    def test_through_all_engines(self) -> None:
        first, last = self.fill(), Path(self.path("last"))
        flavors: dict[str, dict[str, object]] = {"first": {"storage": "local", "storage_path": str(first)}}
        for name, engine in ENGINES.items():
            path = self.path("alternate") if name == "glance" else "store"
            flavors[name] = {**engine(self).config, "storage_path": path}
        flavors["last"] = {"storage": "local", "storage_path": str(last)}
        with open(self.path("config.yml"), "w") as file:
            json.dump(flavors, file)
        wanted, names = self.files(first), list(flavors)
        for source, target in itertools.pairwise(names):
            began = time.monotonic()
            *told, summary, peak = self.run_command("copy", "--from", source, "--to", target)
            seconds, megabytes = time.monotonic() - began, int(peak) * 1024 / 1e6
            print(f"{source} to {target}: {summary} in {seconds:.0f} s, peak RSS {megabytes:.0f} MB")
            self.assertEqual((told, summary.split()[0]), ([], str(len(wanted))))
            self.assertLess(megabytes, BOUND)
            again = self.run_command("copy", "--from", source, "--to", target)[-2]
            self.assertEqual(again, f"0 objects copied (0 bytes), {len(wanted)} skipped, 0 failed")
            if target == "glance":
                # What is copied from there comes from Glance itself.
                self.run_command("reconcile", "--flavor", "glance")
        self.assertEqual(self.files(last), wanted)
