"""Decompression of layers as they arrive: pushed in, handed on in pieces, bounded in memory and in work.

What a layer is compressed with is told by its first bytes. A stream may have several members (gzip), streams (bzip2,
xz) or frames (zstd), one after the other, and is good only if its last one is complete and its check sum right.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

#: Largest piece handed on, in bytes.
PIECE = 256 * 1024
#: Input is worked on in slices of this size, as zlib gives back what it did not use yet as a copy.
_SLICE = 64 * 1024
#: So many bytes tell the compression.
_SNIFF = 6


class DecompressionFailed(Exception):
    """A stream that is damaged, cut short, larger than allowed, or of a compression that cannot be read here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stream may cost.

    `output` is the most it may expand to, in bytes. Beyond `slack` bytes it may expand to `ratio` times its input at
    most (deflate cannot do more than 1032, bzip2, xz and zstd can). `memory` bounds the decoder's window, in bytes:
    64 MiB and a little is what `xz -9` needs.
    """

    output: int = 2**42
    ratio: int = 1100
    slack: int = 64 * 2**20
    memory: int = 72 * 2**20


DEFAULT_LIMITS = Limits()


class _Decoder(Protocol):
    """What the decoders of `bz2`, `lzma` and `zstd` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """The decoder of one gzip member, in the manner of the others."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        # The rest of a repetition may be owed as well; it comes with the next input, and the sum at the end is such.
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def _zstd_module() -> Any:
    """The interpreter's own since 3.14, before that its backport, if that is installed."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


_zstd = _zstd_module()


def _zstd_decoder(memory: int) -> _Decoder:
    if _zstd is None:
        raise DecompressionFailed("zstd needs Python 3.14 or the package backports.zstd")
    window = memory.bit_length() - 1
    decoder: _Decoder = _zstd.ZstdDecompressor(options={_zstd.DecompressionParameter.window_log_max: window})
    return decoder


#: First bytes -> the name of the compression, a maker of its decoder, and the byte that may pad its members.
_FORMATS: list[tuple[bytes, str, Callable[[int], _Decoder], bytes]] = [
    (b"\x1f\x8b\x08", "gzip", lambda _: _Gzip(), b"\0"),
    (b"BZh", "bzip2", lambda _: bz2.BZ2Decompressor(), b""),
    (b"\xfd7zXZ\0", "xz", lambda memory: lzma.LZMADecompressor(lzma.FORMAT_XZ, memory), b"\0"),
    (b"\x5d\0\0\x80", "lzma", lambda memory: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memory), b""),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd_decoder, b""),
    # A frame to be skipped, with which some zstd streams begin.
    *[(bytes([0x50 + n]) + b"\x2a\x4d\x18", "zstd", _zstd_decoder, b"") for n in range(16)],
]
_ERRORS = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, MemoryError)
_ALL_ERRORS = _ERRORS if _zstd is None else (*_ERRORS, _zstd.ZstdError)


class Decompressor:
    """Takes a layer in batches and hands its plain bytes to `sink`, in pieces of at most 256 KiB, within `feed`.

    `name` is the compression: `plain`, `gzip`, `bzip2`, `xz`, `lzma` or `zstd`, None until it is known. After a
    DecompressionFailed nothing more may be fed.
    """

    def __init__(self, sink: Callable[[bytes | memoryview], object], limits: Limits = DEFAULT_LIMITS) -> None:
        self.name: str | None = None
        self._sink = sink
        self._limits = limits
        self._first = b""
        self._make: Callable[[int], _Decoder] | None = None
        self._padding = b""
        self._decoder: _Decoder | None = None
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes; DecompressionFailed when they are damaged or expand too far."""
        if self.name is None:
            self._first += data
            if len(self._first) < _SNIFF:
                return
            data = self._begin()
        self._take(data)

    def finish(self) -> None:
        """The stream has ended; DecompressionFailed if it ended too early."""
        if self.name is None:
            self._take(self._begin())
        if self._decoder is not None:
            raise DecompressionFailed(f"the {self.name} stream is cut short")

    def _begin(self) -> bytes:
        """Find out the compression; the bytes that were held back for it."""
        data, self._first = self._first, b""
        self.name = "plain"
        for magic, name, make, padding in _FORMATS:
            if data.startswith(magic):
                self.name, self._make, self._padding = name, make, padding
                # What holds a decoder is never finished: so a stream of its first bytes alone is cut short.
                self._decoder = self._new_decoder()
                break
        return data

    def _take(self, data: bytes) -> None:
        view = memoryview(data)
        if self._make is None:
            self._give(view)
            return
        for start in range(0, len(view), _SLICE):
            part = bytes(view[start : start + _SLICE])
            self._taken += len(part)
            self._decode(part)

    def _decode(self, data: bytes) -> None:
        while True:
            if self._decoder is None:
                data = data.lstrip(self._padding) if self._padding else data
                if not data:
                    return
                self._decoder = self._new_decoder()
            try:
                piece = self._decoder.decompress(data, PIECE)
            except _ALL_ERRORS as error:
                raise DecompressionFailed(f"the {self.name} stream is damaged: {error}") from None
            data = b""
            if piece:
                self._give(piece)
            if self._decoder.eof:
                data = self._decoder.unused_data
                self._decoder = None
            elif self._decoder.needs_input:
                return

    def _new_decoder(self) -> _Decoder:
        assert self._make is not None
        return self._make(self._limits.memory)

    def _give(self, piece: bytes | memoryview) -> None:
        if not piece:
            return
        self._given += len(piece)
        if self._given > self._limits.output:
            raise DecompressionFailed(f"expands to more than {self._limits.output} bytes")
        if self._make is not None and self._given > self._limits.slack + self._limits.ratio * self._taken:
            raise DecompressionFailed(f"expands to more than {self._limits.ratio} times its size")
        self._sink(piece)
