"""Hashers whose state can leave the process, so that an upload goes on at another worker without a byte read twice.

`hashlib` has the speed but keeps its state to itself. The same code lies below it in libcrypto, where the state is a
struct: this module calls that through the interpreter's own library. The state leaves in the form in which Go's
`crypto/sha256` marshals its own, which depends neither on the machine nor on the library.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any

from txregistry.model.digest import known_algorithm, new_hasher

if TYPE_CHECKING:
    from hashlib import _Hash

#: SHA256_CTX: eight words of the digest so far, the count of bits in two words (the low one first), the bytes that
#: do not fill a block yet, their number, and the length of a digest.
_CONTEXT = struct.Struct("=8I 2I 64s 2I")
#: Go's form: its mark, the eight words, the bytes that do not fill a block yet, the count of bytes.
_PORTABLE = struct.Struct(">4s 8I 64s Q")
_MARK = b"sha\x03"


def _library() -> Any:
    """The libcrypto that the interpreter has loaded, or None if it lacks what is needed here."""
    try:
        import _hashlib  # noqa: PLC0415 - an interpreter may have been built without it

        library = ctypes.CDLL(getattr(_hashlib, "__file__", None))
        text, pointer = ctypes.c_char_p, ctypes.c_void_p
        library.SHA256_Init.argtypes = (pointer,)
        library.SHA256_Update.argtypes = (pointer, text, ctypes.c_size_t)
        library.SHA256_Final.argtypes = (pointer, pointer)
    except (ImportError, OSError, AttributeError):
        return None
    return library


_crypto = _library()


class Sha256:
    """sha256 with `hashlib`'s interface, and `state`; only where `AVAILABLE`."""

    name = "sha256"

    def __init__(self) -> None:
        self._context = ctypes.create_string_buffer(_CONTEXT.size)
        _crypto.SHA256_Init(self._context)

    def update(self, data: bytes) -> None:
        """Feed bytes; other threads run meanwhile."""
        _crypto.SHA256_Update(self._context, data, len(data))

    def copy(self) -> Sha256:
        """Another one, as far as this."""
        other = Sha256()
        other._context.raw = self._context.raw
        return other

    def hexdigest(self) -> str:
        """The digest of what was fed so far."""
        found = ctypes.create_string_buffer(32)
        _crypto.SHA256_Final(found, self.copy()._context)
        return found.raw.hex()

    def state(self) -> bytes:
        """All that there is to know, in 108 bytes."""
        *words, low, high, pending, count, _length = _CONTEXT.unpack(self._context.raw)
        return _PORTABLE.pack(_MARK, *words, pending[:count], (high << 32 | low) >> 3)

    @classmethod
    def resume(cls, state: bytes) -> Sha256:
        """One that goes on from a state; ValueError for bytes that are none."""
        try:
            mark, *words, pending, size = _PORTABLE.unpack(state)
        except struct.error as error:
            raise ValueError(str(error)) from None
        bits = size << 3
        if mark != _MARK or bits >> 64:
            raise ValueError("not the state of a sha256")
        self = cls()
        self._context.raw = _CONTEXT.pack(*words, bits & 0xFFFFFFFF, bits >> 32, pending, size % 64, 32)
        return self


def _works() -> bool:
    """Whether the struct of this library is the one that is known here."""
    if _crypto is None or ctypes.sizeof(ctypes.c_uint) != 4:
        return False
    first = Sha256()
    first.update(b"a" * 100)
    again = Sha256.resume(first.state())
    again.update(b"b" * 100)
    return again.hexdigest() == new_hasher("sha256", b"a" * 100 + b"b" * 100).hexdigest()


#: Whether states can be had here; without them bytes are hashed by `hashlib`, and read again where need be.
AVAILABLE = _works()


def upload_hasher(algorithm: str) -> _Hash | Sha256:
    """A hasher of a known algorithm, with a `state` if there can be one."""
    known_algorithm(algorithm)
    return Sha256() if algorithm == Sha256.name and AVAILABLE else new_hasher(algorithm)


def resumed(state: bytes | None, digest: str | None) -> Sha256 | None:
    """The hasher that a state is of, if it is sound and so far gives this hexadecimal digest."""
    if state is None or not AVAILABLE:
        return None
    try:
        hasher = Sha256.resume(state)
    except ValueError:
        return None
    return hasher if hasher.hexdigest() == digest else None
