"""A tar archive taken in batches: its members are handed to a sink as they come by.

It reads what `archive/tar` of Go reads, with which clients make their sums: V7, ustar, star, GNU long names, pax.
Unlike `tarfile` it never takes a damaged archive for one that has ended: an archive is whole when it ends with zeros,
or at the beginning of a header, as early clients wrote no end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from struct import Struct
from typing import NamedTuple, Protocol

BLOCK = 512
#: Longest name or pax header, in bytes.
EXTENSION_LIMIT = 2**20

_ZEROS = bytes(BLOCK)
# name, mode, uid, gid, size, mtime, checksum, type, linkname, magic and version, uname, gname, devmajor, devminor, rest
_HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s167s")
_HEADER_ONLY = frozenset(b"123456")
_REGULAR = frozenset(b"\x0007")
_INTEGER = re.compile(rb"-?[0-9]{1,19}\Z")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?\Z")
_HIGH_BYTES = bytes(range(128, 256))
_PAX_KEYS = frozenset({b"path", b"linkpath", b"uname", b"gname", b"uid", b"gid", b"size", b"mtime"})


class TarError(Exception):
    """An archive that is damaged or cut short."""


class TarUnsupported(TarError):
    """An archive that is whole as far as it was read, with a member of a kind that is not read here."""


class Member(NamedTuple):
    """The header of a member, with the long names and pax values that belong to it.

    Texts are the bytes of the archive, `mode` is unmasked, `mtime` in whole seconds, `type` the one type byte.
    `size` is as the header tells it, also of links and directories, which have no content.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    linkname: bytes
    uname: bytes
    gname: bytes
    devmajor: int
    devminor: int

    @property
    def is_regular(self) -> bool:
        """Whether this is a file with content of its own."""
        return self.type[0] in _REGULAR


class MemberSink(Protocol):
    """Who is told of the members, one after the other."""

    def begin(self, member: Member) -> None:
        """A member's header has come."""

    def content(self, piece: memoryview) -> None:
        """The next piece of its content, of any size; a view that is not valid later on."""

    def end(self) -> None:
        """It has come whole."""


