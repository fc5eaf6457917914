"""Every client over TLS: with a CA file, with and without a client certificate, and refused where it must be.

crane takes no client certificate. dockerd verifies nothing on 127.0.0.0/8, so it meets the registry on ::1, under
a name that only its own mount namespace knows.
"""

import os
import shutil
from typing import Any

from tests.clients.base import ClientCase
from tests.clients.containerd_daemon import ContainerdCase
from tests.clients.docker_daemon import DockerCase
from tests.clients.images import write_docker_archive
from tests.clients.server import Registry, make_certificates


class TLSCase(ClientCase):
    """`push_and_pull` of a subclass says whether its client got an image up and down."""

    takes_client_certificate = True

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        """Whether it worked, with this CA file and with or without the client's certificate."""
        raise AssertionError("each client has its own")

    def all_succeed(self, *commands: tuple[str, ...], **more: Any) -> bool:
        """Run one after the other until one fails; what it said is kept for the failure of the test."""
        for command in commands:
            done = self.attempt(*command, **more)
            self.said = f"{command}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
            if done.returncode:
                return False
        return True

    def check(self) -> None:
        self.made = made = make_certificates(self.path("tls"))
        self.said = ""
        registry = self.start_registry("plain", certificates=made)
        self.assertFalse(self.push_and_pull(registry, made.stranger, False), "an unknown authority was accepted")
        self.assertEqual(registry.request("GET", "/v2/_catalog").json["repositories"], [])
        self.assertTrue(self.push_and_pull(registry, made.ca, False), self.said)
        if self.takes_client_certificate:
            self.assertTrue(self.push_and_pull(registry, made.ca, True), self.said)
        registry.stop()
        strict = self.start_registry("strict", certificates=made, client_ca=True)
        self.assertFalse(self.push_and_pull(strict, made.ca, False), "no client certificate was needed")
        if self.takes_client_certificate:
            self.assertTrue(self.push_and_pull(strict, made.ca, True), self.said)

    def certificate_folder(self, ca: str, client: bool) -> str:
        """A folder of the form that skopeo and its relatives read."""
        folder = self.path("certs")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        shutil.copy(ca, os.path.join(folder, "ca.crt"))
        if client:
            shutil.copy(self.made.client, os.path.join(folder, "client.cert"))
            shutil.copy(self.made.client_key, os.path.join(folder, "client.key"))
        return folder

    def flags(self, ca: str, client: bool, *names: str) -> tuple[str, ...]:
        """The options of the given names (CA, certificate, key) and their files."""
        files = (ca, self.made.client, self.made.client_key) if client else (ca,)
        return tuple(word for pair in zip(names, files, strict=False) for word in pair)


class SkopeoTests(TLSCase):
    needs = ("skopeo",)

    def test_tls(self) -> None:
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        folder = self.certificate_folder(ca, client)
        remote = f"docker://{registry.host}/lab/app:1"
        source = f"oci:{self.images.layout.path}:app"
        return self.all_succeed(
            ("skopeo", "copy", "--dest-cert-dir", folder, source, remote),
            ("skopeo", "copy", "--src-cert-dir", folder, remote, f"oci:{self.path('back')}:app"),
        )


class StoreToolTests(TLSCase):
    needs = ("podman", "buildah")
    needs_root = True

    def test_podman(self) -> None:
        self.tool = "podman"
        self.check()

    def test_buildah(self) -> None:
        self.tool = "buildah"
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        folder = self.certificate_folder(ca, client)
        start = (self.tool, "--root", self.path("root"), "--runroot", self.path("run"), "--storage-driver", "vfs")
        self.addCleanup(self.attempt, "umount", self.path("root", "vfs"))
        remote = f"docker://{registry.host}/lab/app:1"
        self.assertTrue(self.all_succeed((*start, "pull", f"oci:{self.images.layout.path}:app")), self.said)
        image_id = self.call(*start, "images", "--quiet").split()[0]
        return self.all_succeed(
            (*start, "push", "--cert-dir", folder, image_id, remote),
            (*start, "rmi", "--force", image_id),
            (*start, "pull", "--cert-dir", folder, remote),
        )


class CraneTests(TLSCase):
    needs = ("crane",)
    takes_client_certificate = False

    def test_tls(self) -> None:
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        source = self.images.layout.only(self.path("only"), self.images.app).path
        return self.all_succeed(
            ("crane", "push", source, f"{registry.host}/lab/app:1"),
            ("crane", "validate", "--remote", f"{registry.host}/lab/app:1"),
            SSL_CERT_FILE=ca,
        )


