"""An S3 mock on 127.0.0.1 that is exact in two things that moto is not, and has a clock that can be advanced.

Requests happen one after another: moto looks whether a key exists and writes it in two steps, so that the
`If-None-Match: *` of two servers could both succeed. An upload that has ended is `NoSuchUpload`, not a failure.
`refuse` makes it refuse what it would serve.
"""

from __future__ import annotations

import io
import itertools
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.serving import make_server

from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.s3.options import S3Options

_numbers = itertools.count()


class S3Mock:
    """A server on a free port, in threads of its own; `endpoint` is its URL."""

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._written: dict[str, float] = {}
        #: How often each object was written, as Google counts; of none 0.
        self.generations: dict[str, int] = {}
        #: The server's clock, in seconds of the epoch.
        self.now = 1_700_000_000.0
        #: What becomes of a request, by its method and path: a status to answer with, or None to serve it.
        self.refuse: Callable[[dict[str, Any]], str | None] = lambda environ: None
        self.requests: list[str] = []
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_QuietHandler)
        self._server.told = self.now_as_date  # type: ignore[attr-defined] # for the handler's Date
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))  # a slow client holds up nobody
        query = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", "")))
        path = environ["PATH_INFO"]

        def answer(status: str, headers: list[tuple[str, str]], *more: object) -> Any:
            if environ["REQUEST_METHOD"] == "PUT" and status.startswith("200"):
                self._written[path] = self.now
                self.generations[path] = self.generations.get(path, 0) + 1
            elif environ["REQUEST_METHOD"] == "DELETE":
                self.generations.pop(path, None)
            changed = self._written.get(path, self.now)
            kept = [
                (name, formatdate(changed, usegmt=True) if name.lower() == "last-modified" else value)
                for name, value in headers
                if name.lower() != "date"
            ]
            kept.append(("x-goog-generation", str(self.generations.get(path, 0))))
            return start_response(status, kept, *more)

        with self._one_at_a_time:
            self.requests.append(f"{environ['REQUEST_METHOD']} {path}")
            refused = self.refuse(environ)
            if refused is not None:
                start_response(refused, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{refused.split(' ', 1)[1]}</Code></Error>".encode()]
            if "uploadId" in query and query["uploadId"] not in self._uploads():
                start_response("404 Not Found", [("Content-Type", "application/xml")])
                return [b"<Error><Code>NoSuchUpload</Code></Error>"]
            return list(self._application(environ, answer))

    def now_as_date(self) -> str:
        """The server's clock as a header has it."""
        return formatdate(self.now, usegmt=True)

    def _uploads(self) -> set[str]:
        buckets = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.values()
        return {upload for bucket in buckets for upload in bucket.multiparts}

    def bucket(self, name: str, **options: Any) -> Bucket:
        """A new bucket."""
        bucket = bucket_at(self.endpoint, name, **options)
        bucket.client.create_bucket(Bucket=name)
        return bucket

    def stop(self) -> None:
        """End the server and its threads, and forget all buckets."""
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"").close()  # moto's buckets are global
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def bucket_at(endpoint: str, name: str, **options: Any) -> Bucket:
    """A bucket of a mock, that may be another process's."""
    given = {"access_key": "testing", "secret_key": "testing", "path_style": True, **options}
    return Bucket(S3Options(bucket=name, endpoint=endpoint, **given))


def as_google(mock: S3Mock) -> None:
    """Refuse what Google's server does not know, and take its own condition in place of S3's."""

    def refuse(environ: dict[str, Any]) -> str | None:
        query = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        if "HTTP_X_AMZ_TRAILER" in environ or "aws-chunked" in environ.get("HTTP_CONTENT_ENCODING", ""):
            return "400 InvalidArgument"
        if "delete" in query or ("partNumber" in query and "HTTP_X_AMZ_COPY_SOURCE" in environ):
            return "501 NotImplemented"
        if environ["REQUEST_METHOD"] == "PUT":
            if "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ:
                return "501 NotImplemented"
            wanted = environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH")
            if wanted is not None and int(wanted) != mock.generations.get(environ["PATH_INFO"], 0):
                return "412 PreconditionFailed"
        return None

    mock.refuse = refuse


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The mock's own time."""
        told: str = self.server.told()  # type: ignore[attr-defined] # set by the mock
        return told


def left(bucket: Bucket, committed: str) -> list[str]:
    """All keys and unfinished multipart uploads, the committed object aside."""
    return [key for key, _ in bucket.keys("") if key != committed] + [upload for _, upload, _ in bucket.uploads()]


def new_mock(test: SynchronousTestCase) -> S3Mock:
    """A mock that ends with the test."""
    mock = S3Mock()
    test.addCleanup(mock.stop)
    return mock


def new_bucket(mock: S3Mock, **options: Any) -> Bucket:
    """A new bucket of a mock."""
    return mock.bucket(f"bucket-{next(_numbers)}", **options)  # two mocks of a process share moto's state


def fill(bucket: Bucket, keys: list[str]) -> None:
    """Put many small objects without the requests."""
    for key in keys:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket.name, bucket.root + key, b"1")
