"""helm: a chart as an OCI artifact."""

import os

from tests.clients.base import ClientCase
from tests.clients.images import digest_of

CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


class HelmTests(ClientCase):
    """A chart goes up and comes back."""

    needs = ("helm",)

    def test_chart(self) -> None:
        registry = self.start_registry()
        self.call("helm", "create", "lab")
        self.call("helm", "package", "lab", "--version", "1.2.3+build.4")
        archive = "lab-1.2.3+build.4.tgz"
        self.call("helm", "push", "--plain-http", archive, f"oci://{registry.host}/charts")
        # A tag has no `+`; helm writes `_` for it.
        stored = registry.manifest("charts/lab", "1.2.3_build.4")
        self.assertEqual(stored.status, 200)
        os.makedirs(self.path("back"))
        pull = ("pull", "--plain-http", f"oci://{registry.host}/charts/lab", "--version", "1.2.3+build.4")
        self.call("helm", *pull, "-d", "back")
        with open(self.path(archive), "rb") as sent, open(self.path("back", archive), "rb") as got:
            self.assertEqual(sent.read(), got.read())
        shown = self.call("helm", "show", "chart", "--plain-http", f"oci://{registry.host}/charts/lab")
        self.assertIn("version: 1.2.3", shown)
        layers = {layer["mediaType"]: layer["digest"] for layer in stored.json["layers"]}
        with open(self.path(archive), "rb") as sent:
            self.assertEqual(layers[CHART_LAYER], digest_of(sent.read()))
        self.attach(registry, "charts/lab", stored.headers["docker-content-digest"])
