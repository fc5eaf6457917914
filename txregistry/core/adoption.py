"""What is broken in a store that other servers wrote, found without changing anything.

V2 repositories are looked at here, V1 in `core/v1/adoption.py`. The bytes of layers and blobs are not read.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from txregistry.core.links import entries, is_revision
from txregistry.errors import DigestInvalid, NotFound, StorageError, TooLarge
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.storage import layout

T = TypeVar("T")

#: Longer than any digest.
_LINK_LIMIT = 512

#: Kinds of faults.
UNREADABLE = "cannot be read"
LINK_DAMAGED = "damaged link"
REVISION_WITHOUT_DATA = "revision without data"
TAG_TO_NOWHERE = "tag to nowhere"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something broken: its kind, where it lies, relative to the root, and what exactly is wrong, or nothing more."""

    kind: str
    path: str
    detail: str = ""


class Watcher(Protocol):
    """Who is told how a look at a store goes on."""

    def expect(self, count: int) -> None:
        """So many more steps are to come."""

    def step(self) -> None:
        """One is done."""

    def saw(self, noun: str) -> None:
        """Something was looked at; `noun` is its kind in the plural."""

    def fault(self, fault: Fault) -> None:
        """Something is broken."""

    def repaired(self, path: str) -> None:
        """A file that was missing is made, or would be."""


async def guarded(watcher: Watcher, path: str, look: Awaitable[T]) -> T | None:
    """The result of a look; None, and a fault, where the store does not let itself be read."""
    try:
        return await look
    except StorageError as error:
        watcher.fault(Fault(UNREADABLE, error.path or path, error.reason or type(error).__name__))
        return None


class V2Check:
    """A look at all V2 repositories of a store."""

    def __init__(self, driver: IStorageDriver, watcher: Watcher) -> None:
        self._driver = driver
        self._watcher = watcher
        self._found: list[RepositoryName] = []

    async def find(self) -> None:
        """Find out what there is to look at."""
        self._found = await guarded(self._watcher, layout.REPOSITORIES, self._names()) or []
        self._watcher.expect(len(self._found))

    async def run(self) -> None:
        """Look at what was found, and tell the watcher of every fault."""
        for name in self._found:
            await guarded(self._watcher, layout.repository(name), self._repository(name))
            self._watcher.saw("V2 repositories")
            self._watcher.step()

    async def _names(self) -> list[RepositoryName]:
        """All repositories, those included whose names nobody could ask for."""
        found = []
        waiting = [""]
        while waiting:
            name = waiting.pop()
            path = f"{layout.REPOSITORIES}/{name}" if name else layout.REPOSITORIES
            directories = [child for child, is_directory in await entries(self._driver, path) if is_directory]
            if name and not {"_layers", "_manifests"}.isdisjoint(directories):
                found.append(RepositoryName(name))
            waiting += [f"{name}/{child}".lstrip("/") for child in directories if not child.startswith("_")]
        return sorted(found)

    async def _repository(self, name: RepositoryName) -> None:
        await self._links(layout.layers(name))
        for digest, path in await self._links(f"{layout.manifests(name)}/revisions"):
            self._watcher.saw("revisions")
            if not await self._has(layout.blob_data(digest)):
                self._watcher.fault(Fault(REVISION_WITHOUT_DATA, path, layout.blob_data(digest)))
        for tag, is_directory in await entries(self._driver, layout.tags(name)):
            path = f"{layout.tags(name)}/{tag}"
            self._watcher.saw("V2 tags")
            if not is_directory:
                self._watcher.fault(Fault(TAG_TO_NOWHERE, path, "a file where only tags may be"))
                continue
            await guarded(self._watcher, path, self._tag(name, f"{path}/current/link"))

    async def _tag(self, name: RepositoryName, path: str) -> None:
        if not await self._has(path):
            self._watcher.fault(Fault(TAG_TO_NOWHERE, path, "not there"))
            return
        digest = await self._read_link(path)
        if digest is not None and not await is_revision(self._driver, name, digest):
            self._watcher.fault(Fault(TAG_TO_NOWHERE, path, f"{digest} is no manifest of the repository"))

    async def _links(self, path: str) -> list[tuple[Digest, str]]:
        """The links `<algorithm>/<hex>/link` below a directory; of damaged ones a fault."""
        found = []
        for algorithm, is_directory in await entries(self._driver, path):
            if not is_directory:
                continue
            for encoded, is_link in await entries(self._driver, f"{path}/{algorithm}"):
                link = f"{path}/{algorithm}/{encoded}/link"
                # What was deleted leaves its directory behind.
                if not is_link or not await self._has(link):
                    continue
                digest = await self._read_link(link)
                if digest is None:
                    continue
                if digest.algorithm == algorithm and digest.hex != encoded:
                    self._watcher.fault(Fault(LINK_DAMAGED, link, f"names another digest, {digest}"))
                found.append((digest, link))
        return found

    async def _read_link(self, path: str) -> Digest | None:
        """The digest in a link, which must be that and nothing else: others answer 500 to a newline."""
        try:
            data, _ = await self._driver.read(path, _LINK_LIMIT)
            return Digest.parse(data.decode("ascii"))
        except (DigestInvalid, UnicodeDecodeError, TooLarge, NotFound):
            self._watcher.fault(Fault(LINK_DAMAGED, path, "not a digest"))
            return None

    async def _has(self, path: str) -> bool:
        try:
            return not (await self._driver.stat(path)).is_directory
        except NotFound:
            return False
