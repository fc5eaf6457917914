"""A dockerd of the test's own: its own root, its own socket, no network but the loopback."""

import json

from tests.clients import tools
from tests.clients.base import ClientCase


class DockerCase(ClientCase):
    """`docker` talks to a dockerd that stops with the test."""

    needs: tuple[str, ...] = ("dockerd", "docker")
    needs_root = True

    def start_dockerd(self, prefix: str = "") -> None:
        """Start it; `prefix` is shell text that runs before it in a mount namespace of its own."""
        self.socket = self.path("docker.sock")
        # Nothing comes from /etc/docker: its configuration is this file.
        with open(self.path("daemon.json"), "w") as file:
            file.write("{}")
        command = [self.tools["dockerd"], "--config-file", self.path("daemon.json")]
        command += ["--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", f"unix://{self.socket}"]
        command += ["--data-root", self.path("data"), "--exec-root", self.path("exec")]
        command += ["--pidfile", self.path("docker.pid")]
        if prefix:
            command = [tools.find("unshare"), "--mount", "sh", "-ec", f'{prefix}\nexec "$@"', "sh", *command]
        self.start_daemon(*command, log=self.path("dockerd.log"), ready=self.socket)

    def docker(self, *arguments: str) -> str:
        # An old daemon and a new command line, or the reverse, agree on a version by themselves.
        return self.call("docker", *arguments, DOCKER_HOST=f"unix://{self.socket}", DOCKER_BUILDKIT="0")

    def docker_push(self, name: str) -> str:
        """Push; the digest that the daemon printed."""
        lines = [line for line in self.docker("push", name).splitlines() if "digest: sha256:" in line]
        return lines[-1].split("digest: ")[1].split()[0]

    def image_id(self, name: str) -> str:
        found = json.loads(self.docker("image", "inspect", name))[0]["Id"]
        assert isinstance(found, str)
        return found
