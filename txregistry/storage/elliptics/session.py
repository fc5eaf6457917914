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
from txregistry.storage.elliptics.connection import Address, Connection, Lost, Refused, Silent, detect
from txregistry.storage.elliptics.wire import Attributes, Dialect

#: For how long a server that did not even take a connection is not asked again, in seconds.
QUIET = 5.0


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
    `checksums` servers neither make nor verify any. `log` takes a level, as the client's `verbosity` counts them, and
    a line.
    """

    nodes: tuple[Address, ...]
    namespace: str = "DOCKER"
    timeout: float = 60.0
    check: float = 60.0
    dialects: tuple[Dialect, ...] = wire.DIALECTS
    checksums: bool = True
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

    def connect(self, group: int) -> Connection:
        """A new connection to a server of the group. Lost."""
        reasons = []
        for address in self._candidates(group):
            try:
                connection = self._open(address)
            except Lost as error:
                reasons.append(str(error))
                continue
            if group in connection.peer.groups:
                return connection
            connection.close()
            reasons.append(f"{address[0]}:{address[1]} holds {connection.peer.groups}")
        reason = f"group {group}: {'; '.join(reasons) or 'no server that answers'}"
        self.options.log(1, reason)
        raise Lost(reason)

    def _candidates(self, group: int) -> list[Address]:
        """The servers to ask: those that held the group, then those of which nothing is known, then the rest."""
        now = time.monotonic()
        with self._lock:
            awake = [node for node in self.options.nodes if self._quiet.get(node, 0.0) <= now]
            known = {node: groups for node, (groups, until) in self._groups.items() if until > now}
        return sorted(awake, key=lambda node: 1 if node not in known else 0 if group in known[node] else 2)

    def _open(self, address: Address) -> Connection:
        options = self.options
        with self._lock:
            known = self._dialect.get(address, self._latest)
        # What worked, here or with another server, comes first; this one may have been replaced by a later version.
        dialects = (
            options.dialects if known is None else (known, *(d for d in options.dialects if d is not known))
        )
        try:
            connection = detect(address, dialects, options.timeout, options.timeout)
        except Silent:
            with self._lock:
                self._quiet[address] = time.monotonic() + QUIET
            raise
        with self._lock:
            self._dialect[address] = self._latest = connection.dialect
            self._groups[address] = connection.peer.groups, time.monotonic() + options.check
        return connection


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
        return Got(bodies[0][wire.IO_SIZE :], found.total_size, found.seconds)

    def write(
        self, group: int, key: str, data: Sequence[bytes], flags: int = 0, parent: bytes = bytes(64)
    ) -> None:
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

    def close(self) -> None:
        """Close the idle ones; the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
