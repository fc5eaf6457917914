"""`txregistry copy`: move a whole store to another engine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, TextIO

from twisted.python.failure import Failure

from txregistry import config
from txregistry.cli.store import fail
from txregistry.concurrency import start
from txregistry.core.copying.objects import Copied
from txregistry.core.copying.store import Copy
from txregistry.errors import StorageError
from txregistry.interfaces import IStorageDriver
from txregistry.storage.factory import EngineError, open_driver, place_of, require
from txregistry.storage.pool import Pool

_BAR = 30
#: Seconds between two looks of the bar on a terminal, and between two lines where there is none.
_SOON, _LATER = 0.2, 30.0
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    command = commands.add_parser(
        "copy",
        help="copy a whole store to another engine",
        description="Copy all repositories of both dialects, their blobs and layers, and _txregistry/state, from the"
        " storage of one flavor of a configuration to that of another. What is there and equal is skipped, so a run"
        " that was interrupted is gone on with by another, and the last run before the change of server is short. Each"
        " blob is checked by its digest, each V1 layer by its recorded sums. A tag comes after what it names. Not"
        " copied are uploads under way, and what servers make again by themselves. What only the target has is told,"
        " as it may have been deleted at the source. Exit status 0 if all was copied, otherwise 1.",
    )
    command.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="default: $DOCKER_REGISTRY_CONFIG, else config.yml in the working directory, else one under /etc",
    )
    command.add_argument("--from", dest="source", metavar="FLAVOR", required=True, help="where everything is")
    command.add_argument(
        "--to", dest="target", metavar="FLAVOR", required=True, help="where it shall be; nobody may push there"
    )
    command.add_argument(
        "--delete", action="store_true", help="remove from the target what the source has not, tags first"
    )
    command.add_argument(
        "--verify", action="store_true", help="read all that the target has again, copied now or in an earlier run"
    )
    command.add_argument("--jobs", type=positive_number, default=4, metavar="N", help="objects at a time, default: 4")
    command.set_defaults(run=run)


def positive_number(text: str) -> int:
    """A number of at least 1; ValueError, of which argparse makes an error that has this function's name."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run(options: argparse.Namespace) -> int:
    """Copy, within a reactor of its own: large objects go through in pieces."""
    try:
        settings = [
            config.load(options.file, flavor, os.environ, os.getcwd()) for flavor in (options.source, options.target)
        ]
        for one in settings:
            require(one.storage.engine, one.storage.alternate)
    except (config.ConfigError, EngineError) as error:
        return fail(str(error))
    places = [_place(one) for one in settings]
    if places[0] == places[1]:
        return fail(f"--from and --to are the same storage: {places[0]}")
    for here, there in (places, reversed(places)):
        if settings[0].storage.engine == settings[1].storage.engine == "local" and _is_in(here, there):
            return fail(f"{here} is inside {there}")
    if settings[0].storage.engine == "local" and not os.path.isdir(places[0]):
        return fail(f"{places[0]}: is not a folder")
    from twisted.internet import reactor  # noqa: PLC0415 - few commands need one

    progress = Progress(sys.stdout, sys.stderr)
    outcome: list[Copied | Failure] = []

    def begin() -> None:
        start(copy(options, settings, reactor, progress)).addBoth(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    progress.clear()
    if not outcome:
        return fail("interrupted; the next run goes on with it")
    result = outcome[0]
    if not isinstance(result, Failure):
        return tell(result)
    if not isinstance(result.value, StorageError):
        result.raiseException()
    reason = result.value.reason or str(result.value)
    return fail(f"{reason}; the next run goes on with what is left")


def _place(settings: config.Settings) -> str:
    storage = settings.storage
    return place_of(storage.engine, storage.path, storage.keys, storage.alternate)


def _is_in(path: str, other: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), os.path.realpath(other)]) == os.path.realpath(other)


async def copy(
    options: argparse.Namespace, settings: list[config.Settings], reactor: Any, progress: Progress
) -> Copied:
    """Open both storages, copy, and let go of them."""
    pools = [Pool(reactor, one.threads) for one in settings]
    drivers: list[IStorageDriver] = [
        open_driver(one.storage.engine, one.storage.path, pool, reactor, one.storage.keys)
        for one, pool in zip(settings, pools, strict=True)
    ]
    try:
        for one, driver in zip(settings, drivers, strict=True):
            prepared: Any = driver
            # A folder that is only read may be on a file system that cannot be written.
            if one is not settings[0] or one.storage.engine != "local":
                prepared.prepare()
        wishes: dict[str, Any] = {name: getattr(options, name) for name in ("jobs", "verify", "delete")}
        copying = Copy(drivers[0], drivers[1], progress, reactor, **wishes)
        progress.found = copying.found
        return await copying.run()
    finally:
        for driver in drivers:
            await driver.close()
        for pool in pools:
            await pool.stop()


class Progress:
    """How far a copy has come: a bar on a terminal, a line from time to time elsewhere."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.found = Copied()
        self._out, self._err = out, err
        self._terminal = err.isatty()
        self._total = self._done = self._bytes = 0
        self._began = time.monotonic()
        self._next = self._began + (_SOON if self._terminal else _LATER)

    def expect(self, count: int) -> None:
        """So many more steps are to come."""
        self._total += count

    def step(self) -> None:
        """One is done."""
        self._done += 1
        self._show()

    def moved(self, size: int) -> None:
        """So many bytes more were read to be carried."""
        self._bytes += size
        self._show()

    def tell(self, line: str) -> None:
        """Print a line, whatever bytes the names of files had."""
        self.clear()
        self._out.write(line.encode("utf-8", "backslashreplace").decode("utf-8").replace("\n", "\\n") + "\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._terminal:
            self._err.write("\r\x1b[K")
            self._err.flush()

    def _show(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_SOON if self._terminal else _LATER)
        share = self._done / max(1, self._total)
        rate = self._bytes / (now - self._began)
        text = (
            f"{100 * share:3.0f}%, {amount(self._bytes)}, {amount(rate)}/s,"
            f" {self.found.copied} copied, {self.found.skipped} skipped"
        )
        if self._terminal:
            self._err.write(f"\r[{'#' * int(_BAR * share):{_BAR}}] {text}\x1b[K")
        else:
            self._err.write(f"{text.lstrip()}\n")
        self._err.flush()


def amount(size: float) -> str:
    """Bytes for people."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} {_UNITS[unit]}"


def tell(found: Copied) -> int:
    """Say what was done; the exit status."""
    for text, count in (
        ("tags not copied, as what they name is not there", found.held),
        ("V1 layers copied that have none of their recorded checksums", found.doubtful),
        ("links without data, not copied", found.dangling),
        ("unfinished V1 images, not copied", found.unfinished),
        ("removed from the target" if found.removed else "only in the target (--delete removes)", found.extra),
    ):
        if count:
            sys.stdout.write(f"{text}: {count}\n")
    sys.stdout.write(
        f"{found.copied} objects copied ({amount(found.bytes)}), {found.skipped} skipped, {found.failed} failed\n"
    )
    return 0 if found.whole else 1
