"""`txregistry config check` and `txregistry config sample`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from txregistry import config


def add(commands: Any) -> None:
    """Add the commands to the parser's subcommands."""
    group = commands.add_parser(
        "config", help="check a configuration, print a sample", description="Look at configurations."
    )
    group.set_defaults(show=group)
    inner = group.add_subparsers(title="commands", metavar="COMMAND")

    checking = inner.add_parser(
        "check",
        help="say what a configuration would run",
        description="Read a configuration as the server would and say what it would run, secrets masked."
        " Exit status 1 and one line if it could not run. Nothing is opened or written.",
    )
    checking.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="default: $DOCKER_REGISTRY_CONFIG, else config.yml in the working directory, else one under /etc",
    )
    checking.add_argument("--flavor", "-f", help="default: $SETTINGS_FLAVOR, else dev")
    checking.set_defaults(run=check)

    printing = inner.add_parser(
        "sample",
        help="print a commented configuration",
        description="Print a configuration with every key, each with a comment.",
    )
    printing.set_defaults(run=sample)


def check(options: argparse.Namespace) -> int:
    """Print what would run."""
    # Only this command needs what a server is made of.
    from txregistry.service import endpoints_of  # noqa: PLC0415
    from txregistry.startup import StartFailed  # noqa: PLC0415

    try:
        settings = config.load(options.file, options.flavor, os.environ, os.getcwd())
        endpoints_of(settings)
    except (config.ConfigError, StartFailed) as error:
        sys.stderr.write(f"txregistry: {error}\n")
        return 1
    sys.stdout.write(config.check(settings))
    return 0


def sample(_options: argparse.Namespace) -> int:
    """Print the sample."""
    sys.stdout.write(config.sample())
    return 0
