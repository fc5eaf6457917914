"""What is in the layer of a V1 image: the list of its files, and how it differs from the layers below.

Both are JSON as docker-registry keeps it in `_files` and `_diff`. A list has an entry for each member of the archive,
`[name, type, deleted, size, mtime, mode, uid, gid]`, in the archive's order. "Deleted" are files that a layer hides in
those below it, by an empty file of their name with `.wh.` before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import JSONDecoder
from typing import Any, NamedTuple

from txregistry.errors import V1Error
from txregistry.model.decompress import DecompressionFailed, Decompressor, Limits
from txregistry.model.tar import Member, TarError, TarReader

#: Longest list that is made, or compared with others, in bytes of JSON: that of about 150,000 files.
LIST_LIMIT = 16 * 1024 * 1024
#: What a layer may cost; more bytes than in any real one, few enough to come to an end.
LIMITS = Limits(output=2**38)

_WHITEOUT = ".wh."
#: Names that aufs keeps for itself: links, opaque directories.
_BOOKKEEPING = _WHITEOUT + _WHITEOUT
_TYPES = {
    b"\0": "f",
    b"0": "f",
    b"1": "l",
    b"2": "s",
    b"3": "c",
    b"4": "b",
    b"5": "d",
    b"6": "i",
    b"7": "t",
    b"L": "L",
    b"K": "K",
    b"S": "S",
}
_TIME_DIGITS = 40


class ListDamaged(Exception):
    """A stored list of files that is none."""


def unlistable() -> V1Error:
    """The refusal of a layer that is no archive, or a damaged one."""
    return V1Error(message="Layer format not supported")


def unhidden(name: str) -> tuple[str, bool] | None:
    """The name of a file as lists show it, and whether its layer deletes it; None for what belongs to aufs.

    Names without `./` before them stay without a slash.
    """
    name = name.rstrip("/")
    if name in ("", "."):
        return "/", False
    if name.startswith("./"):
        name = name[1:]
    parts = name.split("/")
    if any(part.startswith(_BOOKKEEPING) for part in parts):
        return None
    if name.startswith("/" + _WHITEOUT):
        return "/" + name[1 + len(_WHITEOUT) :], True
    if parts[-1].startswith(_WHITEOUT) and parts[-1] != _WHITEOUT:
        return name.removesuffix(parts[-1]) + parts[-1].removeprefix(_WHITEOUT), True
    return name, False


class FileLister:
    """Takes a layer as it is stored, in whatever compression, and makes the list of its files.

    V1Error for what is no archive, is damaged, or has more files than fit into LIST_LIMIT.
    """

    def __init__(self, limits: Limits = LIMITS, most: int = LIST_LIMIT) -> None:
        self._entries = _Entries(most)
        self._reader = self._entries.reader = TarReader(self._entries)
        self._decompressor = Decompressor(self._reader.feed, limits)
        self._empty = True

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the layer."""
        self._empty = self._empty and not data
        try:
            self._decompressor.feed(data)
        except (DecompressionFailed, TarError):
            raise unlistable() from None

    def finish(self) -> bytes:
        """The list, JSON in ASCII."""
        try:
            self._decompressor.finish()
            self._reader.finish()
        except (DecompressionFailed, TarError):
            raise unlistable() from None
        if self._empty:
            raise unlistable()
        return ("[" + ", ".join(self._entries.texts) + "]").encode("ascii")


class _Entries:
    """The entries of a list that grows."""

    def __init__(self, most: int) -> None:
        self.texts: list[str] = []
        self.reader: TarReader | None = None
        self._left = most - 2

    def begin(self, member: Member) -> None:
        found = unhidden(member.name.decode("utf-8", "replace"))
        if found is None:
            return
        name, deleted = found
        kind = _TYPES.get(member.type, "u")
        entry = [name, kind, deleted, member.size, self._time(member), member.mode, member.uid, member.gid]
        text = json.dumps(entry)
        self._left -= len(text) + 2
        if self._left < 0:
            raise V1Error({"reason": "more files than the list may have"}, message="Layer has too many files to list")
        self.texts.append(text)

    def _time(self, member: Member) -> int | float:
        told = None if self.reader is None else self.reader.pax_time
        return member.mtime if told is None else float(told[:_TIME_DIGITS])

    def content(self, piece: memoryview) -> None:
        """Lists have no contents."""

    def end(self) -> None:
        """Nor do they wait for them."""


class Entry(NamedTuple):
    """What a stored list says of a file; `rest` is all but the name, as JSON."""

    name: str
    deleted: bool
    rest: str


def read_list(data: bytes) -> Iterator[Entry]:
    """The entries of a stored list, one by one, so that they are never all in memory; ListDamaged.

    Old servers took whiteouts in directories for ordinary files; they are told apart here.
    """
    try:
        text = data.decode("utf-8")
        at = _behind_blanks(text, 0)
        if text[at] != "[":
            raise ListDamaged
        at += 1
        while True:
            at = _behind_blanks(text, at)
            if text[at] == "]":
                return
            record, at = _scan(text, at)
            yield from _entry(record)
            at = _behind_blanks(text, at)
            if text[at] == ",":
                at += 1
            elif text[at] != "]":
                raise ListDamaged
    except (ValueError, IndexError, RecursionError):
        raise ListDamaged from None


_scan = JSONDecoder().raw_decode


def _behind_blanks(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _entry(record: Any) -> Iterator[Entry]:
    if not isinstance(record, list) or len(record) != 8 or not isinstance(record[0], str):
        raise ListDamaged
    name, deleted, rest = record[0], bool(record[2]), record[1:]
    if not deleted and _WHITEOUT in name:
        found = unhidden(name)
        if found is None:
            return
        name, deleted = found
        rest[1] = deleted
    yield Entry(name, deleted, json.dumps(rest))


class Differ:
    """Compares the list of a layer with those of the layers below it, the nearest first.

    ListDamaged for lists that are none.
    """

    def __init__(self, data: bytes) -> None:
        self._files: dict[str, Entry] = {}  # of two entries for one file the last counts
        for entry in read_list(data):
            self._files[_key(entry.name)] = entry
        self._open = dict.fromkeys(self._files)
        self._deleted: list[str] = []
        self._changed: list[str] = []
        self._created: list[str] = []

    @property
    def decided(self) -> bool:
        """Whether no further layer can tell anything."""
        return not self._open

    def compare(self, data: bytes) -> None:
        """Take the list of the next layer below."""
        below: dict[str, bool] = {}
        for entry in read_list(data):
            key = _key(entry.name)
            if key in self._open:
                below[key] = entry.deleted
        for key in list(self._open):
            if self._files[key].deleted:
                self._deleted.append(key)
            elif key not in below:
                continue
            elif below[key]:
                self._created.append(key)
            else:
                self._changed.append(key)
            del self._open[key]

    def finish(self) -> bytes:
        """The differences, JSON in ASCII; of a layer with none below it all is created, as old servers had it."""
        created = [*self._created, *self._open]
        parts = {"deleted": self._deleted, "changed": self._changed, "created": created}
        texts = (f'"{name}": {{{", ".join(map(self._text, keys))}}}' for name, keys in parts.items())
        return ("{" + ", ".join(texts) + "}").encode("ascii")

    def _text(self, key: str) -> str:
        entry = self._files[key]
        return f"{json.dumps(entry.name)}: {entry.rest}"


def _key(name: str) -> str:
    """By what a file is known in layers that begin their names with `./` and in those that do not."""
    return name.removeprefix("/")
