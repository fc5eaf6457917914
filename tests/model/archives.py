"""Tar archives written byte by byte: `tarfile` would tidy up what the tests are about."""

from __future__ import annotations

import bz2
import gzip
import lzma

END = bytes(1024)


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    number = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    number[0] |= 0x80
    return bytes(number)


def header(
    name: bytes = b"f",
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: int | bytes = 0o100644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    linkname: bytes = b"",
    magic: bytes = b"ustar\x0000",
    uname: bytes = b"",
    gname: bytes = b"",
    devmajor: int | bytes = 0,
    devminor: int | bytes = 0,
    rest: bytes = b"",
    signed: bool = False,
) -> bytes:
    """One block; numbers are written in octal, bytes as they are."""

    def field(value: int | bytes, width: int) -> bytes:
        return octal(value, width) if isinstance(value, int) else value.ljust(width, b"\0")

    block = bytearray(
        name.ljust(100, b"\0")
        + field(mode, 8)
        + field(uid, 8)
        + field(gid, 8)
        + field(size, 12)
        + field(mtime, 12)
        + b" " * 8
        + kind
        + linkname.ljust(100, b"\0")
        + magic
        + uname.ljust(32, b"\0")
        + gname.ljust(32, b"\0")
        + field(devmajor, 8)
        + field(devminor, 8)
        + rest.ljust(167, b"\0")
    )
    assert len(block) == 512
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: bytes = b"f", content: bytes = b"", kind: bytes = b"0", **fields) -> bytes:
    return header(name, kind, len(content), **fields) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """A pax record; its length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = next(n for n in range(len(rest), len(rest) + 20) if n == len(rest) + len(b"%d" % n))
    return b"%d" % length + rest


def pax(records: dict[bytes, bytes], kind: bytes = b"x") -> bytes:
    return member(b"PaxHeaders", b"".join(record(*item) for item in records.items()), kind)


def zstd_compress(data: bytes) -> bytes | None:
    """Compressed with zstd, None where there is none."""
    from txregistry.model.decompress import _zstd

    return None if _zstd is None else _zstd.compress(data)


COMPRESSORS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    **({} if zstd_compress(b"") is None else {"zstd": zstd_compress}),
}
