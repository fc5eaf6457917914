"""A whole registry over the local driver, driven by an agent in memory: what tests of crashes and faults share."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import TestCase

from twisted.internet.task import Clock
from twisted.web.resource import IResource

from tests.web.v2.base import sha256
from txregistry.concurrency import Shields
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.model.digest import Digest
from txregistry.storage import layout
from txregistry.storage.disk import Disk
from txregistry.storage.local import LocalDriver
from txregistry.storage.pool import Lanes
from txregistry.testing.agent import Agent, Response
from txregistry.testing.pools import ImmediatePool, result_of
from txregistry.web.app import make_resource

#: Whether all is to be tried that by default is sampled.
LONG = bool(os.environ.get("TXREGISTRY_LONG"))

#: A request that has been answered: method, target, headers, body.
Ask = Callable[..., Response]


def memory_folder(case: TestCase) -> str:
    """A folder for many small trees: in memory, where there is a file system for that. It goes with the test."""
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    case.addCleanup(shutil.rmtree, folder)
    return folder


class WallClock(Clock):
    """What the local driver compares with times of files."""

    def seconds(self) -> float:
        return time.time()


class _Front:
    """Stands for a registry that can be exchanged, as the routes over it take long to make."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)


_fronts: dict[str, tuple[_Front, IResource]] = {}


def resource_for(slot: str, registry: Registry) -> IResource:
    """The V2 routes over a registry; the one that had the slot before is not served any more."""
    if slot not in _fronts:
        front: Any = _Front(registry)
        _fronts[slot] = front, make_resource(front)
    _fronts[slot][0].registry = registry
    return _fronts[slot][1]


class Store:
    """A registry over the directory `root`, as a process that starts anew finds it, and an agent to talk to it."""

    def __init__(self, slot: str, root: str, pool: Lanes | None = None, disk: Disk | None = None) -> None:
        driver = LocalDriver(root, pool or ImmediatePool(), WallClock(), disk)
        driver.prepare()
        self.clock = Clock()
        self.registry = Registry(driver, Policy(), Shields(), self.clock)
        self.agent = Agent(resource_for(slot, self.registry), self.clock)


def asking(store: Store) -> Ask:
    """A function that sends one request and has its response at once, as with an `ImmediatePool`."""

    def ask(method: str, target: str, headers: Any = None, body: bytes = b"", **how: Any) -> Response:
        return result_of(store.agent.request(method, target, headers, body, **how))

    return ask


def push_blob(ask: Ask, name: str, data: bytes) -> Response:
    """A blob by POST and PUT; the response that was not as it should be, else the last."""
    begun = ask("POST", f"/v2/{name}/blobs/uploads/")
    if begun.code != 202:
        return begun
    return ask("PUT", f"{begun.header('Location')}?digest={sha256(data)}", body=data)


def stored_blobs(root: str) -> Iterator[tuple[Digest, str]]:
    """Digest and file of each blob in the store."""
    for folder, _, files in os.walk(os.path.join(root, layout.BLOBS)):
        if "data" in files:
            algorithm, _, hex_ = os.path.relpath(folder, os.path.join(root, layout.BLOBS)).split("/")
            yield Digest(algorithm, hex_), os.path.join(folder, "data")


def foreign_blobs(root: str) -> list[str]:
    """The blobs whose bytes are not those of their digest."""
    wrong = []
    for digest, path in stored_blobs(root):
        with open(path, "rb") as file:
            if not digest.matches(file.read()):
                wrong.append(str(digest))
    return wrong


def open_files(root: str) -> list[str]:
    """The files below `root` that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.startswith(os.path.abspath(root)):
            found.append(target)
    return found
