"""A server of the Elliptics protocol: threads on the loopback interface, records in memory, every quirk that is known.

It is written from the protocol alone, by offsets, and shares no code with the client. Groups are stores of their own,
which outlive the server: `stop` kills it with all its connections, `start` brings it back on the same port.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Where each field of a header lies, for each length; a size of 4 or 8 bytes follows the offset.
FIELDS = {
    104: {"status": 72, "cmd": 76, "flags": 80, "trans": 88, "size": 96},
    108: {"status": 76, "cmd": 80, "flags": 84, "trans": 92, "size": 100},
    120: {"status": 76, "cmd": 80, "flags": 96, "trans": 104, "size": 112},
}
VERSIONS = {
    "2.24": ((2, 24, 15, 18), 104),
    "2.25": ((2, 25, 4, 0), 104),
    "2.25.6": ((2, 25, 6, 0), 108),
    "2.26": ((2, 26, 11, 1), 120),
    "3.0": ((3, 0, 0, 1), 120),
}
REVERSE_LOOKUP, WRITE, READ, DEL, UPDATE, FIND = 2, 4, 5, 11, 20, 22
LOOKUP, ROUTE_LIST, DIRECT = 1, 8, 8
IO = 208
SHARDS = 2
ENOENT, E2BIG, EPERM, EINVAL, EBADFD, EILSEQ, ENOTSUP = 2, 7, 1, 22, 77, 84, 95


@dataclass
class Record:
    data: Any  # bytes, or what grows in its place
    time: tuple[int, int]
    checked: bool = True
    damaged: bool = False
    prepared: bool = False


@dataclass
class Store:
    """What one group holds. `indexes` maps a shard's table to what it says of each object."""

    records: dict[bytes, Record] = field(default_factory=dict)
    indexes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    tables: dict[bytes, set[bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def copy(self) -> Store:
        """As it is now, as a power cut of its machine would leave it."""
        with self.lock:
            return Store(dict(self.records), {t: dict(o) for t, o in self.indexes.items()}, dict(self.tables))


class Failed(Exception):
    def __init__(self, errno: int) -> None:
        self.errno = errno


#: What a hook may ask for instead of an answer.
CLOSE_BEFORE, CLOSE_AFTER, SILENT = "close before", "close after", "silent"


class Server:
    """One node. `hook(command, group, body)` runs before each request: it may return one of the words above, a number
    to be answered as a negative status, or None; and may sleep."""

    def __init__(
        self, version: str = "2.24", groups: dict[int, Store] | None = None, filesystem: bool = False, port: int = 0
    ) -> None:
        self.version, self.length = VERSIONS[version]
        self.at = FIELDS[self.length]
        self.groups = groups or {1: Store()}
        self.filesystem = filesystem
        self.port = port
        self.hook: Callable[[int, int, bytes], object] | None = None
        self.cut_reads: int | None = None  # close after so many bytes of an answer to READ
        self.cut_requests: int | None = None  # close after so many bytes of the body of a request that has more
        self.large: Callable[[bytes], Any] = bytearray  # how what grows beyond a MiB is kept
        self.requests: list[tuple[int, int, int, int]] = []  # command, io flags, offset, size of the data
        self.reads_behind_the_end = 0
        self.silent_to_all = False
        self.neighbours: list[Server] = []  # that joined, as a list of routes tells
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.connections = 0

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> Server:
        assert self._listener is None
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)
        return self

    def leave(self) -> None:
        """Take no more connections; for a hook, whose thread cannot wait for its own end."""
        if self._listener is not None:
            _shut(self._listener)

    def stop(self) -> None:
        """Die at once."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _shut(listener)
        with self._lock:
            opened, self._open = self._open, set()
        for connection in opened:
            _shut(connection)
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(10)

    @property
    def is_up(self) -> bool:
        return self._listener is not None

    @property
    def node(self) -> tuple[str, int, int]:
        return "127.0.0.1", self.port, 2

    def _spawn(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._listener is not listener:
                    _shut(connection)
                    return
                self._open.add(connection)
                self.connections += 1
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            while True:
                header = _exactly(connection, self.length)
                size = self._get(header, "size", 8)
                if self.cut_requests is not None and size > self.cut_requests:
                    _exactly(connection, self.cut_requests)
                    return
                body = _exactly(connection, size)
                if not self._request(connection, header, body):
                    return
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            _shut(connection)

    # -- frames --------------------------------------------------------------------------------------------------

    def _get(self, header: bytes, name: str, size: int) -> int:
        return int.from_bytes(header[self.at[name] : self.at[name] + size], "little", signed=name in ("status", "cmd"))

    def answer(self, header: bytes, status: int = 0, body: bytes = b"", more: bool = False, id_: bytes = b"") -> bytes:
        """A reply to a request with this header."""
        reply = bytearray(header)
        if id_:
            reply[:64] = id_
        trans = self._get(header, "trans", 8)
        flags = self._get(header, "flags", 8) & ~(3 | DIRECT)
        if more:
            flags |= 3
        if self.version >= (2, 26, 3, 8):
            flags |= 512
        else:
            trans |= 1 << 63
        for name, value, size in (("status", status, 4), ("flags", flags, 8), ("trans", trans, 8)):
            reply[self.at[name] : self.at[name] + size] = value.to_bytes(size, "little", signed=name == "status")
        reply[self.at["size"] : self.at["size"] + 8] = len(body).to_bytes(8, "little")
        return bytes(reply) + body

    def _request(self, connection: socket.socket, header: bytes, body: bytes) -> bool:
        command = self._get(header, "cmd", 4)
        (group,) = struct.unpack_from("<I", header, 64)
        if command == REVERSE_LOOKUP:
            return self._shake(connection, header)
        if command in (READ, WRITE, DEL) and len(body) >= IO:
            self.requests.append((command, *struct.unpack_from("<IQQ", body, 188)))
        else:
            self.requests.append((command, 0, 0, len(body)))
        wish = self.hook(command, group, body) if self.hook else None
        if wish == CLOSE_BEFORE:
            return False
        if wish == SILENT or self.silent_to_all:
            return True
        try:
            if isinstance(wish, int) and wish:
                raise Failed(-wish)
            answer = self._do(command, group, header, body)
        except Failed as error:
            answer = self.answer(header, -error.errno)
        if wish == CLOSE_AFTER:
            return False
        if answer is None:
            return True
        if command == READ and self.cut_reads is not None and len(answer) > self.cut_reads:
            connection.sendall(answer[: self.cut_reads])
            return False
        connection.sendall(answer)
        return True

    def _shake(self, connection: socket.socket, header: bytes) -> bool:
        if struct.unpack_from("<ii", header) != self.version[:2]:
            return False
        if self.silent_to_all:
            return True
        shards = 0 if self.version[0] == 3 else SHARDS
        reply = bytearray(header)
        reply[:64] = struct.pack("<4i4xi", *self.version, shards).ljust(64, b"\0")
        address = self._address()
        ids = hashlib.sha512(b"%d" % self.port).digest()
        if self.length == 120:
            body = struct.pack("<ii", 1, 1) + address + struct.pack("<i", len(self.groups))
            for backend, group in enumerate(self.groups):
                body += struct.pack("<iiII", backend, group, 0, 1) + ids
            struct.pack_into("<I", reply, 64, 0)
        else:
            body = struct.pack("<i", 1) + address + ids
            struct.pack_into("<I", reply, 64, next(iter(self.groups)))
        connection.sendall(self.answer(bytes(reply), 0, body))
        return True

    def _address(self) -> bytes:
        start = struct.pack("<H", 2) + struct.pack(">H", self.port) + bytes((127, 0, 0, 1))
        return start + b"\xaa" * 20 + struct.pack("<HH", 16, 2)

    def _routes(self, header: bytes) -> bytes:
        """An answer for each node with its ids, or from 2.26 on one for all, and without."""
        nodes = [self, *self.neighbours]
        if self.length == 120:
            body = struct.pack("<ii", 1, len(nodes)) + b"".join(node._address() for node in nodes)
            return self.answer(header, 0, body, more=True) + self.answer(header)
        answers = b""
        for node in nodes:
            reply = bytearray(header)
            struct.pack_into("<I", reply, 64, next(iter(node.groups)))
            body = struct.pack("<i", 1) + node._address() + hashlib.sha512(b"%d" % node.port).digest()
            answers += self.answer(bytes(reply), 0, body, more=True)
        return answers + self.answer(header)

    # -- commands --------------------------------------------------------------------------------------------------

    def _store(self, group: int) -> Store:
        if group in self.groups:
            return self.groups[group]
        if self.length == 120:
            raise Failed(ENOTSUP)
        return next(iter(self.groups.values()))  # as if it were its own

    def _do(self, command: int, group: int, header: bytes, body: bytes) -> bytes | None:
        if command == ROUTE_LIST and self._get(header, "flags", 8) & DIRECT:
            return self._routes(header)
        store = self._store(group)
        id_ = header[:64]
        with store.lock:
            if command in (READ, WRITE, DEL) and (len(body) < IO or body[64:128] != id_):
                raise Failed(EINVAL)
            if command == READ:
                return self._read(store, header, body)
            if command == WRITE:
                return self._write(store, header, body)
            if command == DEL:
                if store.records.pop(id_, None) is None and not self.filesystem:
                    raise Failed(ENOENT)
                return self.answer(header)
            if command == LOOKUP:
                if self.filesystem:
                    raise Failed(EINVAL if id_ in store.records else ENOENT)
                if id_ not in store.records:
                    raise Failed(ENOENT)
                found = self._info(len(store.records[id_].data), header=0)
                return self.answer(header, 0, found, more=True) + self.answer(header)
            if command in (UPDATE, FIND) and self.version[0] < 3:
                return (self._update if command == UPDATE else self._find)(store, header, body)
        raise Failed(ENOTSUP)

    def _read(self, store: Store, header: bytes, body: bytes) -> bytes | None:
        flags, offset, size = struct.unpack_from("<IQQ", body, 188)
        record = store.records.get(header[:64])
        if record is None:
            raise Failed(ENOENT)
        if record.prepared and not self.filesystem:
            if self.length == 120:
                raise Failed(ENOENT)
            return self.answer(header, 0, bytes(160)) + bytes(48)  # out of step
        if record.damaged and record.checked and not flags & 0x100:
            raise Failed(EILSEQ)
        if offset >= len(record.data):
            self.reads_behind_the_end += 1
            if self.filesystem:
                return None
            raise Failed(E2BIG)
        data = record.data[offset : offset + size] if size else record.data[offset:]
        attributes = bytearray(body[:IO])
        struct.pack_into("<QQ", attributes, 144, *((0, 0) if self.filesystem else record.time))
        struct.pack_into("<Q", attributes, 168, len(record.data))
        struct.pack_into("<Q", attributes, 200, len(data))
        return self.answer(header, 0, bytes(attributes) + data)

    def _write(self, store: Store, header: bytes, body: bytes) -> bytes:
        id_, data = header[:64], body[IO:]
        flags, offset, size = struct.unpack_from("<IQQ", body, 188)
        if size != len(data):
            raise Failed(EINVAL)
        old = store.records.get(id_)
        if not data:
            if self.filesystem:
                store.records.pop(id_, None)
                raise Failed(EINVAL)
            if old is None:
                raise Failed(ENOENT)
            return self.answer(header, 0, self._info(len(old.data)))
        if flags & 0x2000 and old is not None and hashlib.sha512(old.data).digest() != body[:64]:
            raise Failed(EBADFD)
        before = old.data if old else b""
        if flags & 0x2:
            data = self._joined(before, data)
        elif offset:
            kept = before[offset + len(data) :] if self.filesystem else b""
            data = before[:offset].ljust(offset, b"\0") + data + kept
        prepared = bool(flags & 0x10) or bool(old and old.prepared and not flags & 0x20)
        # Bytes in the middle of a record that was not prepared break its checksum.
        broken = bool(flags & 0x200 and not flags & 0x30 and not prepared and not self.filesystem)
        time_ = struct.unpack_from("<QQ", body, 144)
        store.records[id_] = Record(data, time_, not flags & 0x100, damaged=broken, prepared=prepared)
        return self.answer(header, 0, self._info(len(data)))

    def _joined(self, before: Any, data: bytes) -> Any:
        """What is appended to often is no longer copied each time."""
        if len(before) < 1 << 20:
            return before + data
        before = self.large(before) if isinstance(before, bytes) else before
        before += data
        return before

    def _info(self, size: int, header: int = 48) -> bytes:
        """Where an object is and how long; an old server counts the header of the record, but not in a LOOKUP."""
        extra = 8 if self.length == 120 else 0
        info = bytes(72 + extra) + struct.pack("<QQQQ", size if extra else size + header, 0, 0, 0)
        return bytes(32) + info + b"/srv/blob/data-0.0\0".ljust(28, b"\0")

    def _layout(self) -> tuple[int, int]:
        """The length of a request and of an entry of indexes."""
        return 136 if self.version >= (2, 25, 4, 1) else 132, 124 if self.version >= (2, 26, 2, 0) else 96

    def _entries(self, body: bytes, at: int) -> tuple[list[tuple[bytes, bytes]], int]:
        request, entry = self._layout()
        (count,) = struct.unpack_from("<Q", body, at + request - 8)
        at += request
        found = []
        for _ in range(count):
            (size,) = struct.unpack_from("<Q", body, at + entry - 8)
            found.append((body[at : at + 64], body[at + entry : at + entry + size]))
            at += entry + size
        return found, at

    def _update(self, store: Store, header: bytes, body: bytes) -> bytes:
        object_id = body[:64]
        assert header[:64] == hashlib.sha512(object_id + b"\0object_table\0").digest()
        entries, _ = self._entries(body, 0)
        shard = int.from_bytes(header[:64], "big") % SHARDS
        new = {index_table(index, shard): data for index, data in entries}
        old = store.tables.get(object_id, set())
        for table in old - set(new):
            store.indexes[table].pop(object_id, None)
        for table, data in new.items():
            store.indexes.setdefault(table, {})[object_id] = data
        store.tables[object_id] = set(new)
        reply = bytes(40) + struct.pack("<Q", 1) + bytes(84)
        return self.answer(header, 0, reply, more=True) + self.answer(header)

    def _find(self, store: Store, header: bytes, body: bytes) -> bytes:
        at, answers = 0, []
        while at < len(body):
            first = body[at : at + 64]
            entries, at = self._entries(body, at)
            tables = [store.indexes.get(table) for table, _ in entries]
            if any(table is None for table in tables):
                continue
            common = sorted(set.intersection(*(set(table or {}) for table in tables)))
            hits = []
            for object_id in common:
                pairs = [b"\x92" + raw(table) + raw((store.indexes[table])[object_id]) for table, _ in entries]
                hits.append(b"\x93\x01" + raw(object_id) + array(pairs))
            answers.append((first, array(hits)))
        if not answers:
            raise Failed(ENOENT)
        return b"".join(
            self.answer(header, 0, answer, more=number < len(answers) - 1, id_=first)
            for number, (first, answer) in enumerate(answers)
        )


def index_table(index: bytes, shard: int) -> bytes:
    table = hashlib.sha512(index + b"\0index_table\0").digest()
    return ((2**32 * shard) // SHARDS).to_bytes(4, "big") + bytes(28) + table[32:]


def raw(data: bytes) -> bytes:
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xda" + struct.pack(">H", len(data))) + data


def array(items: list[bytes]) -> bytes:
    mark = bytes([0x90 | len(items)]) if len(items) < 16 else b"\xdc" + struct.pack(">H", len(items))
    return mark + b"".join(items)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(1 << 20, size - len(data)))
        if not piece:
            raise ConnectionResetError
        data += piece
    return bytes(data)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def write_as_original(store: Store, path: str, data: bytes, namespace: str = "DOCKER") -> None:
    """What the original driver's `put_content` left in a group: the object, markers above it, and their indexes."""

    def identify(key: str) -> bytes:
        return hashlib.sha512(namespace.encode() + b"\0" + key.encode()).digest()

    def put(key: str, content: bytes) -> None:
        id_ = identify(key)
        store.records[id_] = Record(content, (int(time.time()), 0))
        shard = int.from_bytes(hashlib.sha512(id_ + b"\0object_table\0").digest(), "big") % SHARDS
        for name in ("docker", key.rpartition("/")[0]):
            table = index_table(identify(name), shard)
            store.indexes.setdefault(table, {})[id_] = key.encode()
            store.tables.setdefault(id_, set()).add(table)

    put(path, data or b"EMPTY")
    while path := path.rpartition("/")[0]:
        put(path, b"DIRECTORY")
