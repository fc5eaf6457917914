"""umoci makes images in a layout and unpacks them; skopeo carries them to the registry and back."""

import os

from tests.clients.base import ClientCase


class UmociTests(ClientCase):
    """An image made by umoci comes back as it was."""

    needs = ("umoci", "skopeo")
    needs_root = True

    def test_image(self) -> None:
        registry = self.start_registry()
        remote = f"docker://{registry.host}/lab/umoci:1"
        layout, back = self.path("made"), self.path("back")
        self.call("umoci", "init", "--layout", layout)
        self.call("umoci", "new", "--image", f"{layout}:1")
        for name in ("one", "two"):
            with open(self.path(name), "w") as file:
                file.write(name * 50_000)
            self.call("umoci", "insert", "--image", f"{layout}:1", self.path(name), f"/{name}")
        source = f"oci:{layout}:1"
        self.call("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false", source, remote)
        self.call("skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", remote, f"oci:{back}:1")
        digests = [
            self.call("skopeo", "inspect", "--format", "{{.Digest}}", *flags, where).strip()
            for where, flags in ((source, ()), (remote, ("--tls-verify=false",)), (f"oci:{back}:1", ()))
        ]
        self.assertEqual(len(set(digests)), 1, digests)
        self.call("umoci", "unpack", "--image", f"{back}:1", self.path("bundle"))
        for name in ("one", "two"):
            with open(os.path.join(self.path("bundle"), "rootfs", name)) as file:
                self.assertEqual(file.read(), name * 50_000)
        self.attach(registry, "lab/umoci", digests[0])
