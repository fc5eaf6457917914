"""Index tables, by which the original driver listed: their ids, requests and answers; pure. Servers up to 2.26 only."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from txregistry.storage.elliptics.wire import ID_SIZE, Broken

Version = tuple[int, int, int, int]

FIND_ALL, MORE_FOLLOW = 1, 8

#: How deep the answer to a search may nest; it has four levels.
DEEPEST = 8


class Layout:
    """The sizes of a request and of an entry, which differ with the server's version."""

    def __init__(self, version: Version) -> None:
        raw_id = 76 if version >= (2, 25, 4, 1) else 72
        #: id, group, flags, number of a shard and of all shards, 40 reserved, number of entries.
        self.request = struct.Struct(f"<64sI{raw_id - ID_SIZE - 4}xIII40xQ")
        #: id, flags, size of the data.
        self.entry = struct.Struct("<64sQ44xQ" if version >= (2, 26, 2, 0) else "<64sQ16xQ")


def layout_of(version: Version) -> Layout:
    """The layout that a server of a version uses."""
    return Layout(version)


def object_table(id_: bytes) -> bytes:
    """The id of the table that says in which indexes an object is."""
    return hashlib.sha512(id_ + b"\0object_table\0").digest()


def index_table(index: bytes, shard: int, shards: int) -> bytes:
    """The id of one shard of an index's table."""
    rest = hashlib.sha512(index + b"\0index_table\0").digest()[32:]
    return struct.pack(">I", (shard << 32) // shards) + bytes(28) + rest


def update_request(layout: Layout, id_: bytes, group: int, entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The body that gives an object exactly these indexes, each an id and data."""
    parts = [layout.request.pack(id_, group, 0, 0, 0, len(entries))]
    for index, data in entries:
        parts += layout.entry.pack(index, 0, len(data)), data
    return b"".join(parts)


def find_request(layout: Layout, indexes: Sequence[bytes], group: int, shards: int) -> tuple[bytes, bytes]:
    """The id for the header, and the body, that ask for the objects which are in all these indexes."""
    parts = []
    for shard in range(shards):
        flags = FIND_ALL | (MORE_FOLLOW if shard < shards - 1 else 0)
        tables = [index_table(index, shard, shards) for index in indexes]
        parts.append(layout.request.pack(tables[0], group, flags, shard, shards, len(tables)))
        parts += [layout.entry.pack(table, 0, 0) for table in tables]
    return index_table(indexes[0], 0, shards), b"".join(parts)


def found(answer: bytes, tables: set[bytes]) -> Iterator[bytes]:
    """What those tables say of each object in an answer. Broken."""
    try:
        for _, _, pairs in unpack(answer):
            yield from (data for table, data in pairs if bytes(table) in tables)
    except (TypeError, ValueError) as error:
        raise Broken(f"the answer to a search has another form: {error}") from None


def unpack(data: bytes) -> Any:
    """A value in the old encoding of msgpack: numbers, raw strings as bytes, and arrays. Broken."""
    try:
        value, at = _value(data, 0, 0)
    except (IndexError, struct.error) as error:
        raise Broken(f"an answer to a search is cut: {error}") from None
    if at != len(data):
        raise Broken("there is more behind the answer to a search")
    return value


_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_SIZES = {0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I"}


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEEPEST:
        raise Broken("an answer to a search nests too deep")
    mark = data[at]
    at += 1
    if mark < 0x80:
        return mark, at
    if mark >= 0xE0:
        return mark - 256, at
    if mark in _NUMBERS:
        return struct.unpack_from(_NUMBERS[mark], data, at)[0], at + struct.calcsize(_NUMBERS[mark])
    if 0x90 <= mark < 0xA0:
        size, is_array = mark & 0x0F, True
    elif 0xA0 <= mark < 0xC0:
        size, is_array = mark & 0x1F, False
    elif mark in _SIZES:
        size, is_array = struct.unpack_from(_SIZES[mark], data, at)[0], mark >= 0xDC
        at += struct.calcsize(_SIZES[mark])
    else:
        raise Broken(f"an answer to a search has the mark {mark:#x}")
    if not is_array:
        if at + size > len(data):
            raise Broken("an answer to a search is cut")
        return data[at : at + size], at + size
    if size > len(data):
        raise Broken("an answer to a search is cut")
    values = []
    for _ in range(size):
        value, at = _value(data, at, depth + 1)
        values.append(value)
    return values, at
