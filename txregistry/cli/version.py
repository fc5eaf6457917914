"""`txregistry version`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from txregistry.version import __version__


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    command = commands.add_parser("version", help="print the version", description="Print the version.")
    command.set_defaults(run=run)


def run(_options: argparse.Namespace) -> int:
    """Print it."""
    sys.stdout.write(f"txregistry {__version__}\n")
    return 0
