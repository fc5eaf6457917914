"""`txregistry adopt`: look for what is broken in the store of an old server, and make what can be made again."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from txregistry.cli.store import Report, StoreError, fail, finish, open_root
from txregistry.core.adoption import V2Check
from txregistry.core.v1.adoption import V1Store
from txregistry.errors import StorageError
from txregistry.interfaces import IStorageDriver


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    command = commands.add_parser(
        "adopt",
        help="check the store of an old server, repair ancestries",
        description="A store of docker-registry 0.6.5 to 0.9.1, or of CNCF distribution, or both in one folder, is"
        " served as it is. This command says what is broken in it. Exit status 0 if nothing is, or all of it was"
        " repaired, otherwise 1.",
    )
    command.add_argument("root", metavar="ROOT", help="the folder that storage_path names")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--check",
        action="store_true",
        help="list unfinished images, missing ancestries and layers, tags to nowhere, odd checksums, damaged links and"
        " revisions without data; nothing is changed, and the contents of layers and blobs are not read",
    )
    what.add_argument(
        "--repair-ancestry",
        action="store_true",
        help="tell which finished images lack an ancestry or a checksum that can be made again",
    )
    command.add_argument("--seriously", action="store_true", help="with --repair-ancestry: make them")
    command.set_defaults(run=run, parser=command)


def run(options: argparse.Namespace) -> int:
    """Check or repair."""
    if options.seriously and not options.repair_ancestry:
        options.parser.error("--seriously goes with --repair-ancestry")
    verb = "made" if options.seriously else "would be made"
    report = Report(sys.stdout, sys.stderr, verb)
    try:
        driver = open_root(options.root)
        if options.check:
            finish(_check(driver, report))
        else:
            finish(V1Store(driver, report).repair(seriously=options.seriously))
    except (StoreError, StorageError) as error:
        report.clear()
        return fail(str(error))
    report.clear()
    _sum_up(report, verb if options.repair_ancestry else None)
    whole = not report.faults and (options.seriously or not report.made)
    return 0 if whole else 1


async def _check(driver: IStorageDriver, report: Report) -> None:
    v2 = V2Check(driver, report)
    await v2.find()
    await V1Store(driver, report).check()
    await v2.run()


def _sum_up(report: Report, verb: str | None) -> None:
    if report.faults or report.made:
        report.line("")
    seen = ", ".join(f"{count} {noun}" for noun, count in report.counts.items())
    report.line(f"looked at: {seen or 'nothing'}")
    if verb is not None:
        report.line(f"{verb}: {report.made}")
    for kind, count in sorted(report.faults.items()):
        report.line(f"{kind}: {count}")
    report.line("broken: " + (str(sum(report.faults.values())) if report.faults else "nothing"))
