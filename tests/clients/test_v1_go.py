"""Docker's V1 protocol: our Go program pushes and pulls as docker 1.x did; a client library of others pulls too."""

import hashlib
import json
from typing import Any

from tests.clients.base import ClientCase
from tests.clients.server import make_certificates


class V1Tests(ClientCase):
    """Three layers up and down."""

    needs = ("v1client",)

    def push_and_pull(self, *arguments: str, **options: Any) -> list[str]:
        self.registry = self.start_registry(**options)
        return self.call("v1client", "-url", self.registry.url, *arguments).split()

    def test_push_and_pull(self) -> None:
        ids = self.push_and_pull()
        self.assertEqual(len(ids), 3)
        # After a restart as well, and in the files that the first registry had.
        self.registry.stop()
        self.registry.start()
        for image_id in ids:
            answer = self.registry.request("GET", f"/v1/images/{image_id}/layer")
            with open(f"{self.registry.storage}/images/{image_id}/layer", "rb") as file:
                self.assertEqual((answer.status, answer.body), (200, file.read()))

    def test_another_client_pulls(self) -> None:
        ids = self.push_and_pull()
        pulled = json.loads(self.call("v1pull", f"{self.registry.host}/lab/v1"))
        self.assertEqual(pulled["tags"], {"latest": ids[-1], "base": ids[0]})
        self.assertEqual(sorted(pulled["listed"]), sorted(ids))
        self.assertEqual(pulled["ids"], ids[::-1])
        for image_id, digest in pulled["layers"].items():
            with open(f"{self.registry.storage}/images/{image_id}/layer", "rb") as file:
                self.assertEqual(hashlib.sha256(file.read()).hexdigest(), digest)

    def test_tls(self) -> None:
        made = make_certificates(self.path("tls"))
        flags = ("-ca", made.ca, "-cert", made.client, "-key", made.client_key)
        self.assertEqual(len(self.push_and_pull(*flags, certificates=made, client_ca=True)), 3)
