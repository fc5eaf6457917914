"""Every error that crosses a layer, each with the code by which `web/problems.py` finds its answer.

Storage raises `StorageError`s, `model` and `core` raise `RegistryError`s. Nobody but the web layer knows a status.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.defer import CancelledError


class RegistryError(Exception):
    """Something a client asked for cannot be done; `detail` says why and what would help.

    `message` is one sentence for people; `detail` is JSON-serialisable and names the offending part.
    """

    code: ClassVar[str] = "UNKNOWN"
    text: ClassVar[str] = "unknown error"

    def __init__(self, detail: object = None, *, message: str | None = None) -> None:
        self.message = message or self.text
        self.detail = detail
        super().__init__(f"{self.message}: {detail}" if detail is not None else self.message)


# -- what a request names or carries ------------------------------------------------------------------------


class NameInvalid(RegistryError):
    """A repository name that the grammar does not allow."""

    code, text = "NAME_INVALID", "invalid repository name"


class TagInvalid(RegistryError):
    """A tag that the grammar does not allow."""

    code, text = "TAG_INVALID", "invalid tag"


class DigestInvalid(RegistryError):
    """A digest that is malformed, of an unknown algorithm, or not that of the content."""

    code, text = "DIGEST_INVALID", "provided digest did not match uploaded content or is malformed"


class SizeInvalid(RegistryError):
    """A body whose length is not what its headers promised."""

    code, text = "SIZE_INVALID", "provided length did not match content length"


class RangeInvalid(RegistryError):
    """A range that cannot be satisfied, or an upload chunk that is not the next one."""

    code, text = "RANGE_INVALID", "requested range not satisfiable"


class ChunkOutOfOrder(RangeInvalid):
    """An upload chunk that does not begin where the upload ends; `offset` is where it does."""

    text = "upload chunk out of order"

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next chunk has to begin at byte {offset}")
        self.offset = offset


class PaginationNumberInvalid(RegistryError):
    """A page size that is not a number of zero or more."""

    code, text = "PAGINATION_NUMBER_INVALID", "invalid number of results requested"


class ManifestInvalid(RegistryError):
    """A manifest that cannot be understood; `detail` has a JSON pointer to the offending field."""

    code, text = "MANIFEST_INVALID", "manifest invalid"


class ManifestTooLarge(ManifestInvalid):
    """A manifest larger than the configured limit."""

    text = "manifest too large"


class BodyTooLarge(RegistryError):
    """A request body larger than its route takes; `limit` is in bytes."""

    code, text = "SIZE_INVALID", "request body too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} bytes are accepted here")
        self.limit = limit


class Unsupported(RegistryError):
    """An operation that is switched off or not offered."""

    code, text = "UNSUPPORTED", "the operation is unsupported"


# -- what is not there ----------------------------------------------------------------------------------------


class NameUnknown(RegistryError):
    """No such repository."""

    code, text = "NAME_UNKNOWN", "repository name not known to registry"


class BlobUnknown(RegistryError):
    """No such blob in this repository."""

    code, text = "BLOB_UNKNOWN", "blob unknown to registry"


class ManifestUnknown(RegistryError):
    """No such tag or manifest in this repository."""

    code, text = "MANIFEST_UNKNOWN", "manifest unknown"


class ManifestBlobUnknown(RegistryError):
    """A manifest names blobs or manifests that the repository lacks; `detail` is one digest for each."""

    code, text = "MANIFEST_BLOB_UNKNOWN", "manifest references a manifest or blob unknown to registry"

    def __init__(self, missing: list[str]) -> None:
        super().__init__({"missing": missing, "remedy": "push these to this repository first"})
        self.missing = missing


class BlobUploadUnknown(RegistryError):
    """No such upload session in this repository, or one that has ended."""

    code, text = "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"


class BlobUploadInvalid(RegistryError):
    """An upload that cannot go on as asked."""

    code, text = "BLOB_UPLOAD_INVALID", "blob upload invalid"


class UploadBusy(RegistryError):
    """Another request is writing to this upload session."""

    code, text = "BLOB_UPLOAD_INVALID", "another request is writing to this upload"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s, or begin a new upload")
        self.retry_after = retry_after


# -- who may do what -------------------------------------------------------------------------------------------


class Unauthorized(RegistryError):
    """No credentials, or ones that are not valid."""

    code, text = "UNAUTHORIZED", "authentication required"


class Denied(RegistryError):
    """Valid credentials without the right to do this."""

    code, text = "DENIED", "requested access to the resource is denied"


class TooManyRequests(RegistryError):
    """The client asks too often; try again after `retry_after` seconds."""

    code, text = "TOOMANYREQUESTS", "too many requests"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


class UpstreamUnavailable(RegistryError):
    """Another server, on whose word the answer depends, did not answer; try again after `retry_after` seconds."""

    code, text = "UNAVAILABLE", "a server that has to be asked does not answer; try again later"

    def __init__(self, detail: str, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


# -- V1 --------------------------------------------------------------------------------------------------------


class V1Error(RegistryError):
    """A refusal with the exact text that V1 clients compare; `text` is that text."""

    code = "V1_INVALID"


class V1NotFound(V1Error):
    """A V1 image, tag or repository that is not there."""

    code = "V1_NOT_FOUND"


class V1Conflict(V1Error):
    """A V1 request that the state of the image does not allow."""

    code = "V1_CONFLICT"


# -- the connection --------------------------------------------------------------------------------------------


class ClientGone(CancelledError):
    """The client closed the connection before its request was whole; an ordinary event.

    It cancels what is done for that client, and is logged as little as any cancel.
    """


class MalformedBody(RegistryError):
    """A request body whose framing is broken."""

    code, text = "SIZE_INVALID", "malformed request body"


# -- storage ---------------------------------------------------------------------------------------------------


class StorageError(Exception):
    """A storage verb failed; `path` is relative to the root."""

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else path)
        self.path = path
        self.reason = reason


class NotFound(StorageError):
    """There is nothing at this path (never said of an engine that did not answer)."""


class NoSpace(StorageError):
    """The engine is full or over its quota."""


class Unavailable(StorageError):
    """The engine did not answer, or answered with a failure that says nothing about the object."""


class ReadOnly(StorageError):
    """The engine refuses writes."""


class Busy(StorageError):
    """Somebody else holds this partial object and is writing to it; `retry_after` is in seconds."""

    def __init__(self, path: str, retry_after: int = 5) -> None:
        super().__init__(path, "held by another request")
        self.retry_after = retry_after


class LostRace(StorageError):
    """A conditional put found another version, or a partial object was taken over or finished by another."""


class WrongOffset(StorageError):
    """A write to a partial object that does not continue where it ends; `offset` is where it does."""

    def __init__(self, path: str, offset: int) -> None:
        super().__init__(path, f"the partial object ends at {offset}")
        self.offset = offset


class TooLarge(StorageError):
    """An object larger than the caller was ready to hold in memory."""
