"""A containerd of the test's own, with its own root, state and socket, and no CRI."""

from tests.clients.base import ClientCase


class ContainerdCase(ClientCase):
    """`ctr` talks to a containerd that stops with the test."""

    needs = ("containerd", "ctr")
    needs_root = True

    def start_containerd(self) -> None:
        self.socket = self.path("containerd.sock")
        with open(self.path("containerd.toml"), "w") as file:
            file.write(
                f'version = 2\nroot = "{self.path("root")}"\nstate = "{self.path("state")}"\n'
                'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
                f'[grpc]\naddress = "{self.socket}"\n'
            )
        command = (self.tools["containerd"], "--config", self.path("containerd.toml"))
        self.start_daemon(*command, log=self.path("containerd.log"), ready=self.socket)
        self.ctr_command = ("ctr", "--address", self.socket, "--namespace", "lab")

    def ctr(self, *arguments: str) -> str:
        return self.call(*self.ctr_command, *arguments)
