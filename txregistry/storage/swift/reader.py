"""An object of Swift that is read, in one version of it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from txregistry.concurrency import start
from txregistry.interfaces import IReader
from txregistry.storage.openstack.http import Stream
from txregistry.storage.openstack.reader import Opens, StreamChunks, StreamReader
from txregistry.storage.swift.container import Container


def _opens(container: Container, path: str, etag: str | None) -> Opens:
    async def again(begin: int, stop: int) -> tuple[Stream, int]:
        return (await container.open(path, begin, stop, etag)).stream, 0

    return again


def segment_chunks(container: Container, name: str, size: int) -> StreamChunks:
    """The bytes of a segment, of which there is only one version."""
    return StreamChunks(name, _opens(container, name, None), None, 0, size)


def open_reader(container: Container, path: str) -> Deferred[IReader]:
    """An object that is there. NotFound."""

    async def opening() -> IReader:
        opened = await container.open(path)
        seen = opened.seen
        reader: IReader = StreamReader(
            path, seen.size, seen.modified, opened.stream, _opens(container, path, seen.etag)
        )
        return reader

    return start(opening())
