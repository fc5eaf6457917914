"""Random requests to a real server: whatever comes, no answer is an internal error, and no file leaves the root."""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from tests.long.server import TIMEOUT, Server, sha256
from tests.web.v2.base import CONFIG, LAYER, OCI_INDEX, OCI_MANIFEST, descriptor, image, index

REQUESTS = 20_000
CLIENTS = 4
SEED = 20_000
#: The share of names, tags, digests, ... that are none.
BAD = 0.07

NAMES = ("a", "a/b", "a/b/blobs/uploads", "manifests/tags", "x" * 255, "r-1__2.3")
BAD_NAMES = ("A", "..", "../..", "a/../../x", "%2e%2e/%2e%2e/x", "..%2f..%2fx", "a%00b", "a//b", "a/", "_x", "a%ff",
             "x" * 256, "%c3%a4", "a%0d%0ab", ".", "_uploads", "a/_layers", "x/" * 900 + "x", "%", "%zz",
             "a?b", "a#b")  # fmt: skip
TAGS = ("t", "latest", "v1.0-a_b", "T" * 128, "_")
BAD_TAGS = ("-t", ".t", "..", "T" * 129, "%2e%2e%2f%2e%2e", "a%00", "%ff", "a b", "index", "current", "a%0a")
BLOBS = (b"", b"{}", b"layer", b"x" * 70_000)
BAD_DIGESTS = ("sha256:", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64, "sha256:..%2f..",
               "sha256:" + "0" * 63 + "g", "sha512:" + "0" * 64, ":", "sha256:" + "%00" * 64, "SHA256:" + "0" * 64,
               "sha256%3A" + "0" * 64)  # fmt: skip
ODD_HEADERS = (
    *(("Range", text) for text in ("bytes=0-0", "bytes=-1", "bytes=5-2", "bytes=0-1,3-4", "bytes=" + " " * 9000)),
    *(("Content-Range", text) for text in ("0-4", "5-9", "9-5", "bytes 0-4/5", "9" * 500 + "-" + "9" * 600, "-")),
    *(("If-None-Match", text) for text in ("*", '"x"', "W/", '"' * 500, "," * 500)),
    *(("Content-Type", text) for text in ("", "application/json", "text/plain; charset=x", "a" * 3000, "\x80")),
    *(("Accept", text) for text in ("*/*", "", "application/x;q=9", OCI_INDEX)),
    *(("Connection", text) for text in ("close", "keep-alive, x", ",,,")),
    ("Expect", "100-continue"),
    ("If-Range", '"x"'),
    ("Host", "..\\x\x80"),
    ("X-Forwarded-Proto", "x" * 500),
)
#: JSON documents that are no manifests.
ODD_BODIES = (
    b"",
    b"{}",
    b"[" * 100_000,
    b'{"schemaVersion":1e999}',
    b'{"schemaVersion":2,"manifests":{"0":[]}}',
    b'{"schemaVersion":' + b"9" * 5000 + b"}",
    b'{"schemaVersion":2,"schemaVersion":1,"mediaType":"\\ud800"}',
    b'{"schemaVersion":NaN}',
    b"\xff\xfe{\x00}\x00",
    b"\x00" * 100,
    json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"digest": "../../x", "size": -1}}).encode(),
    json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [[], 1, None]}).encode(),
)
FRAMINGS = (
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: -1\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 3000 + b"\r\nhello\r\n0\r\n\r\n",
    b"Transfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
    b" folded: x\r\n\r\n",
    b"\x00: x\r\n\r\n",
    b"X: " + b"x" * 40_000 + b"\r\n\r\n",
)
#: What an error may be called: the specification's codes, and the registries' own.
_CODE = re.compile(r"[A-Z_]+\Z")


