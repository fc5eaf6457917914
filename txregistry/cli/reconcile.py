"""`txregistry reconcile`: bring to Glance what the alternate took while it was out, and see that nothing is lost."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txregistry import config
from txregistry.cli.store import fail
from txregistry.concurrency import start
from txregistry.errors import StorageError
from txregistry.interfaces import IReconciles, Reconciled
from txregistry.storage.factory import EngineError, open_driver, require
from txregistry.storage.pool import Pool


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    command = commands.add_parser(
        "reconcile",
        help="bring to Glance what the alternate holds for it",
        description="With `storage: glance`: move to Glance what only the alternate holds, delete from it what was"
        " deleted while it was out, take up what it holds that nobody knew, let names follow tags, and look for the"
        " image of every object. Servers do the same by themselves, but for the last; they may be running. Exit status"
        " 1 if something is lost or had to be left.",
    )
    command.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="default: $DOCKER_REGISTRY_CONFIG, else config.yml in the working directory, else one under /etc",
    )
    command.add_argument("--flavor", "-f", help="default: $SETTINGS_FLAVOR, else dev")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reconcile, within a reactor of its own: large objects go through in pieces."""
    try:
        settings = config.load(options.file, options.flavor, os.environ, os.getcwd())
        require(settings.storage.engine, settings.storage.alternate)
    except (config.ConfigError, EngineError) as error:
        return fail(str(error))
    if settings.storage.engine != "glance":
        return fail(f"there is nothing to reconcile: storage is {settings.storage.engine}, which has no alternate")
    from twisted.internet import reactor  # noqa: PLC0415 - few commands need one

    outcome: list[Reconciled | Failure] = []

    def begin() -> None:
        start(reconcile(settings, reactor)).addBoth(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if not outcome:
        return fail("interrupted; what is left will be done by the servers, or the next time")
    result = outcome[0]
    if not isinstance(result, Failure):
        return tell(result)
    if not isinstance(result.value, StorageError):
        result.raiseException()
    return fail(result.value.reason or str(result.value))


async def reconcile(settings: config.Settings, reactor: Any) -> Reconciled:
    """Open the configured storage, reconcile it, and let go of it."""
    storage = settings.storage
    pool = Pool(reactor, settings.threads)
    driver = open_driver(storage.engine, storage.path, pool, reactor, storage.keys)
    try:
        found: Deferred[Reconciled] = IReconciles(driver).reconcile(_tell_line)
        return await found
    finally:
        await driver.close()
        await pool.stop()


def _tell_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def tell(found: Reconciled) -> int:
    """Say what was found; the exit status."""
    for name, value in (
        ("objects looked at", found.seen),
        ("objects moved", found.moved),
        ("deleted in Glance", found.removed),
        ("taken up", found.adopted),
        ("renamed", found.renamed),
        ("left as they are", len(found.left)),
        ("lost", len(found.lost)),
    ):
        sys.stdout.write(f"{name}: {value}\n")
    return 1 if found.left or found.lost else 0
