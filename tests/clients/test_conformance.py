"""The current OCI distribution conformance suite, told to test everything it can."""

import sys

import yaml

from tests.clients.base import ClientCase

# Off by default for some version of the specification.
EVERYTHING = (
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
)


class ConformanceTests(ClientCase):
    """Nothing may fail."""

    needs = ("conformance",)

    def run_suite(self, version: str, sparse: bool = False) -> None:
        config = {"accept_missing_blobs": True} if sparse else None
        registry = self.start_registry(config=config)
        settings = {
            "OCI_REGISTRY": registry.host,
            "OCI_TLS": "disabled",
            "OCI_REPO1": "conformance/first",
            "OCI_REPO2": "conformance/second",
            "OCI_VERSION": version,
            "OCI_RESULTS_DIR": self.path("results"),
            "OCI_DATA_SPARSE": str(sparse).lower(),
        }
        if version == "dev":
            settings.update(dict.fromkeys(EVERYTHING, "true"))
        done = self.attempt("conformance", timeout=600, **settings)
        with open(self.path("results", "results.yaml")) as file:
            results = yaml.safe_load(file)
        sys.stdout.write(f"\n{results}\n")
        self.assertEqual(done.returncode, 0, done.stdout[-20_000:] + done.stderr[-5_000:])

    def test_released_version(self) -> None:
        self.run_suite("1.1")

    def test_development_version(self) -> None:
        self.run_suite("dev")

    def test_sparse_images(self) -> None:
        """With `accept_missing_blobs`, manifests whose blobs are missing are taken too."""
        self.run_suite("dev", sparse=True)
