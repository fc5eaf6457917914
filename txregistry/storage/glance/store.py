"""That a project of Glance belongs to one store: two that know nothing of each other would undo each other's work.

A mark in Glance, an image without bytes, tells which store it is; the store has the same id in its alternate. So
several servers may share both, and one with an alternate of its own is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred, execute, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound, StorageError, Unavailable
from txregistry.interfaces import IStorageDriver
from txregistry.storage.glance.adoption import SCANNED
from txregistry.storage.glance.client import Glance, Image
from txregistry.storage.glance.options import GlanceOptions
from txregistry.storage.glance.records import HOME
from txregistry.storage.openstack.http import Http
from txregistry.storage.openstack.tokens import Refused

T = TypeVar("T")

STORE = f"{HOME}/store"
KIND, ID, HOST = "txregistry", "txregistry_store", "txregistry_host"

_log = Logger()


class InPlace:
    """A pool that runs each job at once, and a clock that calls nobody."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run a job."""
        result: Deferred[T] = execute(function, *args)
        return result

    run_small = run

    def stop(self) -> Deferred[None]:
        """There is nothing to wait for."""
        return succeed(None)


class InUse(StorageError):
    """The project belongs to another store."""


async def claim(client: Glance, alternate: IStorageDriver) -> None:
    """Let the project be that of this store. InUse if it is another's."""
    mine = await _id(alternate)
    marks = await client.find({KIND: "store"})
    if not marks:
        properties = {KIND: "store", ID: mine, HOST: socket.gethostname(), "name": "txregistry"}
        made = await client.create(str(uuid4()), properties)
        marks = await client.find({KIND: "store"})  # another may have been made at the same moment; the older counts
        if marks and marks[0].properties.get(ID) != mine:
            await client.delete(made.id)
    if marks and marks[0].properties.get(ID) != mine:
        raise _in_use(marks[0])


def _in_use(mark: Image) -> InUse:
    host = mark.properties.get(HOST, "another machine")
    return InUse(
        "",
        f"Glance's project belongs to a store that has another alternate (since {mark.created}, on {host}); servers"
        f" that share it need one storage_alternate that all of them reach. If that store is no more, delete the"
        f" image {mark.id}",
    )


async def _id(alternate: IStorageDriver) -> str:
    """What tells this store from others."""
    while True:
        try:
            data, _ = await alternate.read(STORE, 100)
            return data.decode("ascii", "replace")
        except NotFound:
            pass
        try:
            await alternate.put(STORE, str(uuid4()).encode("ascii"), if_absent=True)
        except LostRace:
            continue


def look_at_start(options: GlanceOptions, http: Http, alternate: IStorageDriver) -> None:
    """See before anything is served that Glance answers, and is ours. StorageError with one line. Blocks.

    Both are of the kind whose every coroutine ends at once. Where Glance served before, its silence is only logged:
    the alternate serves meanwhile.
    """
    if options.missing:
        raise Refused("", f"storage: glance needs {' and '.join(options.missing)}")
    outcome: list[Failure | None] = []
    start(_look(options.client(http), alternate)).addBoth(outcome.append)
    if not outcome:
        raise Unavailable("", "the alternate cannot be looked into at the start")
    if outcome[0] is not None:
        outcome[0].raiseException()


async def _look(client: Glance, alternate: IStorageDriver) -> None:
    try:
        await client.check()
        await claim(client, alternate)
    except (Refused, InUse):
        raise
    except Unavailable as error:
        try:
            await alternate.stat(SCANNED)
        except NotFound:
            raise error from None
        _log.warn("{reason}; the alternate serves until Glance answers", reason=error.reason)
    finally:
        await client.close()
