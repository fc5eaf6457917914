"""The calls of S3 that a driver of partial objects needs, blocking, with our errors in place of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.interfaces import Entry


class Bucket:
    """A bucket; its methods block."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.name = name
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(
                s3={"addressing_style": "path"},
                retries={"max_attempts": 2},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in (409, 412):  # 409: another conditional request for the key is under way
                raise LostRace(path, code) from error
            if code in ("404", "NoSuchKey", "NoSuchUpload"):  # a bucket that is missing is an outage
                raise NotFound(path, code) from error
            raise Unavailable(path, str(error)) from error
        except BotoCoreError as error:
            raise Unavailable(path, str(error)) from error

    def put(self, key: str, data: bytes, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object; its ETag."""
        conditions = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match else {}
        with self._errors(key):
            answer = self.client.put_object(Bucket=self.name, Key=key, Body=data, **conditions)
        return str(answer["ETag"])

    def get(self, key: str, start: int = 0, stop: int | None = None) -> tuple[bytes, str]:
        """The bytes from `start` to `stop`, and the ETag."""
        ranges = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        with self._errors(key):
            answer = self.client.get_object(Bucket=self.name, Key=key, **ranges)
            return answer["Body"].read(), str(answer["ETag"])

    def stream(self, key: str, etag: str, start: int, stop: int) -> Any:
        """A body from which a range is read; Unavailable when another version is there now."""
        with self._errors(key):
            try:
                answer = self.client.get_object(
                    Bucket=self.name, Key=key, IfMatch=etag, Range=f"bytes={start}-{stop - 1}"
                )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412, 416):
                    raise Unavailable(key, "it was replaced or removed while it was read") from error
                raise
        return answer["Body"]

    def head(self, key: str) -> tuple[int, float, str]:
        """Size, time of modification, and ETag."""
        with self._errors(key):
            answer = self.client.head_object(Bucket=self.name, Key=key)
        return int(answer["ContentLength"]), answer["LastModified"].timestamp(), str(answer["ETag"])

    def copy(self, source: str, target: str) -> None:
        """Give another key the contents of an object of at most 5 GiB."""
        with self._errors(source):
            self.client.copy_object(
                Bucket=self.name, Key=target, CopySource={"Bucket": self.name, "Key": source}
            )

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""
        with self._errors(key):
            self.client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str) -> list[tuple[str, str]]:
        """Key and ETag of all objects below a prefix, in order."""
        with self._errors(prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            return [(found["Key"], found["ETag"]) for page in pages for found in page.get("Contents", ())]

    def children(self, prefix: str, after: str | None, limit: int) -> tuple[list[Entry], str | None]:
        """One page of the names directly below a prefix, and the token of the next page."""
        token = {} if after is None else {"ContinuationToken": after}
        with self._errors(prefix):
            page = self.client.list_objects_v2(
                Bucket=self.name, Prefix=prefix, Delimiter="/", MaxKeys=limit, **token
            )
        names = [Entry(found["Key"][len(prefix) :], False) for found in page.get("Contents", ())]
        names += [Entry(found["Prefix"][len(prefix) : -1], True) for found in page.get("CommonPrefixes", ())]
        return names, page.get("NextContinuationToken")

    def begin(self, key: str) -> str:
        """Begin a multipart upload; its id."""
        with self._errors(key):
            return str(self.client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"])

    def assemble(self, key: str, upload: str, sources: Sequence[str], tick: Callable[[], None]) -> None:
        """Make `key` of other objects, in order; `tick` is called after each."""
        with self._errors(key):
            parts = []
            for number, source in enumerate(sources, 1):
                answer = self.client.upload_part_copy(
                    Bucket=self.name,
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    CopySource={"Bucket": self.name, "Key": source},
                )
                parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
                tick()
            self.client.complete_multipart_upload(
                Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload; no error when it has ended."""
        with suppress(NotFound), self._errors(key):
            self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
