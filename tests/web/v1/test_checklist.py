"""The table of what is tested where names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"


class Names(SynchronousTestCase):
    def test_they_exist(self) -> None:
        found = re.findall(r"`(tests\.[\w.]+)`", PAGE.read_text())
        self.assertGreater(len(found), 20)
        for name in found:
            namedAny(name)  # raises

    def test_each_row_has_one(self) -> None:
        rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
        without = [line for line in rows if "`tests." not in line]
        self.assertEqual(without, ["| What has to hold | Tests |", "| What is shown | Tests |"])
