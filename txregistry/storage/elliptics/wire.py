"""The bytes of the Elliptics protocol: headers of three lengths, attributes, handshakes; pure.

Every message is a header and as many bytes of body as it says; all integers are little-endian. Which header a server
speaks depends on its version, a `Dialect`.
"""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

REVERSE_LOOKUP, WRITE, READ, DEL, INDEXES_UPDATE, INDEXES_FIND = 2, 4, 5, 11, 20, 22
ROUTE_LIST = 8

NEED_ACK, MORE, DIRECT, NOLOCK, REPLY = 1, 2, 8, 16, 512
#: Until 2.26.3.7 a reply has this bit in its transaction number, from then on the flag REPLY.
REPLY_BIT = 1 << 63

IO_APPEND, IO_NOCSUM, IO_COMPARE_AND_SWAP = 0x2, 0x100, 0x2000

ENOENT, E2BIG, EIO, ENXIO, EINVAL, ENOSPC, EROFS = -2, -7, -5, -6, -22, -28, -30
EBADFD, EILSEQ, ENOTSUP, ETIMEDOUT = -77, -84, -95, -110

ID_SIZE, ADDRESS_SIZE = 64, 32
IPV4, IPV6 = 2, 10

#: Host, port and family.
Address = tuple[str, int, int]


class Broken(Exception):
    """A peer sent what cannot be: the connection is out of step."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A line of versions with one header; `version` is what a client of it says of itself."""

    name: str
    version: tuple[int, int, int, int]
    header: struct.Struct
    #: Where a header has them: id, group, reserved, status, command, [backend, trace,] flags, transaction, size.
    with_backend: bool

    @property
    def backends(self) -> bool:
        """Whether the handshake names groups by backend, as it does from 2.26 on."""
        return self.with_backend

    @property
    def indexes(self) -> bool:
        """Whether the server keeps index tables; 3.0 does not."""
        return self.version[0] < 3


_OLD = struct.Struct("<64sIIiiQQQ")
_MIDDLE = struct.Struct("<64sIQiiQQQ")
_NEW = struct.Struct("<64sIQiiiQQQQ")

DIALECTS = (
    Dialect("2.24", (2, 24, 15, 18), _OLD, with_backend=False),
    Dialect("2.25", (2, 25, 4, 0), _OLD, with_backend=False),
    Dialect("2.25.6", (2, 25, 6, 0), _MIDDLE, with_backend=False),
    Dialect("2.26", (2, 26, 11, 1), _NEW, with_backend=True),
    Dialect("3.0", (3, 0, 0, 1), _NEW, with_backend=True),
)

#: The length of the header of a few versions only, which are looked for last.
RARE_HEADER = _MIDDLE.size


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a header that matter; `size` is that of the body behind it."""

    id: bytes
    group: int
    status: int
    command: int
    flags: int
    transaction: int
    size: int

    @property
    def is_reply(self) -> bool:
        """Whether it answers a request, as either generation says that."""
        return bool(self.transaction & REPLY_BIT or self.flags & REPLY)

    @property
    def answers(self) -> int:
        """The number of the transaction without its mark."""
        return self.transaction & ~REPLY_BIT

    @property
    def is_last(self) -> bool:
        """Whether the transaction is over."""
        return not self.flags & MORE


def pack_header(dialect: Dialect, header: Header) -> bytes:
    """The bytes of a header."""
    middle = (-1, 0) if dialect.with_backend else ()
    return dialect.header.pack(
        header.id,
        header.group,
        0,
        header.status,
        header.command,
        *middle,
        header.flags,
        header.transaction,
        header.size,
    )


def unpack_header(dialect: Dialect, data: bytes) -> Header:
    """A header from its bytes."""
    fields = dialect.header.unpack(data)
    return Header(fields[0], fields[1], fields[3], fields[4], *fields[-3:])


# -- attributes of READ, WRITE and DEL --------------------------------------------------------------------------

_IO = struct.Struct("<64s64s7QIIQQ")
IO_SIZE = 208


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stands before the data of a READ, WRITE or DEL; `seconds` is when the record was written."""

    id: bytes
    flags: int = 0
    offset: int = 0
    size: int = 0
    seconds: float = 0.0
    total_size: int = 0
    parent: bytes = bytes(ID_SIZE)


def pack_attributes(attributes: Attributes) -> bytes:
    """The 208 bytes of them."""
    whole = int(attributes.seconds)
    nanoseconds = int((attributes.seconds - whole) * 1e9)
    return _IO.pack(
        attributes.parent,
        attributes.id,
        *(0, 0, whole, nanoseconds, 0, attributes.total_size, 0, 0),
        attributes.flags,
        attributes.offset,
        attributes.size,
    )


