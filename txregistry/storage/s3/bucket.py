"""The calls of S3 that the driver needs, blocking; keys are paths, below the root of the options."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from txregistry.errors import LostRace, NotFound, StorageError, Unavailable
from txregistry.interfaces import Entry
from txregistry.storage.s3.connection import Connection, repeated
from txregistry.storage.s3.options import S3Options
from txregistry.storage.s3.segments import Pieces

#: The largest object that one request copies, and the parts of a larger one, in bytes.
COPY_LIMIT = 5 * 1024**3
COPY_PART = 1024**3
#: How often a conditional put is tried while another one for the same key goes on, which may fail.
CONFLICTS = 3
#: Keys that one request may delete.
MANY = 1000


@dataclass(frozen=True, slots=True)
class Opened:
    """An object of which the bytes are still to be read; `modified` in seconds of the epoch."""

    body: Any
    size: int
    modified: float
    etag: str


class Bucket:
    """A bucket below a root; its methods block."""

    def __init__(self, options: S3Options) -> None:
        self.connection = Connection(options)
        self.root = options.root
        self._google = options.google
        self._encryption: dict[str, str] = {}
        if options.kms_key:
            self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": options.kms_key}
        elif options.encrypt:
            self._encryption = {"ServerSideEncryption": "AES256"}
        self._deletes_many = not options.google

    @property
    def client(self) -> Any:
        """boto3's client."""
        return self.connection.client

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.connection.name

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": self.root + key}

    # -- small objects ------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object; its ETag. LostRace when a condition does not hold."""
        for attempt in range(1, CONFLICTS + 1):
            try:
                with self.connection.errors(key):
                    return self._put(key, data, if_absent, if_match)
            except LostRace as error:
                # A request that the library repeated, as its answer was lost, may have met its own first attempt.
                if repeated(error):
                    with suppress(NotFound):
                        found, etag = self.get(key)
                        if found == data:
                            return etag
                if error.reason != "ConditionalRequestConflict" or attempt == CONFLICTS:
                    raise
        raise AssertionError("the loop returns or raises")

    def _put(self, key: str, data: bytes, if_absent: bool, if_match: str | None) -> str:
        if self._google and (if_absent or if_match):
            return self._put_google(key, data, if_match)
        conditions = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match else {}
        answer = self.client.put_object(**self._object(key), Body=data, **conditions, **self._encryption)
        return str(answer["ETag"])

    def _put_google(self, key: str, data: bytes, if_match: str | None) -> str:
        """The same in Google's terms: what is there is known by its generation, nothing is generation 0."""
        generation = "0"
        if if_match is not None:
            found = self.client.head_object(**self._object(key))
            if found["ETag"] != if_match:
                raise LostRace(key)
            generation = found["ResponseMetadata"]["HTTPHeaders"]["x-goog-generation"]
        with self.connection.headers({"x-goog-if-generation-match": generation}):
            answer = self.client.put_object(**self._object(key), Body=data)
        return str(answer["ETag"])

    def put_pieces(self, key: str, pieces: Pieces) -> None:
        """Write an object of more bytes, which need not be joined."""
        with self.connection.errors(key):
            self.client.put_object(**self._object(key), Body=pieces.stream(), **self._encryption)

    def get(self, key: str, start: int = 0, stop: int | None = None) -> tuple[bytes, str]:
        """The bytes from `start` to `stop`, and the ETag."""
        ranges = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        for attempt in (1, 2):
            with self.connection.errors(key):
                answer = self.client.get_object(**self._object(key), **ranges)
            try:
                with self.connection.errors(key):
                    return answer["Body"].read(), str(answer["ETag"])
            except Unavailable:  # cut in the middle
                if attempt == 2:
                    raise
        raise AssertionError("the loop returns or raises")

    def get_aged(self, key: str) -> tuple[bytes, str, float]:
        """A small object, its ETag, and for how many seconds it has been there by the server's own clock.

        Both ends of that are whole seconds, so that it may be wrong by almost one.
        """
        with self.connection.errors(key):
            answer = self.client.get_object(**self._object(key))
            data = answer["Body"].read()
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
            return data, str(answer["ETag"]), now - answer["LastModified"].timestamp()

    # -- large objects ------------------------------------------------------------------------------------------

    def open(self, key: str) -> Opened:
        """A whole object, to be read."""
        with self.connection.errors(key):
            answer = self.client.get_object(**self._object(key))
            modified = answer["LastModified"].timestamp()
            return Opened(answer["Body"], int(answer["ContentLength"]), modified, str(answer["ETag"]))

    def stream(self, key: str, etag: str, start: int, stop: int) -> Any:
        """A body from which a range is read; Unavailable when another version is there now."""
        with self.connection.errors(key):
            try:
                wanted = {"IfMatch": etag, "Range": f"bytes={start}-{stop - 1}"}
                answer = self.client.get_object(**self._object(key), **wanted)
            except self.client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412, 416):
                    raise Unavailable(key, "it was replaced or removed while it was read") from error
                raise
        return answer["Body"]

    def head(self, key: str) -> tuple[int, float, str]:
        """Size, time of modification, and ETag. NotFound may also mean that the whole bucket is missing."""
        with self.connection.errors(key):
            answer = self.client.head_object(**self._object(key))
            return int(answer["ContentLength"]), answer["LastModified"].timestamp(), str(answer["ETag"])

    def exists(self, key: str) -> bool:
        """Whether there is such an object. A HEAD's 404 has no body to tell a missing key from a missing bucket."""
        with self.connection.errors(key):
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=self.root + key, MaxKeys=1)
        return any(found["Key"] == self.root + key for found in page.get("Contents", ()))

    def copy(self, source: str, target: str) -> None:
        """Give another key the contents of an object. NotFound."""
        if not self.exists(source):
            raise NotFound(source)
        size = self.head(source)[0]
        if size <= COPY_LIMIT:
            with self.connection.errors(source):
                self.connection.copying.copy_object(
                    **self._object(target), CopySource=self._object(source), **self._encryption
                )
            return
        upload = self.begin(target)
        try:
            starts = range(0, size, COPY_PART)
            etags = [
                self.copy_part(target, upload, number, source, (start, min(size, start + COPY_PART)))
                for number, start in enumerate(starts, 1)
            ]
            self.complete(target, upload, etags)
        except BaseException:
            with suppress(StorageError):  # the sweep finds it
                self.abort(target, upload)
            raise

    # -- removal ------------------------------------------------------------------------------------------------

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""
        with self.connection.errors(key):
            self.client.delete_object(**self._object(key))

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects, many at a time where the server can do that."""
        left = list(keys)
        while left and self._deletes_many:
            batch, rest = left[:MANY], left[MANY:]
            names = [{"Key": self.root + key} for key in batch]
            try:
                with self.connection.errors(batch[0]):
                    answer = self.client.delete_objects(Bucket=self.name, Delete={"Objects": names, "Quiet": True})
            except Unavailable as error:
                if error.reason.rpartition(" ")[2] not in ("NotImplemented", "InvalidRequest", "MissingContentMD5"):
                    raise
                self._deletes_many = False
                break
            failed = answer.get("Errors")
            if failed:
                raise Unavailable(batch[0], f"DeleteObjects: {failed[0].get('Code')}")
            left = rest
        for key in left:
            self.delete(key)

    # -- listings -----------------------------------------------------------------------------------------------

    def listing(self, prefix: str) -> list[tuple[str, str, float]]:
        """Key, ETag and time of modification of all objects below a prefix, in order."""
        found: list[tuple[str, str, float]] = []
        with self.connection.errors(prefix):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.name, Prefix=self.root + prefix):
                found += [
                    (entry["Key"][len(self.root) :], entry["ETag"], entry["LastModified"].timestamp())
                    for entry in page.get("Contents", ())
                ]
        return found

    def keys(self, prefix: str) -> list[tuple[str, str]]:
        """Key and ETag of all objects below a prefix, in order."""
        return [(key, etag) for key, etag, _ in self.listing(prefix)]

    def children(self, prefix: str, after: str | None, limit: int) -> tuple[list[Entry], str | None]:
        """One page of the names directly below a prefix, and the token of the next page."""
        token = {} if after is None else {"ContinuationToken": after}
        whole = self.root + prefix
        with self.connection.errors(prefix):
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=whole, Delimiter="/", MaxKeys=limit, **token)
        names = [Entry(found["Key"][len(whole) :], False) for found in page.get("Contents", ())]
        names += [Entry(found["Prefix"][len(whole) : -1], True) for found in page.get("CommonPrefixes", ())]
        # Consoles make an empty object for a folder, whose key is the prefix itself.
        return [entry for entry in names if entry.name], page.get("NextContinuationToken")

    # -- multipart uploads --------------------------------------------------------------------------------------

    def begin(self, key: str) -> str:
        """Begin a multipart upload; its id."""
        with self.connection.errors(key):
            return str(self.client.create_multipart_upload(**self._object(key), **self._encryption)["UploadId"])

    def copy_part(self, key: str, upload: str, number: int, source: str, span: tuple[int, int] | None = None) -> str:
        """Make another object, or a part of it, a part of an upload; the part's ETag."""
        part = {**self._object(key), "UploadId": upload, "PartNumber": number}
        if self._google:
            data = self.get(source, *(span or ()))[0]
            with self.connection.errors(key):
                return str(self.client.upload_part(**part, Body=data)["ETag"])
        spans = {} if span is None else {"CopySourceRange": f"bytes={span[0]}-{span[1] - 1}"}
        with self.connection.errors(key):
            answer = self.connection.copying.upload_part_copy(**part, CopySource=self._object(source), **spans)
            return str(answer["CopyPartResult"]["ETag"])

    def complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Make the object of its parts. NotFound when the upload was aborted."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self.connection.errors(key):
            self.connection.copying.complete_multipart_upload(
                **self._object(key), UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload; no error when it has ended."""
        with suppress(NotFound), self.connection.errors(key):
            self.client.abort_multipart_upload(**self._object(key), UploadId=upload)

    def uploads(self, prefix: str = "") -> list[tuple[str, str, float]]:
        """Key, id and time of the beginning of all unfinished uploads below a prefix."""
        found: list[tuple[str, str, float]] = []
        with self.connection.errors(prefix):
            pages = self.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.name, Prefix=self.root + prefix):
                found += [
                    (entry["Key"][len(self.root) :], entry["UploadId"], entry["Initiated"].timestamp())
                    for entry in page.get("Uploads", ())
                ]
        return found
