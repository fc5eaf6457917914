"""A blocking session: one socket for each group, used by one job at a time; and the pool that lends sessions.

A group's requests go only to a server that names the group in its handshake. An old server carries out a request for
a group that it does not know in its own store, and says that it went well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from txregistry.errors import StorageError
from txregistry.storage.elliptics import index, wire
from txregistry.storage.elliptics.connection import (
    Connection,
    Lost,
    Refused,
    Silent,
    Unreachable,
    detect,
)
from txregistry.storage.elliptics.wire import Address, Attributes, Dialect

#: For how long a server that did not even take a connection is not asked again, in seconds.
QUIET = 5.0

#: How many servers are remembered that others have named.
MOST_NEIGHBOURS = 256

#: Of how many objects is remembered how long they are.
MOST_SIZES = 4096


def _silence(_level: int, _line: str) -> None:
    """A log that nobody reads."""


@dataclass(frozen=True, slots=True)
class Got:
    """The answer to a READ: some bytes, the size of the whole object, and when it was written, 0 if that is lost."""

    data: bytes
    total: int
    modified: float


@dataclass(frozen=True)
class Options:
    """How to reach the servers; `timeout` and `check` are in seconds.

    `check` is how long an idle connection, and what is known of the groups of a server, is trusted. Without
    `checksums` servers neither make nor verify any; with `discover` they are asked for others. `log` takes a level, as
    the client's `verbosity` counts them, and a line.
    """

    nodes: tuple[Address, ...]
    namespace: str = "DOCKER"
    timeout: float = 60.0
    check: float = 60.0
    dialects: tuple[Dialect, ...] = wire.DIALECTS
    checksums: bool = True
    discover: bool = True
    log: Callable[[int, str], None] = _silence


class Routes:
    """What is known of the servers, shared by all sessions: dialects, groups, and who does not answer."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._dialect: dict[Address, Dialect] = {}
        self._latest: Dialect | None = None
        self._groups: dict[Address, tuple[tuple[int, ...], float]] = {}
        self._quiet: dict[Address, float] = {}
        self._neighbours: tuple[Address, ...] = ()
        self._mute: set[Address] = set()  # that do not tell their neighbours
        self._sizes: dict[tuple[int, str], int] = {}

    def connect(self, group: int) -> Connection:
        """A new connection to a server of the group. Lost; Unreachable if nobody listens where it may be."""
        reasons = []
        is_gone = True
        tried: set[Address] = set()
        # A server that is asked in vain may name others.
        while left := [node for node in self._candidates(group) if node not in tried]:
            address = left[0]
            tried.add(address)
            try:
                connection = self._open(address)
            except Lost as error:
                reasons.append(str(error))
                is_gone = is_gone and isinstance(error, Unreachable) and error.refused
                continue
            if group in connection.peer.groups:
                return connection
            with self._lock:  # not for long: it may have begun a moment ago, and hold more then
                until = time.monotonic() + min(self.options.check, QUIET)
                self._groups[address] = connection.peer.groups, until
            self._learn(connection)
            connection.close()
            reasons.append(f"{address[0]}:{address[1]} holds {connection.peer.groups}")
        reason = f"group {group}: {'; '.join(reasons) or 'no server that answers'}"
        self.options.log(1, reason)
        with self._lock:
            is_gone = is_gone and bool(reasons) and not self._quiet
        if is_gone:
            raise Unreachable(reason, refused=True)
        raise Lost(reason)

    def _candidates(self, group: int) -> list[Address]:
        """The servers to ask: those that held the group, then those of which nothing is known."""
        now = time.monotonic()
        with self._lock:
            nodes = (*self.options.nodes, *self._neighbours)
            awake = [node for node in nodes if self._quiet.get(node, 0.0) <= now]
            known = {node: groups for node, (groups, until) in self._groups.items() if until > now}
        possible = [node for node in awake if node not in known or group in known[node]]
        return sorted(possible, key=lambda node: node not in known)

    def _learn(self, connection: Connection) -> None:
        """Ask a server for those that it knows, as of a group none may have been configured."""
        if not self.options.discover or connection.address in self._mute:
            return
        try:
            found = connection.neighbours()
        except (Lost, Refused):
            self._mute.add(connection.address)
            return
        with self._lock:
            new = [node for node in found if node not in (*self.options.nodes, *self._neighbours)]
            self._neighbours = (*self._neighbours, *new)[-MOST_NEIGHBOURS:]

    def _open(self, address: Address) -> Connection:
        options = self.options
        with self._lock:
            now = time.monotonic()
            if address in self._quiet:
                if self._quiet[address] > now:
                    raise Lost(f"{address[0]}:{address[1]} did not answer a moment ago")
                self._quiet[address] = now + QUIET  # one asks, and nobody else waits with it
            known = self._dialect.get(address, self._latest)
        try:
            connection = detect(address, options.dialects, options.timeout, options.timeout, known)
        except Lost as error:
            with self._lock:
                if isinstance(error, Silent) or (isinstance(error, Unreachable) and error.silent):
                    self._quiet[address] = time.monotonic() + QUIET
                else:
                    self._quiet.pop(address, None)
            raise
        with self._lock:
            self._quiet.pop(address, None)
            self._dialect[address] = self._latest = connection.dialect
            self._groups[address] = connection.peer.groups, time.monotonic() + options.check
        return connection

    def size(self, group: int, key: str) -> int:
        """How long an object was when it was read last, 0 if that is not remembered."""
        with self._lock:
            return self._sizes.get((group, key), 0)

    def remember_size(self, group: int, key: str, size: int) -> None:
        """Remember how long an object is."""
        with self._lock:
            if len(self._sizes) >= MOST_SIZES:
                self._sizes.clear()
            self._sizes[group, key] = size