class TarReader:
    """Takes an archive in batches and tells `sink` of its members. After a TarError nothing more may be fed."""

    def __init__(self, sink: MemberSink) -> None:
        #: The time that pax told of the member that begins, as it is written there; `Member.mtime` is a whole number.
        self.pax_time: bytes | None = None
        self._sink = sink
        self._held = bytearray()  # the beginning of a header or extension that has not come whole
        self._wanted = BLOCK  # how long that is
        self._extension: tuple[bytes, int] | None = None  # type and size of the extension that is being read
        self._remaining = 0  # bytes of content still to come
        self._skip = 0  # bytes of padding still to come
        self._zero_blocks = 0
        self._ended = False
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._pax: Mapping[bytes, bytes] | None = None
        self._global_pax: dict[bytes, bytes] = {}

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; TarError when they are not those of an archive."""
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end and not self._ended:
            if self._remaining:
                piece = view[position : position + self._remaining]
                self._sink.content(piece)
                self._remaining -= len(piece)
                position += len(piece)
                if not self._remaining:
                    self._sink.end()
            elif self._skip:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
            else:
                part = view[position : position + self._wanted - len(self._held)]
                position += len(part)
                self._collect(part)

    def finish(self) -> None:
        """The archive's bytes have ended; TarError if they ended too early. Bytes behind its end do not count."""
        if self._ended:
            return
        if self._held or self._remaining or self._skip or self._extension is not None:
            raise TarError("the archive is cut short")
        if self._long_name is not None or self._long_link is not None or self._pax is not None:
            raise TarError("the archive ends with an extension of a member that is not there")

    def _collect(self, part: memoryview) -> None:
        if self._held or len(part) < self._wanted:
            self._held += part
            if len(self._held) < self._wanted:
                return
            block = bytes(self._held)
            self._held.clear()
        else:
            block = bytes(part)
        if self._extension is None:
            self._header(block)
        else:
            (kind, size), self._extension, self._wanted = self._extension, None, BLOCK
            self._extend(kind, block[:size])

    def _header(self, block: bytes) -> None:
        if block == _ZEROS:
            self._zero_blocks += 1
            self._ended = self._zero_blocks == 2
            return
        if self._zero_blocks:
            raise TarError("a block of zeros amidst the archive")
        member = _parse_header(block)
        if member.type in (b"L", b"K", b"x", b"g"):
            if not 0 <= member.size <= EXTENSION_LIMIT:
                raise TarError("a name or pax header that is too long")
            if member.size:
                self._extension = (member.type, member.size)
                self._wanted = -(-member.size // BLOCK) * BLOCK
            else:
                self._extend(member.type, b"")
            return
        self._begin(self._extended(member))

    def _extend(self, kind: bytes, payload: bytes) -> None:
        if kind == b"L":
            self._long_name = _text(payload)
        elif kind == b"K":
            self._long_link = _text(payload)
        elif kind == b"x":
            self._pax = _parse_pax(payload)
        else:
            self._global_pax.update(_parse_pax(payload))

    def _extended(self, member: Member) -> Member:
        """The member with what was said about it before its header; a GNU long name wins over pax."""
        pax = {**self._global_pax, **(self._pax or {})}
        self.pax_time = pax.get(b"mtime") or None
        if pax:
            member = _with_pax(member, pax)
        if self._long_name:
            member = member._replace(name=self._long_name)
        if self._long_link:
            member = member._replace(linkname=self._long_link)
        self._long_name = self._long_link = self._pax = None
        if member.type == b"\0" and member.name.endswith(b"/"):
            member = member._replace(type=b"5")
        return member

    def _begin(self, member: Member) -> None:
        if member.type == b"S":
            raise TarUnsupported("a sparse member")
        if member.size < 0:
            raise TarError("a member of negative size")
        self._sink.begin(member)
        size = 0 if member.type[0] in _HEADER_ONLY else member.size
        if size:
            self._remaining = size
            self._skip = -size % BLOCK
        else:
            self._sink.end()


def _parse_header(block: bytes) -> Member:
    fields = _HEADER.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, uname, gname, major, minor, rest = fields
    _verify(block, checksum)
    name = _text(name)
    is_ustar, is_gnu = magic[:6] == b"ustar\0", magic == b"ustar  \0"
    if not (is_ustar or is_gnu):
        uname = gname = major = minor = b""
    elif is_ustar:
        # star keeps two times where ustar has the end of the prefix.
        prefix = _text(rest[:131] if block[508:] == b"tar\0" else rest[:155])
        name = prefix + b"/" + name if prefix else name
    else:
        prefix = _misplaced_prefix(rest)
        name = prefix + b"/" + name if prefix else name
    return Member(
        name,
        _number(mode),
        _number(uid),
        _number(gid),
        _number(size),
        _number(mtime),
        kind,
        _text(linkname),
        _text(uname),
        _text(gname),
        _number(major),
        _number(minor),
    )


def _verify(block: bytes, checksum: bytes) -> None:
    """The sum of all bytes, with blanks in place of the sum; very old writers took the bytes as signed."""
    told = _number(checksum)
    found = sum(block) - sum(checksum) + 256
    if told == found:
        return
    high = len(block) - len(block.translate(None, _HIGH_BYTES))
    high -= len(checksum) - len(checksum.translate(None, _HIGH_BYTES))
    if told != found - 256 * high:
        raise TarError("not a header of an archive, or a damaged one")


def _misplaced_prefix(rest: bytes) -> bytes:
    """A prefix in a GNU header, which has two times there: docker's tar writer once left one by mistake."""
    try:
        for time in (rest[:12], rest[12:24]):
            if time[0]:
                _number(time)
    except TarError:
        prefix = _text(rest[:155])
        return prefix if prefix.isascii() else b""
    return b""


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits among blanks and NULs, none meaning 0; or, marked by the highest bit, a big-endian number."""
    if field[:1] >= b"\x80":
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        # The next bit is the sign.
        if value >> (8 * len(field) - 2):
            value -= 1 << (8 * len(field) - 1)
        if not -(2**63) <= value < 2**63:
            raise TarError("a number in a header that is too large")
        return value
    digits = _text(field.strip(b" \0"))
    if digits.strip(b"01234567"):
        raise TarError("a number in a header that is not octal")
    return int(digits, 8) if digits else 0


def _parse_pax(payload: bytes) -> dict[bytes, bytes]:
    """Records of the form `<length> <key>=<value>` and a newline, the length being that of the whole record."""
    values = {}
    position = 0
    while position < len(payload):
        blank = payload.find(b" ", position, position + 8)
        digits = payload[position:blank] if blank > 0 else b""
        if not digits.isdigit():
            raise TarError("a pax header that is damaged")
        stop = position + int(digits)
        key, equals, value = payload[blank + 1 : stop].partition(b"=")
        if stop > len(payload) or not equals or not value.endswith(b"\n"):
            raise TarError("a pax header that is damaged")
        if key.startswith(b"GNU.sparse."):
            raise TarUnsupported("a sparse member")
        if key in _PAX_KEYS:
            values[key] = value[:-1]
        position = stop
    return values


def _with_pax(member: Member, pax: Mapping[bytes, bytes]) -> Member:
    """The member with pax values in place of its own; an empty one leaves its own standing."""
    changes: dict[str, bytes | int] = {}
    for key, value in pax.items():
        if not value:
            continue
        if key == b"mtime":
            changes["mtime"] = _pax_time(value)
        elif key in (b"uid", b"gid", b"size"):
            if not _INTEGER.match(value):
                raise TarError("a number in a pax header that is none")
            changes[key.decode("ascii")] = int(value)
        elif b"\0" in value:
            raise TarError("a name in a pax header with a NUL in it")
        else:
            changes[{b"path": "name", b"linkpath": "linkname"}.get(key, key.decode("ascii"))] = value
    return Member(**{**member._asdict(), **changes})


def _pax_time(value: bytes) -> int:
    """Whole seconds, rounded down."""
    match = _TIME.match(value)
    if match is None:
        raise TarError("a time in a pax header that is none")
    seconds = int(match[2])
    if not match[1]:
        return seconds
    return -seconds - 1 if (match[3] or b"").strip(b"0") else -seconds
