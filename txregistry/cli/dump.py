"""`txregistry dump`: all V1 repositories as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from txregistry import config
from txregistry.cli.store import Report, StoreError, fail, finish, open_root, open_store
from txregistry.core.v1.adoption import V1Store
from txregistry.errors import StorageError
from txregistry.interfaces import IStorageDriver
from txregistry.storage.factory import EngineError


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    command = commands.add_parser(
        "dump",
        help="print all V1 repositories as JSON",
        description="Print a JSON list of all tagged V1 repositories:"
        ' {"namespace", "repository", "images": [{"id", "checksum"}]}. A checksum that is not known is null.',
    )
    where = command.add_mutually_exclusive_group()
    where.add_argument("root", metavar="ROOT", nargs="?", help="the folder that storage_path names")
    where.add_argument("--config", "-c", metavar="FILE", help="the store of a configuration")
    command.add_argument("--flavor", "-f", help="flavor of that file; default: $SETTINGS_FLAVOR, else dev")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    report = Report(sys.stdout, sys.stderr)
    try:
        found = finish(V1Store(_driver(options), report).dump())
    except (config.ConfigError, EngineError, StoreError, StorageError) as error:
        report.clear()
        return fail(str(error))
    report.clear()
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


def _driver(options: argparse.Namespace) -> IStorageDriver:
    if options.root is not None:
        return open_root(options.root)
    storage = config.load(options.config, options.flavor, os.environ, os.getcwd()).storage
    if storage.engine == "local":
        return open_root(storage.path or "")
    return open_store(storage.engine, storage.path)
