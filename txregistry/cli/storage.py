"""`txregistry storage check`: whether the configured storage works, and how fast."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from uuid import uuid4

from txregistry import config
from txregistry.cli.store import StoreError, fail, finish, open_store
from txregistry.errors import NotFound, StorageError
from txregistry.interfaces import IReconciles, IStorageDriver
from txregistry.storage import layout
from txregistry.storage.factory import EngineError

T = TypeVar("T")

SMALL = b"txregistry storage check\n"
#: More than one part of a multipart upload, in pieces of a MiB.
PIECE, PIECES = bytes(range(256)) * 4096, 12


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    group = commands.add_parser(
        "storage", help="check that the storage works", description="Look at the configured storage."
    )
    group.set_defaults(show=group)
    inner = group.add_subparsers(title="commands", metavar="COMMAND")
    checking = inner.add_parser(
        "check",
        help="write, list, read and remove through the configured engine",
        description="Write a small object and one of 12 MiB below _txregistry/tmp, list, read and remove them, and say"
        " how long each step took. Exit status 1 and one line if one fails; what was written is removed then too.",
    )
    checking.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="default: $DOCKER_REGISTRY_CONFIG, else config.yml in the working directory, else one under /etc",
    )
    checking.add_argument("--flavor", "-f", help="default: $SETTINGS_FLAVOR, else dev")
    checking.set_defaults(run=check)


def check(options: argparse.Namespace) -> int:
    """Try all that a registry does with its storage."""
    try:
        storage = config.load(options.file, options.flavor, os.environ, os.getcwd()).storage
        driver: Any = open_store(storage.engine, storage.path, storage.keys)
    except (config.ConfigError, EngineError) as error:
        return fail(str(error))
    trial = Trial(driver)
    try:
        driver.prepare()
        trial.run()
    except (StorageError, StoreError) as error:
        line = error.reason or str(error) if isinstance(error, StorageError) else str(error)
        return fail(f"{trial.doing}{line}")
    finally:
        trial.clear()
        finish(_wait(driver.close()))
    return 0


class Trial:
    """The steps, each timed and told; `doing` is the one that is under way."""

    def __init__(self, driver: IStorageDriver) -> None:
        self.doing = ""
        self._driver = driver
        self._small, self._large, self._partial = (layout.probe(str(uuid4())) for _ in range(3))

    def _step(self, name: str, action: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do one thing, and print how long it took."""
        self.doing = f"{name}: "
        begin = time.perf_counter()
        result = finish(action())
        sys.stdout.write(f"{name:<24}{1000 * (time.perf_counter() - begin):8.1f} ms\n")
        return result

    def run(self) -> None:
        """All steps; StorageError when one fails or finds something else than it should."""
        driver, small, large = self._driver, self._small, self._large
        self._step("small object written", lambda: _wait(driver.put(small, SMALL)))
        self._step("small object found", self._find)
        data, _ = self._step("small object read", lambda: _wait(driver.read(small, len(SMALL))))
        self._expect(small, data == SMALL)
        self._step("12 MiB written", self._upload)
        self._step("12 MiB read", self._download)
        self._step("small object removed", lambda: _wait(driver.remove(small)))
        self._step("12 MiB removed", lambda: _wait(driver.remove(large)))
        self._step("removal seen", self._find_nothing)
        if IReconciles.providedBy(driver):
            self._step("12 MiB through Glance", lambda: _wait(IReconciles(driver).probe(PIECE * PIECES)))

    @staticmethod
    def _expect(path: str, fine: bool) -> None:
        if not fine:
            raise StorageError(path, "what is there is not what was written")

    async def _names(self) -> set[str]:
        names: set[str] = set()
        cursor: str | None = None
        while True:
            page = await self._driver.list(layout.TMP, cursor)
            names.update(entry.name for entry in page.entries)
            cursor = page.cursor
            if cursor is None:
                return names

    async def _find(self) -> None:
        self._expect(layout.TMP, self._small.rpartition("/")[2] in await self._names())

    async def _find_nothing(self) -> None:
        for path in (self._small, self._large):
            with suppress(NotFound):
                await self._driver.stat(path)
                raise StorageError(path, "it is still there")

    async def _upload(self) -> None:
        partial = await self._driver.partial(self._partial, create=True)
        try:
            for number in range(PIECES):
                await partial.write([PIECE], number * len(PIECE))
            await partial.checkpoint(b"")
            await partial.commit(self._large)
        finally:
            await partial.close()

    async def _download(self) -> None:
        reader = await self._driver.open(self._large)
        try:
            pieces = [piece async for piece in reader.chunks(0, reader.size)]
        finally:
            reader.close()
        self._expect(self._large, b"".join(pieces) == PIECE * PIECES)

    def clear(self) -> None:
        """Remove what a failed step may have left; nothing that cannot be removed is worth a word by now."""
        for path in (self._small, self._large, self._partial):
            with suppress(StorageError, StoreError):
                finish(_wait(self._driver.remove(path)))


async def _wait(deferred: Any) -> Any:
    return await deferred