class Session:
    """The sockets of one job. Every verb raises Refused or Lost."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._namespace = routes.options.namespace
        self._connections: dict[int, Connection] = {}
        self._down: dict[int, Lost] = {}

    def begin(self) -> None:
        """Another job begins: drop what broke meanwhile, and ask again for what was down."""
        self._down.clear()
        oldest = time.monotonic() - self._routes.options.check
        for group, connection in list(self._connections.items()):
            if connection.used < oldest or not connection.alive:
                connection.close()
                del self._connections[group]

    def close(self) -> None:
        """Close all sockets."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def connection(self, group: int) -> Connection:
        """The connection to a group; one that cannot be reached stays down for the rest of the job."""
        if group in self._down:
            raise self._down[group]
        found = self._connections.get(group)
        if found is None or found.closed:
            try:
                found = self._connections[group] = self._routes.connect(group)
            except Lost as error:
                self._down[group] = error
                raise
        return found

    def _call(
        self, group: int, id_: bytes, command: int, parts: Sequence[bytes] = (), longest: int | None = None
    ) -> list[bytes]:
        connection = self.connection(group)
        try:
            if longest is None:
                return connection.call(id_, group, command, parts)
            return connection.call(id_, group, command, parts, longest)
        except Lost as error:
            self._routes.options.log(1, f"group {group}: {error}")
            if isinstance(error, Silent):  # the next request would only wait as long again
                self._down[group] = error
            raise
        except Refused as error:
            if error.status == wire.EILSEQ:
                self._routes.options.log(0, f"group {group}: the record {id_.hex()} is damaged")
            raise

    def read(self, group: int, key: str, offset: int, size: int, checked: bool = True) -> Got:
        """At most `size` bytes, at least one wanted; `checked` lets the server verify the whole record first.

        Never ask at or behind the end: one back-end does not answer that at all.
        """
        assert size > 0, "a size of 0 would mean the whole object"
        id_ = wire.identify(self._namespace, key)
        checked = checked and self._routes.options.checksums
        attributes = Attributes(id_, 0 if checked else wire.IO_NOCSUM, offset, size)
        limit = size + wire.IO_SIZE
        bodies = self._call(group, id_, wire.READ, [wire.pack_attributes(attributes)], limit)
        try:
            found = wire.unpack_attributes(bodies[0] if bodies else b"")
        except wire.Broken as error:
            self._connections[group].close()
            self._down[group] = Lost(str(error))
            raise self._down[group] from error
        got = Got(bodies[0][wire.IO_SIZE :], found.total_size, found.seconds)
        if got.total > offset + len(got.data):
            self._routes.remember_size(group, key, got.total)
        return got

    def reaches(self, group: int, key: str, offset: int) -> bool:
        """Whether an object is longer than `offset`, so that it can be read there."""
        if not offset or self._routes.size(group, key) > offset:
            return True
        return self.read(group, key, 0, 1, checked=False).total > offset

    def write(self, group: int, key: str, data: Sequence[bytes], flags: int = 0, parent: bytes = bytes(64)) -> None:
        """Replace an object, or append to it. `data` is never empty: an empty write stores nothing."""
        size = sum(map(len, data))
        assert size, "an empty write stores nothing"
        id_ = wire.identify(self._namespace, key)
        if not self._routes.options.checksums:
            flags |= wire.IO_NOCSUM
        attributes = Attributes(id_, flags, 0, size, time.time(), 0, parent)
        self._call(group, id_, wire.WRITE, [wire.pack_attributes(attributes), *data])

    def remove(self, group: int, key: str) -> None:
        """Remove an object; that it was not there is no failure (one back-end tells, the other does not)."""
        id_ = wire.identify(self._namespace, key)
        try:
            self._call(group, id_, wire.DEL, [wire.pack_attributes(Attributes(id_))])
        except Refused as error:
            if error.status != wire.ENOENT:
                raise

    def has_indexes(self, group: int) -> bool:
        """Whether the server keeps index tables. Lost."""
        connection = self.connection(group)
        return connection.dialect.indexes and connection.peer.shards > 0

    def set_indexes(self, group: int, key: str, names: Sequence[str], data: bytes) -> None:
        """Let exactly these indexes have the object, each with `data`; none takes it out of all."""
        layout = index.layout_of(self.connection(group).peer.version)
        id_ = wire.identify(self._namespace, key)
        entries = [(wire.identify(self._namespace, name), data) for name in names]
        body = index.update_request(layout, id_, group, entries)
        self._call(group, index.object_table(id_), wire.INDEXES_UPDATE, [body])

    def find_indexes(self, group: int, names: Sequence[str]) -> list[bytes]:
        """What the first of the indexes says of each object that all of them have."""
        peer = self.connection(group).peer
        ids = [wire.identify(self._namespace, name) for name in names]
        header, body = index.find_request(index.layout_of(peer.version), ids, group, peer.shards)
        try:
            bodies = self._call(group, header, wire.INDEXES_FIND, [body])
        except Refused as error:
            if error.status == wire.ENOENT:
                return []
            raise
        firsts = {index.index_table(ids[0], shard, peer.shards) for shard in range(peer.shards)}
        try:
            return [data for answer in bodies for data in index.found(answer, firsts)]
        except wire.Broken as error:
            self._connections[group].close()
            self._down[group] = Lost(str(error))
            raise self._down[group] from error


class Sessions:
    """The sessions that are idle, at most `most`; each is lent to one job."""

    def __init__(self, options: Options, most: int = 12) -> None:
        self.options = options
        self._routes = Routes(options)
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._closed = False

    @contextmanager
    def lend(self) -> Iterator[Session]:
        """A session for a job."""
        with self._lock:
            session = self._idle.pop() if self._idle else Session(self._routes)
        keep = False
        try:
            session.begin()
            yield session
            keep = True
        except (StorageError, Lost, Refused):
            keep = True  # what is out of step was closed already
            raise
        finally:
            with self._lock:
                keep = keep and not self._closed and len(self._idle) < self._most
                if keep:
                    self._idle.append(session)
            if not keep:
                session.close()

    def connect(self, group: int) -> Connection:
        """A connection to a group that belongs to whoever asks. Lost."""
        return self._routes.connect(group)

    def close(self) -> None:
        """Close the idle ones; the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
