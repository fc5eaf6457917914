"""What the tests of V1 clients share: a registry that verifies tokens at an index, and what it has on its disk."""

import hashlib
import os

from tests.clients.base import ClientCase
from tests.clients.index_server import Index, password_of
from tests.clients.server import Registry

SECRET_KEY = "the lab's, for every start"


class V1Case(ClientCase):
    """A test that may have an index."""

    def start_with_index(self) -> tuple[Registry, Index]:
        """A registry whose accounts and lists are at an index."""
        index = Index(self.path("index"))
        config = {"standalone": False, "index_endpoint": index.url, "secret_key": SECRET_KEY}
        registry = self.start_registry(config=config)
        index.start(registry.host)
        self.addCleanup(index.kill)
        return registry, index

    def docker_code(self, verb: str, index: str, name: str, user: str = "", seed: int = 1) -> list[str]:
        """Push or pull three images by docker's own code; their ids, the base first."""
        login = ("-user", user, "-password", password_of(user)) if user else ()
        return self.call("v1docker", "-index", index, "-name", name, *login, "-seed", str(seed), verb).split()

    def assert_layers(self, registry: Registry, layers: dict[str, str]) -> None:
        """A client's layers, image -> SHA-256, are those on the disk."""
        for image, digest in layers.items():
            with open(os.path.join(registry.storage, "images", image, "layer"), "rb") as file:
                self.assertEqual(hashlib.sha256(file.read()).hexdigest(), digest)
