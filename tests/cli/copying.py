"""A folder with a store to copy, and the command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.running import environment

SECONDS = 120
MIB = 1 << 20


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


class CopyCase(SynchronousTestCase):
    """A folder with a store of both dialects, and a configuration with flavors for it and others."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.root = self.folder / "source"
        self.flavors: dict[str, Any] = {
            "old": {"storage": "local", "storage_path": str(self.root)},
            "new": {"storage": "local", "storage_path": str(self.folder / "target")},
        }

    def write(self, path: str, data: bytes | str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)

    def blob(self, data: bytes) -> str:
        found = digest(data)
        self.write(f"docker/registry/v2/blobs/sha256/{found[:2]}/{found}/data", data)
        return found

    def fill(self, blobs: int = 2) -> None:
        """An image with so many layers, and one of V1."""
        base = "docker/registry/v2/repositories/team/app"
        layers = [self.blob(os.urandom(MIB)) for _ in range(blobs)]
        manifest = self.blob(json.dumps({"layers": layers}).encode())
        for one in (*layers, manifest):
            self.write(f"{base}/_layers/sha256/{one}/link", f"sha256:{one}")
        links = ["revisions/sha256/{0}", "tags/latest/current", "tags/latest/index/sha256/{0}"]
        for link in links:
            self.write(f"{base}/_manifests/{link.format(manifest)}/link", f"sha256:{manifest}")
        image, layer = "a" * 64, os.urandom(MIB)
        document = json.dumps({"id": image})
        checksum = "sha256:" + digest(document.encode() + b"\n" + layer)
        parts: dict[str, bytes | str] = {
            "json": document,
            "layer": layer,
            "ancestry": json.dumps([image]),
            "_checksum": checksum,
        }
        for part, data in parts.items():
            self.write(f"images/{image}/{part}", data)
        self.write("repositories/team/old/tag_latest", image)
        self.write("_txregistry/state/something", "kept")
        self.write("_txregistry/index/something", "made again")
        self.write("_txregistry/tmp/something", "nobody's")

    def command(self, *arguments: str) -> list[str]:
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "config.yml"
        file.write_text(json.dumps(self.flavors))
        return [sys.executable, "-m", "txregistry.cli.main", "copy", *arguments, str(file)]

    def copy(self, *arguments: str) -> tuple[int, list[str], str]:
        """Exit status, lines of standard output, standard error."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment(self.folder),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    def files(self, root: Path) -> dict[str, bytes]:
        """All that is copied, as it lies in a folder."""
        found = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
        return {
            name: path.read_bytes()
            for name, path in found.items()
            if not name.startswith("_txregistry/") or name.startswith("_txregistry/state/")
        }

    def assert_same(self, root: Path) -> None:
        here, there = self.files(self.root), self.files(root)
        self.assertEqual(sorted(here), sorted(there))
        self.assertEqual([name for name in here if here[name] != there[name]], [])