class OrasTests(TLSCase):
    needs = ("oras",)

    def test_tls(self) -> None:
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        remote = f"{registry.host}/lab/app:1"
        push = self.flags(ca, client, "--to-ca-file", "--to-cert-file", "--to-key-file")
        pull = self.flags(ca, client, "--from-ca-file", "--from-cert-file", "--from-key-file")
        return self.all_succeed(
            ("oras", "cp", *push, "--from-oci-layout", f"{self.images.layout.path}:app", remote),
            ("oras", "cp", *pull, remote, "--to-oci-layout", f"{self.path('back')}:app"),
        )


class RegctlTests(TLSCase):
    needs = ("regctl",)

    def test_tls(self) -> None:
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        settings: list[str] = []
        for name, path in zip(
            ("--cacert", "--client-cert", "--client-key"),
            (ca, self.made.client, self.made.client_key) if client else (ca,),
            strict=False,
        ):
            with open(path) as file:
                settings += [name, file.read()]
        remote = f"{registry.host}/lab/app:1"
        shutil.rmtree(self.path("home", ".regctl"), ignore_errors=True)
        return self.all_succeed(
            ("regctl", "registry", "set", "--skip-check", "--tls", "enabled", *settings, registry.host),
            ("regctl", "image", "copy", f"ocidir://{self.images.layout.path}:app", remote),
            ("regctl", "image", "copy", remote, f"ocidir://{self.path('back')}:app"),
        )


class HelmTests(TLSCase):
    needs = ("helm",)

    def test_tls(self) -> None:
        self.call("helm", "create", "lab")
        self.call("helm", "package", "lab", "--version", "1.0.0")
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        flags = self.flags(ca, client, "--ca-file", "--cert-file", "--key-file")
        where = f"oci://{registry.host}/charts"
        return self.all_succeed(
            ("helm", "push", *flags, "lab-1.0.0.tgz", where),
            ("helm", "pull", *flags, f"{where}/lab", "--version", "1.0.0", "-d", self.path("home")),
        )


class ContainerdTests(TLSCase, ContainerdCase):
    def test_tls(self) -> None:
        self.start_containerd()
        self.check()

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        # On the loopback `ctr` speaks plain HTTP whatever its flags say; a hosts file says otherwise.
        folder = self.path("hosts", registry.host)
        os.makedirs(folder, exist_ok=True)
        pair = f'client = [["{self.made.client}", "{self.made.client_key}"]]\n' if client else ""
        with open(os.path.join(folder, "hosts.toml"), "w") as file:
            file.write(
                f'server = "{registry.url}"\n[host."{registry.url}"]\n'
                f'capabilities = ["pull", "resolve", "push"]\nca = "{ca}"\n{pair}'
            )
        name = f"{registry.host}/lab/app"
        archive = self.images.layout.only(self.path("only"), self.images.app, "1").archive(self.path("only.tar"))
        hosts = ("--hosts-dir", self.path("hosts"))
        return self.all_succeed(
            (*self.ctr_command, "images", "import", "--no-unpack", "--base-name", name, archive),
            (*self.ctr_command, "images", "push", *hosts, f"{name}:1"),
            (*self.ctr_command, "images", "rm", "--sync", f"{name}:1"),
            (*self.ctr_command, "content", "fetch", *hosts, f"{name}:1"),
        )


class DockerdTests(TLSCase, DockerCase):
    """Each daemon reads its certificates when it asks, so one daemon serves the whole test."""

    def test_tls(self) -> None:
        os.makedirs(self.path("etc-docker"))
        os.makedirs("/etc/docker", exist_ok=True)
        with open("/etc/hosts") as file, open(self.path("hosts"), "w") as copy:
            copy.write(file.read() + "\n::1 registry.test\n")
        private = f"mount --bind {self.path('etc-docker')} /etc/docker; mount --bind {self.path('hosts')} /etc/hosts"
        self.start_dockerd(private)
        self.check()

    def start_registry(self, label: str = "server", **options: Any) -> Registry:
        return super().start_registry(label, address="::1", **options)

    def push_and_pull(self, registry: Registry, ca: str, client: bool) -> bool:
        host = f"registry.test:{registry.port}"
        folder = self.path("etc-docker", "certs.d", host)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.certificate_folder(ca, client), folder)
        name = f"{host}/lab/docker:1"
        self.docker("load", "--input", write_docker_archive(self.path("archive.tar"), name))
        address = {"DOCKER_HOST": f"unix://{self.socket}"}
        return self.all_succeed(
            ("docker", "push", name), ("docker", "rmi", "--force", name), ("docker", "pull", name), **address
        )
