"""Gets the programs: those of Debian from PATH, those in Go and C built once, into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from tests.clients.tools import cache_directory

#: Program -> version, module, package.
GO = {
    "distribution": (
        "v3.1.2",
        "github.com/distribution/distribution/v3",
        "github.com/distribution/distribution/v3/cmd/registry",
    ),
    "olareg": ("v0.2.2", "github.com/olareg/olareg", "github.com/olareg/olareg/cmd/olareg"),
}
#: Program -> the package of Debian that has it.
DEBIAN = {"docker-registry": "docker-registry", "nginx": "nginx-light", "wrk": "wrk", "gcc": "gcc", "go": "golang"}


class Missing(Exception):
    """A program is not here; the text says how to get it."""


def installed(name: str) -> str:
    """The path of a program of the system."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/go/bin")
    if path is None:
        raise Missing(f"{name} is not installed: apt-get install {DEBIAN[name]}")
    return path


def built_go(name: str) -> str:
    """The path of a program in Go, built unless the cache has this version of it."""
    version, module, package = GO[name]

    def build(folder: str) -> None:
        # A module of its own, since some authors' `replace` lines forbid `go install` of a version.
        with open(os.path.join(folder, "go.mod"), "w") as file:
            file.write(f"module peer\n\ngo 1.24\n\nrequire {module} {version}\n")
        subprocess.run(
            [installed("go"), "build", "-mod=mod", "-o", os.path.join(folder, name), package],
            cwd=folder, env={**os.environ, "CGO_ENABLED": "0"}, check=True,
        )  # fmt: skip

    return _cached(f"{name}-{version}", name, build)


def built_load() -> str:
    """The path of the load program, `load.c`."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.c")
    with open(source, "rb") as file:
        version = hashlib.sha256(file.read()).hexdigest()[:12]

    def build(folder: str) -> None:
        subprocess.run([installed("gcc"), "-O2", "-o", os.path.join(folder, "load"), source], check=True)

    return _cached(f"load-{version}", "load", build)


def _cached(folder: str, name: str, build: Callable[[str], None]) -> str:
    cache = cache_directory()
    path = os.path.join(cache, folder, name)
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, f"{folder}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            with tempfile.TemporaryDirectory(dir=cache) as work:
                build(work)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                shutil.move(os.path.join(work, name), path)
    return path
