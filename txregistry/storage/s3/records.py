"""The chain of records of a partial object: compare and swap made of `If-None-Match: *`, which S3 promises to keep."""

from __future__ import annotations

from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.segmented.records import NeverStood, Record


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
                if record.follows(number, numbers.get(number - 1)):
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
        follows = record.follows(number, numbers.get(number - 1))
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
