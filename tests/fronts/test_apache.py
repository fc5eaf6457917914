"""Apache as conf/apache.conf sets it up."""

from __future__ import annotations

from pathlib import Path

from tests.fronts.apache_server import start_apache
from tests.fronts.base import FrontCase
from tests.fronts.process import Process


class ApacheTests(FrontCase):
    needs = ("openssl", "skopeo")

    def serve(self, folder: Path, passwords: Path | None) -> Process:
        return start_apache(folder, self.registry, self.certificates, passwords)

    def test_images(self) -> None:
        self.start_front()
        self.check_skopeo()
        self.check_v1()
        self.check_client()

    def test_bodies(self) -> None:
        self.start_front()
        self.check_continue()
        self.check_refusal(1 << 20)
        self.check_streaming()

    def test_passwords(self) -> None:
        self.check_passwords()