def unpack_attributes(data: bytes) -> Attributes:
    """Attributes at the beginning of a body; Broken if it is shorter than they are."""
    if len(data) < IO_SIZE:
        raise Broken(f"a body of {len(data)} bytes has no room for its attributes")
    fields = _IO.unpack_from(data)
    parent, id_, _start, _num, whole, nanoseconds, _user, total, _record = fields[:9]
    return Attributes(id_, fields[-3], fields[-2], fields[-1], whole + nanoseconds / 1e9, total, parent)


# -- identifiers --------------------------------------------------------------------------------------------------


def identify(namespace: str, key: str) -> bytes:
    """The id under which a key of a namespace lies; an empty namespace is none."""
    data = key.encode()
    return hashlib.sha512(namespace.encode() + b"\0" + data if namespace else data).digest()


# -- the handshake ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """What a server said of itself: its version, how many shards its indexes have, and the groups it holds."""

    version: tuple[int, int, int, int]
    shards: int
    groups: tuple[int, ...]


def hello_id(version: tuple[int, int, int, int], shards: int = 0) -> bytes:
    """The id of a handshake: a version, and the number of shards of indexes."""
    return (struct.pack("<4i4xi", *version, shards)).ljust(ID_SIZE, b"\0")


def hello(dialect: Dialect) -> bytes:
    """The first message of a client, a REVERSE_LOOKUP in transaction 0."""
    identity = hello_id(dialect.version)
    return pack_header(dialect, Header(identity, 0, 0, REVERSE_LOOKUP, DIRECT | NOLOCK, 0, 0))


def unpack_address(data: bytes) -> Address | None:
    """A `dnet_addr` as host, port and family; None for a family that is none of the internet's.

    What lies behind the length that it tells has no meaning.
    """
    (port,) = struct.unpack_from(">H", data, 2)
    (family,) = struct.unpack_from("<H", data, 30)
    if family == IPV4:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), port, family
    if family == IPV6:
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), port, family
    return None


def read_neighbours(dialect: Dialect, bodies: Sequence[bytes]) -> list[Address]:
    """The servers in the answers to a ROUTE_LIST: one for each server, or from 2.26 on one for all. Broken."""
    found: list[Address] = []
    try:
        for body in bodies:
            at = 8 if dialect.backends else 4
            (count,) = struct.unpack_from("<i", body, at - 4)
            if not 0 <= count <= (len(body) - at) // ADDRESS_SIZE:
                raise Broken(f"{count} addresses in {len(body)} bytes")
            found += filter(None, (unpack_address(body[at + 32 * n : at + 32 * n + 32]) for n in range(count)))
    except struct.error as error:
        raise Broken(f"a list of servers that is cut: {error}") from None
    return list(dict.fromkeys(found))


def read_hello(dialect: Dialect, header: Header, body: bytes) -> Peer:
    """What the answer to `hello` says; Broken if it is none."""
    if header.command != REVERSE_LOOKUP or len(body) < 4:
        raise Broken("the answer to a handshake is none")
    a, b, c, d, shards = struct.unpack_from("<4i4xi", header.id)
    if not 0 <= shards <= 65536:
        raise Broken(f"{shards} shards of indexes")
    groups = _backend_groups(body) if dialect.backends else (header.group,)
    return Peer((a, b, c, d), shards, groups)


def _backend_groups(body: bytes) -> tuple[int, ...]:
    """The groups of the backends in a handshake of 2.26 and later."""
    try:
        _, addresses = struct.unpack_from("<ii", body)
        at = 8 + ADDRESS_SIZE * addresses
        (count,) = struct.unpack_from("<i", body, at)
        at += 4
        groups: list[int] = []
        for _ in range(count):
            _, group, _, ids = struct.unpack_from("<iiII", body, at)
            at += 16 + ID_SIZE * ids
            if at > len(body):
                raise Broken("a backend's ids are cut")
            groups.append(group)
    except struct.error as error:
        raise Broken(f"a handshake that is cut: {error}") from None
    return tuple(dict.fromkeys(groups))


def request(
    dialect: Dialect,
    id_: bytes,
    group: int,
    command: int,
    transaction: int,
    parts: Sequence[bytes],
    flags: int = 0,
) -> bytes:
    """The header of a request whose body are these parts; it asks for an acknowledgement, since else errors may not be
    answered at all.
    """
    size = sum(map(len, parts))
    return pack_header(dialect, Header(id_, group, 0, command, NEED_ACK | flags, transaction, size))
