"""The image that the Dockerfile makes: built by buildah on a base of Debian's packages, and run by podman.

No image is pulled. The base comes from `debootstrap` and is kept in the cache of the lab; what pip installs is
gathered outside, so that the build itself needs no network.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients import tools
from tests.clients.base import ClientCase
from tests.clients.server import Registry
from tests.fronts.process import free_port
from tests.running import ROOT, wait_until

BASE = "localhost/debian-python"
IMAGE = "localhost/txregistry"
SECONDS = 1200


class ContainerTests(ClientCase):
    needs = ("buildah", "debootstrap", "podman", "skopeo")
    needs_root = True

    def setUp(self) -> None:
        super().setUp()
        store = ("--root", self.path("images-store"), "--runroot", self.path("run"), "--storage-driver", "vfs")
        self.buildah = ("buildah", *store)
        self.podman = ("podman", *store, "--cgroup-manager", "cgroupfs", *self.runtime())
        # Containers mount file systems there, which have to be gone before the folder goes.
        self.addCleanup(self.attempt, *self.podman, "rm", "--all", "--force", "--time", "5")

    def runtime(self) -> tuple[str, ...]:
        """The runtime of containers: runc if it is here, as crun does not take every arrangement of cgroups."""
        found = shutil.which("runc")
        return ("--runtime", found) if found else ()

    def test_image(self) -> None:
        self.build_base()
        self.build_image()
        self.run_image()

    # -- building ----------------------------------------------------------------------------------------------------

    def build_base(self) -> None:
        os.makedirs(self.path("base"))
        shutil.copy(self.bootstrapped(), self.path("base", "root.tar"))
        Path(self.path("base", "Containerfile")).write_text("FROM scratch\nADD root.tar /\n")
        self.call(*self.buildah, "bud", "--quiet", "--tag", BASE, self.path("base"), timeout=SECONDS)

    def bootstrapped(self) -> str:
        """An archive of the smallest Debian with Python, of the release that runs here."""
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        path = os.path.join(tools.cache_directory(), f"debian-{release}-python.tar")
        if not os.path.exists(path):
            os.makedirs(tools.cache_directory(), exist_ok=True)
            with tempfile.TemporaryDirectory(dir=tools.cache_directory()) as work:
                root, archive = os.path.join(work, "root"), os.path.join(work, "root.tar")
                packages = "--include=python3,python3-venv"
                self.call("debootstrap", "--variant=minbase", packages, release, root, timeout=SECONDS)
                self.call("tar", "-C", root, "--exclude=./var/cache/apt/archives/*.deb", "-cf", archive, ".")
                os.replace(archive, path)
        return path

    def build_image(self) -> None:
        """By the Dockerfile itself, from the source tree."""
        house = self.path("house")
        source = self.path("source")
        for name in ("txregistry", "twisted"):
            unwanted = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(ROOT / name, f"{source}/{name}", ignore=unwanted)
        for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        # As whoever runs the tests: where packages come from is configured outside.
        gathered = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", house, "setuptools>=77", f"{source}[all]"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.assertEqual(gathered.returncode, 0, gathered.stderr)
        for path in Path(house).glob("txregistry-*"):
            path.unlink()
        Path(self.path("pip.conf")).write_text("[global]\nno-index = true\nfind-links = /house\n")
        self.call(
            *(*self.buildah, "bud", "--pull-never", "--isolation", "chroot", "--build-arg", f"BASE={BASE}"),
            *("--volume", f"{house}:/house:ro", "--volume", f"{self.path('pip.conf')}:/etc/pip.conf:ro"),
            *("--tag", IMAGE, str(ROOT)),
            timeout=SECONDS,
        )

    # -- running -----------------------------------------------------------------------------------------------------

    def start(self, name: str, store: str) -> Registry:
        """A container that publishes the registry's port; a `Registry` that only asks."""
        registry = Registry(self.path(name), storage=store)
        # Podman would raise them to a million, which not every root may.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limits = ("--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=1024:1024")
        registry.port = free_port()
        self.call(
            *(*self.podman, "run", "--detach", "--name", name, *limits),
            *("--publish", f"127.0.0.1:{registry.port}:5000", "--volume", f"{store}:/var/lib/txregistry", IMAGE),
        )
        wait_until(lambda: " may pull" in self.logs(name), f"the registry in the container: {self.logs(name)}")
        return registry

    def logs(self, name: str) -> str:
        done = self.attempt(*self.podman, "logs", name)
        return done.stdout + done.stderr

    def stop(self, name: str) -> None:
        """Stop it, and look that it ended by itself: podman kills what does not."""
        self.call(*self.podman, "stop", "--time", "60", name)
        status = self.call(*self.podman, "inspect", "--format", "{{.State.ExitCode}}", name)
        self.assertIn(status.strip(), ("0", "143"), self.logs(name))

    def run_image(self) -> None:
        store = self.path("volume")
        os.makedirs(store)
        shutil.chown(store, 5000, 5000)
        registry = self.start("first", store)
        self.assertIn("storing in /var/lib/txregistry", self.logs("first"))
        image = f"oci:{self.images.layout.path}:app"
        remote = f"docker://{registry.host}/lab/app:app"
        self.call("skopeo", "copy", "--dest-tls-verify=false", image, remote)
        self.assert_served(registry, "lab/app", "app", self.images.app)
        self.assertEqual(registry.request("GET", "/v1/_ping").status, 200)
        self.stop("first")
        self.assertEqual(os.stat(os.path.join(store, "docker")).st_uid, 5000)
        again = self.start("second", store)
        self.assert_served(again, "lab/app", "app", self.images.app)
        who = self.call(*self.podman, "exec", "second", "id", "-un")
        self.assertEqual(who.strip(), "txregistry")
        self.stop("second")
