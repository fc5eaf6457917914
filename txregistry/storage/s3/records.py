"""Who holds a partial object and what its last checkpoint was: compare and swap on a store that can only create."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from typing import Protocol

from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.storage.s3.bucket import Bucket


class Tells(Protocol):
    """The part of a clock that is needed."""

    def seconds(self) -> float:
        """Seconds of the epoch."""
        ...


class NeverStood(LostRace):
    """A record lost the race, and it is certain that nobody has built or ever will build on it."""


@dataclass(frozen=True)
class Record:
    """What is known of a partial object to all who may want it; `upload` is the final key and id of a commit's upload.

    It is held for `hold` seconds from when the record was written, by the clock of the store. `segments` are key and
    size of each, and `moved` is when bytes last moved, in seconds of the epoch.
    `previous` is the ETag of the record with the number before, and `nonce` sees to it that no two ETags are equal.
    """

    previous: str = ""
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    hold: float = 0.0
    moved: float = 0.0
    offset: int = 0
    state: bytes = b""
    segments: tuple[tuple[str, int], ...] = ()
    upload: tuple[str, str] | None = None
    ended: bool = False

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({**self.__dict__, "state": base64.b64encode(self.state).decode()}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """From JSON."""
        fields = json.loads(data)
        fields["state"] = base64.b64decode(fields["state"])
        fields["segments"] = tuple((name, size) for name, size in fields["segments"])
        fields["upload"] = tuple(fields["upload"]) if fields["upload"] else None
        return cls(**fields)


class Records:
    """The records of one partial object: compare and swap made of create-only objects.

    Only the newest two are kept, so that a number can become free again below, or after the end of, a living chain.
    Therefore a record counts only if the record it names as the previous one is there, and its writer looks after
    writing whether it does. A path is used once: its name has a random part.
    """

    def __init__(self, bucket: Bucket, path: str, prefix: str) -> None:
        self._bucket, self._path, self._prefix = bucket, path, prefix

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:08d}"

    def _numbers(self) -> dict[int, str]:
        return {int(key[len(self._prefix) :]): etag for key, etag in self._bucket.keys(self._prefix)}

    def latest(self) -> tuple[int, str, Record, float]:
        """Number, ETag, contents and age in seconds of the record that holds. NotFound."""
        for _ in range(10):
            numbers = self._numbers()
            for number in sorted(numbers, reverse=True):
                try:
                    data, etag, age = self._bucket.get_aged(self._key(number))
                except NotFound:
                    break  # removed since the listing
                record = Record.decode(data)
                if number == 1 or numbers.get(number - 1) == record.previous:
                    if record.ended:
                        raise NotFound(self._path)
                    return number, etag, record, age
            else:
                raise NotFound(self._path)
        raise Unavailable(self._path, "its records change all the time")

    def append(self, number: int, record: Record) -> str:
        """Write the record with this number; its ETag. LostRace, or NeverStood where that is certain."""
        key, data = self._key(number), record.encode()
        try:
            etag = self._bucket.put(key, data, if_absent=True)
        except LostRace:
            try:
                found, etag = self._bucket.get(key)
            except NotFound:
                found = b""
            if found != data:  # equal: a repeated request met its own first attempt
                raise NeverStood(self._path) from None
        numbers = self._numbers()
        follows = number == 1 or numbers.get(number - 1) == record.previous
        if not (follows and max(numbers) == number):
            # Removal goes upward. So where ours is there and its successor is not, it never belonged to a chain;
            # where it is gone, or has a successor, others may have gone on from it.
            if number in numbers and number + 1 not in numbers:
                self._bucket.delete(key)
                raise NeverStood(self._path)
            raise LostRace(self._path)
        for old in sorted(numbers):
            if old < number - 1:
                self._bucket.delete(self._key(old))
        return etag