class Client(threading.Thread):
    """Sends its share of the requests, and notes what came of them."""

    def __init__(self, server: Server, seed: int, count: int, outside: str) -> None:
        super().__init__()
        self.server = server
        self.rng = random.Random(seed)
        self.count = count
        #: A path that nothing may be written to, as names have it that try.
        self.outside = quote(outside, safe="")
        self.statuses: collections.Counter[int] = collections.Counter()
        self.complaints: list[str] = []
        self.locations = ["/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000"]
        self.manifests = [image(b"{}", [b"layer"]), index(), index([image(b"{}", [b"layer"])])]
        self.connection: socket.socket | None = None

    def run(self) -> None:
        for _ in range(self.count):
            if self.rng.random() < 0.1:
                method, target, body = self.push()
            else:
                method, target = self.rng.choice(self.kinds)(self)
                body = self.body(method, target)
            self.one(method, target, self.headers(method), body)

    # -- making requests -----------------------------------------------------------------------------------------

    def mostly(self, good: tuple[str, ...] | list[str], bad: tuple[str, ...]) -> str:
        return self.rng.choice(bad) if self.rng.random() < BAD else self.rng.choice(good)

    def repository(self) -> str:
        return self.mostly(NAMES, (*BAD_NAMES, self.outside))

    def digest(self) -> str:
        algorithm = self.rng.choice(("sha256", "sha512", "sha384"))
        data = self.rng.choice((*BLOBS, *self.manifests))
        known = (sha256(data), sha256(data), str(descriptor(data, LAYER, algorithm)["digest"]))
        return self.mostly(known, (*BAD_DIGESTS, self.outside))

    def reference(self) -> str:
        return self.digest() if self.rng.random() < 0.4 else self.mostly(TAGS, (*BAD_TAGS, self.outside))

    def query(self, *names: str) -> str:
        values = ("", "0", "1", "-1", "9" * 400, "x", "%ff", "%00", "a%2Fb", CONFIG, "sha512", self.outside)
        pairs = [(name, self.rng.choice((*values, self.digest(), self.repository()))) for name in names]
        chosen = self.rng.sample(pairs, self.rng.randrange(len(pairs) + 1))
        return "?" + "&".join(f"{name}={value.replace('?', '').replace('#', '')}" for name, value in chosen)

    def push(self) -> tuple[str, str, bytes]:
        data = self.rng.choice(BLOBS)
        return "POST", f"/v2/{self.rng.choice(NAMES)}/blobs/uploads/?digest={sha256(data)}", data

    def blob(self) -> tuple[str, str]:
        return self.method("GET", "GET", "HEAD", "DELETE"), f"/v2/{self.repository()}/blobs/{self.digest()}"

    def manifest(self) -> tuple[str, str]:
        target = f"/v2/{self.repository()}/manifests/{self.reference()}"
        return self.method("GET", "HEAD", "PUT", "PUT", "DELETE"), target + self.query("tag")

    def begin(self) -> tuple[str, str]:
        return self.method("POST"), f"/v2/{self.repository()}/blobs/uploads/" + self.query(
            "digest", "mount", "from", "digest-algorithm"
        )

    def session(self) -> tuple[str, str]:
        odd = tuple(f"/v2/a/blobs/uploads/{text}" for text in ("x", "..", "%00", "%0d%0aa", self.outside))
        target = self.mostly(self.locations[-20:], odd)
        method = self.method("GET", "PATCH", "PATCH", "PUT", "PUT", "DELETE")
        return method, f"{target}?digest={self.digest()}" if method == "PUT" else target

    def lists(self) -> tuple[str, str]:
        name = self.repository()
        paths = (f"/v2/{name}/tags/list", "/v2/_catalog", f"/v2/{name}/referrers/{self.digest()}")
        return self.method("GET", "HEAD"), self.rng.choice(paths) + self.query("n", "last", "artifactType")

    def anything(self) -> tuple[str, str]:
        noise = "".join(self.rng.choice("/v2.%0aA:?&=_-~\\\"'<>{}*") for _ in range(self.rng.randrange(200)))
        return self.method("GET", "PUT", "POST"), self.rng.choice(("/v2/", "/", "", "http://x/v2/", "*")) + noise

    kinds: tuple[Callable[[Any], tuple[str, str]], ...] = (
        *(blob, blob, manifest, manifest, begin),
        *(session, session, session, lists, anything),
    )

    def method(self, *usual: str) -> str:
        return self.mostly(usual, ("GET", "OPTIONS", "TRACE", "FOO", "get", "PATCH", "CONNECT", "POST"))

    def headers(self, method: str) -> list[tuple[str, str]]:
        found = [self.rng.choice(ODD_HEADERS) for _ in range(self.rng.choice((0, 0, 0, 1, 1, 3)))]
        if method == "PUT" and self.rng.random() < 0.7:
            found.append(("Content-Type", self.rng.choice((OCI_MANIFEST, OCI_INDEX))))
        # Nobody sends what waits to be asked for, so that it would wait for the idle timeout.
        return found if method in {"PUT", "PATCH", "POST"} else [one for one in found if one[0] != "Expect"]

    def body(self, method: str, target: str) -> bytes:
        if method not in {"PUT", "PATCH", "POST"} and self.rng.random() < 0.9:
            return b""
        usual = self.manifests if "/manifests/" in target else list(BLOBS)
        odd = (*ODD_BODIES, self.rng.randbytes(self.rng.randrange(2000)))
        return self.rng.choice(odd) if self.rng.random() < 0.3 else self.rng.choice(usual)

    # -- sending them --------------------------------------------------------------------------------------------

    def one(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        whole = f"{method} {target} HTTP/1.1\r\n".encode("latin-1", "replace")
        if not any(name == "Host" for name, _ in headers):
            headers = [("Host", "x"), *headers]
        whole += b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
        broken = self.rng.random() < 0.03
        if broken:
            whole += self.rng.choice(FRAMINGS)
        elif body and self.rng.random() < 0.3:
            cut = self.rng.randrange(len(body) + 1)
            pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            whole += b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        else:
            whole += b"Content-Length: %d\r\n\r\n" % len(body) + body
        answer = self.exchange(method, whole)
        if answer is None:
            self.statuses[0] += 1
            if not broken:
                self.complaints.append(f"no answer to {whole[:300]!r}")
            return
        status, location, said_digest, data = answer
        self.statuses[status] += 1
        if location and "/blobs/uploads/" in location:
            self.locations.append(location)
        if status >= 500:
            self.complaints.append(f"{status} to {whole[:300]!r}: {data[:300]!r}")
        elif status == 200 and said_digest and said_digest.startswith("sha256:") and method in {"GET", "get"}:
            if sha256(data) != said_digest:
                self.complaints.append(f"wrong contents: {whole[:300]!r}")
        elif data.startswith(b'{"errors"') and not _CODE.match(json.loads(data)["errors"][0]["code"]):
            self.complaints.append(f"no code: {data[:300]!r}")

    def exchange(self, method: str, whole: bytes) -> tuple[int, str | None, str | None, bytes] | None:
        """Status, two headers and the body; None without an answer. A connection that had ended is opened anew."""
        for _ in range(2):
            fresh = self.connection is None
            if self.connection is None:
                self.connection = socket.create_connection((self.server.address, self.server.port), timeout=TIMEOUT)
            try:
                try:
                    self.connection.sendall(whole)
                except (BrokenPipeError, ConnectionResetError):
                    if not fresh:
                        raise
                response = http.client.HTTPResponse(self.connection, method=method)
                response.begin()
                data = response.read()
            except (OSError, http.client.HTTPException):
                self.close()
                if fresh:
                    return None
                continue
            if response.will_close:
                self.close()
            return response.status, response.getheader("Location"), response.getheader("Docker-Content-Digest"), data
        return None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class FuzzTests(SynchronousTestCase):
    def test_random_requests(self) -> None:
        # Deep enough that a few steps up from anywhere in the root still lead into this test's folder.
        base = Path(self.mktemp()).resolve()
        folder = base.joinpath(*"bcdefghijklmnop")
        server = Server(str(folder))
        server.start()
        self.addCleanup(server.stop)
        clients = [Client(server, SEED + number, REQUESTS // CLIENTS, f"{base}/outside") for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
            client.close()
        root = Path(server.storage)
        expected = {folder, *folder.parents, Path(server.log)}
        outside = [path for path in base.rglob("*") if root not in (path, *path.parents) and path not in expected]
        complaints = [text for client in clients for text in client.complaints]
        statuses = sum((client.statuses for client in clients), collections.Counter[int]())
        tracebacks = Path(server.log).read_text(errors="replace").count("Traceback")
        internal = sum(count for status, count in statuses.items() if status >= 500)
        print(f"{statuses.total()} random requests, seed {SEED}: {dict(sorted(statuses.items()))}; 5xx: {internal},"
              f" files outside the root: {len(outside)}, tracebacks: {tracebacks}, {server.peak():.0f} MB")  # fmt: skip
        self.assertEqual(complaints[:5], [])
        self.assertEqual((outside, tracebacks), ([], 0))
        self.assertLessEqual(set(os.listdir(root)), {"docker", "_txregistry"})
        # The requests reached what they were about.
        for status in (200, 201, 202, 204, 206, 304, 400, 404, 405, 416):
            self.assertTrue(statuses[status], status)
        self.assertEqual(server.request("GET", "/v2/").status, 200)
