"""From exceptions to answers: the one table of statuses and the one place where a refusal is written.

V2 answers `{"errors": [{"code", "message", "detail"}]}`, V1 `{"error": "..."}` with the texts that its clients compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from txregistry import errors
from txregistry.model.ranges import upload_range
from txregistry.web.messages import answer_json
from txregistry.web.request import RegistryRequest
from txregistry.web.shown import shown

_log = Logger()


@dataclass(frozen=True, slots=True)
class Problem:
    """How an exception is answered: a status, and a V2 code where the exception has none of its own."""

    status: int
    code: str = "UNKNOWN"


#: The nearest class in an exception's inheritance counts.
PROBLEMS: dict[type[BaseException], Problem] = {
    errors.RegistryError: Problem(400),
    errors.NameInvalid: Problem(400),
    errors.TagInvalid: Problem(400),
    errors.DigestInvalid: Problem(400),
    errors.SizeInvalid: Problem(400),
    errors.MalformedBody: Problem(400),
    errors.RangeInvalid: Problem(416),
    errors.PaginationNumberInvalid: Problem(400),
    errors.ManifestInvalid: Problem(400),
    errors.ManifestTooLarge: Problem(413),
    errors.BodyTooLarge: Problem(413),
    errors.Unsupported: Problem(405),
    errors.NameUnknown: Problem(404),
    errors.BlobUnknown: Problem(404),
    errors.ManifestUnknown: Problem(404),
    errors.ManifestBlobUnknown: Problem(400),
    errors.BlobUploadUnknown: Problem(404),
    errors.BlobUploadInvalid: Problem(400),
    errors.UploadBusy: Problem(409),
    errors.Unauthorized: Problem(401),
    errors.Denied: Problem(403),
    errors.TooManyRequests: Problem(429),
    errors.UpstreamUnavailable: Problem(503),
    errors.V1Error: Problem(400),
    errors.V1NotFound: Problem(404),
    errors.V1Conflict: Problem(409),
    errors.StorageError: Problem(503, "UNAVAILABLE"),
    errors.NotFound: Problem(404, "BLOB_UNKNOWN"),
    errors.NoSpace: Problem(507, "UNAVAILABLE"),
    errors.Unavailable: Problem(503, "UNAVAILABLE"),
    errors.ReadOnly: Problem(405, "UNSUPPORTED"),
    errors.Busy: Problem(409, "BLOB_UPLOAD_INVALID"),
    errors.LostRace: Problem(409, "BLOB_UPLOAD_INVALID"),
    errors.WrongOffset: Problem(416, "RANGE_INVALID"),
    errors.TooLarge: Problem(503, "UNAVAILABLE"),
}

#: What a client can do about a failure of the storage; the path stays in the log.
_REMEDIES: dict[type[BaseException], str] = {
    errors.NoSpace: "the registry's storage is full; an operator has to make room",
    errors.ReadOnly: "the registry's storage cannot be written to",
    errors.StorageError: "the registry's storage did not answer as it should; try again later",
}

#: Seconds after which a client may ask again when the storage failed.
_RETRY_AFTER = 5


def problem_of(error: BaseException) -> Problem:
    """The row of the nearest class; an internal error for what nobody foresaw."""
    for kind in type(error).__mro__:
        if kind in PROBLEMS:
            return PROBLEMS[kind]
    return Problem(500)


def is_v1(request: RegistryRequest) -> bool:
    """Whether a request is V1's; its clients read other errors."""
    return not request.path.startswith(b"/v2")


def answer(request: RegistryRequest, status: int, code: str, message: str, detail: object = None) -> bytes:
    """Write a refusal in the request's dialect; the body for Klein to send."""
    if is_v1(request):
        return answer_json(request, status, {"error": message}, indent=4)
    request.setHeader("Docker-Distribution-Api-Version", "registry/2.0")
    entry: dict[str, object] = {"code": code, "message": message}
    if detail is not None:
        entry["detail"] = detail
    return answer_json(request, status, {"errors": [entry]})


def handle_errors(app: Klein) -> None:
    """Let every exception that a route of this app raises be answered here."""

    def answered(request: IRequest, failure: Failure) -> bytes:
        return answer_for(cast(RegistryRequest, request), failure)

    app.handle_errors(Exception)(answered)


def answer_for(request: RegistryRequest, failure: Failure) -> bytes:
    """The answer to a request whose route raised an exception."""
    error = failure.value
    if isinstance(error, CancelledError):
        return b""
    if request.startedWriting:
        # Neither the status nor the promised length can be taken back.
        _log.error("{uri}: cut off: {error!r}", uri=shown(request.uri), error=error)
        request.abandon()
        return b""
    if isinstance(error, errors.RegistryError):
        return _refused(request, error)
    if isinstance(error, errors.StorageError):
        return _storage_failed(request, error)
    if isinstance(error, HTTPException):
        return _not_routed(request, error)
    _log.failure("{method} {uri} failed", failure, method=request.method, uri=shown(request.uri))
    return answer(request, 500, "UNKNOWN", "internal error; the registry's log has the details")


def _refused(request: RegistryRequest, error: errors.RegistryError) -> bytes:
    if isinstance(error, errors.ChunkOutOfOrder):
        request.setHeader("Range", upload_range(error.offset))
    if isinstance(error, errors.TooManyRequests | errors.UploadBusy | errors.UpstreamUnavailable):
        request.setHeader("Retry-After", str(error.retry_after))
    return answer(request, problem_of(error).status, error.code, error.message, error.detail)


def _storage_failed(request: RegistryRequest, error: errors.StorageError) -> bytes:
    problem = problem_of(error)
    _log.error("{method} {uri}: {error!r}", method=request.method, uri=shown(request.uri), error=error)
    if problem.status == 503:
        request.setHeader("Retry-After", str(_RETRY_AFTER))
    remedy = next(_REMEDIES[kind] for kind in type(error).__mro__ if kind in _REMEDIES)
    return answer(request, problem.status, problem.code, remedy)


def _not_routed(request: RegistryRequest, error: HTTPException) -> bytes:
    if isinstance(error, MethodNotAllowed):
        request.setHeader("Allow", ", ".join(sorted(error.valid_methods or ())))
    if error.code == 405:
        return answer(request, 405, "UNSUPPORTED", "this method is not allowed here")
    return answer(request, error.code or 404, "NAME_UNKNOWN", f"no such resource: {error.name}")
