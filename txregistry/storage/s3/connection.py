"""The connection to a bucket: boto3's client, and our errors in place of its own.

Beside `signed.py` nothing else imports the library, and both do so when they need it: few installations have it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from txregistry.errors import LostRace, NoSpace, NotFound, Unavailable
from txregistry.storage.s3.options import S3Options

#: Seconds until a server that does not answer counts as gone, and until one does that was to copy what is large.
CONNECT_SECONDS, READ_SECONDS, COPY_SECONDS = 5, 60, 900
#: Connections that are kept: one for each thread of the pool, and some for bodies that are being read.
CONNECTIONS = 50

_MISSING = ("404", "NoSuchKey", "NoSuchUpload")
_FULL = ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull")


def repeated(error: BaseException) -> bool:
    """Whether the library had sent a request more than once when it failed with this error of ours."""
    response: Any = getattr(error.__cause__, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def _request_checksums(options: S3Options) -> str:
    """When a checksum is sent: without TLS each body's SHA-256 is in the signature, and a CRC besides tells nothing."""
    plain = options.endpoint.startswith("http://") if options.endpoint else not options.secure
    return "when_required" if plain else options.checksums


def _require_whole(operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
    """OSError for an answer that was cut short, unless its body is a stream, which tells that itself.

    `http.client` takes the end of a connection for the end of a head, and botocore what has no body for an empty
    list: what is there would count as missing.
    """
    status, headers, body = (response_dict[name] for name in ("status_code", "headers", "body"))
    if operation_model.http["method"] == "HEAD" or status in (204, 304):
        return
    length, streamed = headers.get("content-length", ""), not isinstance(body, bytes)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        whole = streamed or bool(body)
    else:
        whole = length.isdigit() and (streamed or len(body) == int(length))
    if not whole:
        raise OSError("an answer was cut short")


class Connection:
    """A client of one bucket that threads may share; it connects at the first request."""

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self.name = options.bucket
        self._extra = threading.local()

    @cached_property
    def client(self) -> Any:
        """boto3's client."""
        return self._client(READ_SECONDS)

    @cached_property
    def copying(self) -> Any:
        """Another one, for requests that some servers answer only when they have copied many bytes."""
        return self._client(COPY_SECONDS)

    def close(self) -> None:
        """Close all connections that are idle."""
        for name in ("client", "copying"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def _client(self, read_seconds: int) -> Any:
        import boto3  # noqa: PLC0415 - as the module's text says
        from botocore.config import Config  # noqa: PLC0415

        options = self.options
        session = boto3.session.Session()
        style = {None: "auto", True: "path", False: "virtual"}[options.path_style]
        client = session.client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=options.region or session.region_name or "us-east-1",
            use_ssl=options.secure,
            verify=options.cacert,
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            config=Config(
                s3={"addressing_style": style},
                signature_version="s3v4",
                retries={"mode": "standard", "total_max_attempts": 3},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=read_seconds,
                max_pool_connections=CONNECTIONS,
                proxies={"http": options.proxy, "https": options.proxy} if options.proxy else None,
                request_checksum_calculation=_request_checksums(options),
                response_checksum_validation=options.checksums,
            ),
        )
        client.meta.events.register("before-call.s3.PutObject", self._add_headers)
        client.meta.events.register("before-parse.s3", _require_whole)
        return client

    @contextmanager
    def headers(self, extra: Mapping[str, str]) -> Iterator[None]:
        """Send these headers too with each PUT of an object that this thread makes meanwhile."""
        self._extra.headers = extra
        try:
            yield
        finally:
            self._extra.headers = {}

    def _add_headers(self, params: dict[str, Any], **_: object) -> None:
        params["headers"].update(getattr(self._extra, "headers", {}))

    @contextmanager
    def errors(self, path: str) -> Iterator[None]:
        """Our errors in place of the library's.

        NotFound is what the server says of a key or an upload. That a bucket is missing is an outage, and so is
        everything else that says nothing about the object.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as the module's text says

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status in (409, 412) and code != "BucketNotEmpty":  # 409: a conditional request for the key goes on
                raise LostRace(path, code) from error
            if code in _MISSING:
                raise NotFound(path, code) from error
            if code in _FULL or status == 507:
                raise NoSpace(path, code) from error
            raise Unavailable(path, f"{error.operation_name}: {code or status}") from error
        except (BotoCoreError, OSError) as error:
            raise Unavailable(path, f"{type(error).__name__}: {error}") from error
        except (KeyError, ValueError) as error:  # the connection was cut within the headers
            raise Unavailable(path, f"an answer that cannot be read: {error}") from error

    def check(self) -> None:
        """Unavailable, with one line as the reason, unless the bucket can be listed."""
        # As the module's text says.
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # noqa: PLC0415

        place, name, cacert = self.options.place, self.name, self.options.cacert
        if cacert is not None and not os.path.isfile(cacert):
            raise Unavailable("", f"s3_cacert: there is no file {cacert}")
        try:
            self.client.list_objects_v2(Bucket=name, Prefix=self.options.root, MaxKeys=1)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "NoSuchBucket":
                raise Unavailable("", f"boto_bucket: there is no {place}; it has to be made first") from error
            if error.response["ResponseMetadata"].get("HTTPStatusCode") in (401, 403) or code.endswith("UserNotFound"):
                raise Unavailable("", f"storage: the credentials for {place} are refused ({code})") from error
            raise Unavailable("", f"storage: {place} answers {code}") from error
        except NoCredentialsError as error:
            keys = "gs_access_key" if self.options.google else "s3_access_key"
            raise Unavailable(
                "", f"{keys}: no credentials for {place}, nor in the environment, a profile or a role"
            ) from error
        except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
            line = " ".join(str(error).split())
            raise Unavailable("", f"storage: {place} cannot be used: {line}") from error
