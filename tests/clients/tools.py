"""Finds the clients of the lab; those that no Debian package has are built once, into a cache outside the clone.

`python3 -m tests.clients.tools crane helm` builds (nothing but the standard library is needed for it).
A test whose tool is missing skips; with TXREGISTRY_REQUIRE_CLIENTS=1 it fails. TXREGISTRY_CACHE moves the cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import venv

HERE = os.path.dirname(os.path.abspath(__file__))

# name -> (version, package for `go install`)
GO_INSTALL = {
    "crane": ("v0.22.1", "github.com/google/go-containerregistry/cmd/crane"),
    "helm": ("v3.22.0", "helm.sh/helm/v3/cmd/helm"),
    # Its last state, as the project has ended; for tests of what it and no other server does.
    "minio": ("v0.0.0-20260212201848-7aac2a2c5b7c", "github.com/minio/minio"),
    "oras": ("v1.3.6", "oras.land/oras/cmd/oras"),
    "regctl": ("v0.11.7", "github.com/regclient/regclient/cmd/regctl"),
    "versitygw": ("v1.8.0", "github.com/versity/versitygw/cmd/versitygw"),
}

# name -> package built in the module of that name under go/, whose go.mod and go.sum pin everything.
GO_MODULES = {
    "conformance": "github.com/opencontainers/distribution-spec/conformance",
    "v1client": ".",
    "v1docker": ".",
}

# A program of ours in JavaScript, with its packages pinned beside it.
NPM = "v1pull"

# Those in Python, each with an environment of its own for the packages pinned beside it, and the folder of each.
PYPI = {"v1python": "python", "openstack": "openstack"}

ALL_BUILT = (NPM, *PYPI, *GO_MODULES, *GO_INSTALL)


def cache_directory() -> str:
    """Where built programs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("TXREGISTRY_CACHE") or os.path.join(base, "txregistry-ci")


def _module_version(module: str) -> str:
    """A short name for the state of a module of ours: the sum of its files."""
    total = hashlib.sha256()
    for name in sorted(os.listdir(module)):
        with open(os.path.join(module, name), "rb") as file:
            total.update(file.read())
    return total.hexdigest()[:12]


def _sources(name: str) -> str:
    return os.path.join(HERE, {NPM: "npm", **PYPI}.get(name, f"go/{name}"))


def built_path(name: str) -> str:
    """The path that the program `name` has in the cache, there or not."""
    version = GO_INSTALL[name][0] if name in GO_INSTALL else _module_version(_sources(name))
    return os.path.join(cache_directory(), f"{name}-{version}", name)


def build(name: str) -> str:
    """Build the program `name` unless the cache has it, one builder at a time; its path."""
    path = built_path(name)
    folder = os.path.dirname(path)
    os.makedirs(cache_directory(), exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path
        with tempfile.TemporaryDirectory(dir=cache_directory()) as work:
            _build_into(work, name)
            os.chmod(work, 0o755)
            # Only a whole build gets the name that is looked for.
            shutil.move(work, folder)
            os.mkdir(work)
    return path


def _build_into(work: str, name: str) -> None:
    environment = {**os.environ, "GOBIN": work, "CGO_ENABLED": "0"}
    where = work
    if name in GO_INSTALL:
        version, package = GO_INSTALL[name]
        command = ["go", "install", f"{package}@{version}"]
    elif name in GO_MODULES:
        command = ["go", "build", "-mod=readonly", "-o", os.path.join(work, name), GO_MODULES[name]]
        where = _sources(name)
    else:
        shutil.copytree(_sources(name), work, dirs_exist_ok=True)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    if name in PYPI:
        # Its interpreter is run by its path, so that the folder may move; its scripts would know the old one.
        venv.create(os.path.join(work, "venv"), with_pip=True)
        command = [os.path.join(work, "venv", "bin", "python"), "-m", "pip", "install", "-q", "-r", "requirements.txt"]
    # Standard output is for the path alone.
    subprocess.run(command, cwd=where, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def required() -> bool:
    """Whether a missing tool is a failure."""
    return os.environ.get("TXREGISTRY_REQUIRE_CLIENTS") == "1"


def missing(reason: str) -> Exception:
    """What a test raises where something that it needs is not here."""
    return AssertionError(reason) if required() else unittest.SkipTest(reason)


def find(name: str) -> str:
    """The path of the program `name`: from the cache (built now if required), else from PATH.

    Raises what `missing` gives.
    """
    if name in ALL_BUILT:
        if required():
            return build(name)
        if os.path.exists(path := built_path(name)):
            return path
    found = shutil.which(name)
    if found is None:
        raise missing(f"{name} is not installed")
    return found


if __name__ == "__main__":
    for tool in sys.argv[1:] or ALL_BUILT:
        sys.stdout.write(build(tool) + "\n")
