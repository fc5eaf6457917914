"""The current OCI distribution conformance suite, told to test everything it can."""

import os
import sys
from xml.etree import ElementTree

import yaml

from tests.clients.base import ClientCase

# Off by default for some version of the specification.
EVERYTHING = (
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
    "OCI_DATA_SPARSE",
)


class ConformanceTests(ClientCase):
    """Nothing may fail."""

    needs = ("conformance",)

    def run_suite(self, config: dict[str, object] | None = None, **settings: str) -> None:
        """Run it against a fresh registry and print how many cases there were, by their end."""
        registry = self.start_registry(config=config)
        place = {
            "OCI_REGISTRY": registry.host,
            "OCI_TLS": "disabled",
            "OCI_REPO1": "conformance/first",
            "OCI_REPO2": "conformance/second",
            "OCI_RESULTS_DIR": self.path("results"),
        }
        done = self.attempt("conformance", timeout=600, **place, **settings)
        report = self.path("results", "junit.xml")
        self.assertTrue(os.path.exists(report), done.stdout[-5_000:] + done.stderr[-5_000:])
        # Made by a program of ours a moment ago, so nothing hostile is in it.
        suites = ElementTree.parse(report).getroot()
        totals = dict.fromkeys(("tests", "failures", "errors", "skipped", "disabled"), 0)
        for suite in suites.iter("testsuite"):
            for ending in totals:
                totals[ending] += int(suite.get(ending, "0"))
        sys.stdout.write(f"\nconformance, {settings}: {totals}\n")
        bad = [
            f"{case.get('name')}: {(case.findtext('system-out') or '').strip()[:500]}"
            for case in suites.iter("testcase")
            if case.get("status") not in ("passed", "skipped", "disabled")
        ]
        self.assertEqual((bad, totals["failures"], totals["errors"]), ([], 0, 0), "\n".join(bad))
        self.assertEqual(done.returncode, 0, done.stdout[-5_000:])
        self.assertGreater(totals["tests"], 800)

    def test_released_version(self) -> None:
        self.run_suite(OCI_VERSION="1.1")

    def test_development_version(self) -> None:
        self.run_suite(OCI_VERSION="dev")

    def test_everything(self) -> None:
        """With `accept_missing_blobs`, manifests whose blobs are missing are taken too: nothing is left out."""
        settings = dict.fromkeys(EVERYTHING, "true")
        self.run_suite({"accept_missing_blobs": True}, OCI_VERSION="dev", **settings)
        with open(self.path("results", "results.yaml")) as file:
            results = yaml.safe_load(file)
        endings = {**results["apis"], **results["data"]}
        self.assertIn("Sparse Manifests", endings)
        self.assertEqual({name: ending for name, ending in endings.items() if ending != "Pass"}, {})
