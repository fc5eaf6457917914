"""What both front ends are asked: images of both protocols over TLS, large bodies, the client's address, passwords."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import secrets
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.clients.base import ClientCase
from tests.clients.images import digest_of
from tests.clients.server import Answer, Registry, make_certificates
from tests.fronts.process import Process
from tests.running import wait_until

#: A client whose address is none of the trusted front ends', and what it says of another.
CLIENT, MADE_UP = "127.0.0.9", "192.0.2.66"
IMAGE = "a" * 64
REPOSITORY = "/v1/repositories/lab/old"
PIECE = 1 << 20
PIECES = 300


class FrontCase(ClientCase):
    """A registry with a front end before it; `serve` of a subclass starts one."""

    settings: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"]}

    def serve(self, folder: Path, passwords: Path | None) -> Process:
        raise AssertionError("each front end has its own")

    def setUp(self) -> None:
        super().setUp()
        # What serves may be another user.
        os.chmod(self.folder, 0o755)
        self.certificates = make_certificates(self.path("tls"))
        self.context = ssl.create_default_context(cafile=self.certificates.ca)
        self.registry: Registry = self.start_registry(config=self.settings)

    def start_front(self, passwords: Path | None = None) -> Process:
        """The front end, which is stopped with the test."""
        self.front = self.serve(Path(self.path("front")), passwords)
        self.addCleanup(self.front.stop)
        self.host = f"localhost:{self.front.port}"
        return self.front

    def connect(self) -> http.client.HTTPSConnection:
        """A connection to the front end from the client's address."""
        connection = http.client.HTTPSConnection(
            "localhost", self.front.port, timeout=60, context=self.context, source_address=(CLIENT, 0)
        )
        self.addCleanup(connection.close)
        return connection

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request through the front end; underscores in header names stand for hyphens. An iterator is chunked."""
        connection = self.connect()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, answered, response.read())
        connection.close()
        return answer

    def lines(self, text: str) -> list[str]:
        """The lines of the registry's access log that have this text."""
        with open(self.registry.log, errors="replace") as log:
            return [line for line in log if '" ' in line and text in line]

    # -- what is asked of both -------------------------------------------------------------------------------------

    def check_skopeo(self) -> None:
        """An image goes up and down by today's protocol."""
        certs = self.path("certs")
        os.makedirs(certs)
        shutil.copy(self.certificates.ca, os.path.join(certs, "ca.crt"))
        remote = f"docker://{self.host}/lab/app:app"
        self.call("skopeo", "copy", "--dest-cert-dir", certs, f"oci:{self.images.layout.path}:app", remote)
        stored = self.registry.manifest("lab/app", "app")
        self.assertEqual(stored.headers["docker-content-digest"], self.images.app["digest"])
        self.call("skopeo", "copy", "--src-cert-dir", certs, remote, f"oci:{self.path('back')}:app")
        self.assert_layout(self.path("back"), self.images.app)

    def push_v1(self, layer: bytes) -> None:
        """An image goes up by the old protocol, its layer chunked as docker sent it."""
        answer = self.ask("PUT", f"{REPOSITORY}/", b'[{"id": "%s"}]' % IMAGE.encode(), X_Docker_Token="true")
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["x-docker-endpoints"], self.host)
        data = b'{"id": "%s"}' % IMAGE.encode()
        self.assertEqual(self.ask("PUT", f"/v1/images/{IMAGE}/json", data).status, 200)
        half = len(layer) // 2
        chunks = iter([layer[:half], layer[half:]])
        put = self.ask("PUT", f"/v1/images/{IMAGE}/layer", chunks)
        self.assertEqual(put.status, 200, put.body)
        checksum = "sha256:" + hashlib.sha256(data + b"\n" + layer).hexdigest()
        self.assertEqual(self.ask("PUT", f"/v1/images/{IMAGE}/checksum", X_Docker_Checksum=checksum).status, 200)
        self.assertEqual(self.ask("PUT", f"{REPOSITORY}/tags/1", b'"%s"' % IMAGE.encode()).status, 200)
        self.assertEqual(self.ask("PUT", f"{REPOSITORY}/images", b'[{"id": "%s"}]' % IMAGE.encode()).status, 204)

    def check_v1(self) -> None:
        """An image goes up and down by the old protocol."""
        layer = secrets.token_bytes(3 << 20)
        self.push_v1(layer)
        self.assertEqual(self.ask("GET", f"{REPOSITORY}/tags").json, {"1": IMAGE})
        self.assertEqual(self.ask("GET", f"/v1/images/{IMAGE}/ancestry").json, [IMAGE])
        pulled = self.ask("GET", f"/v1/images/{IMAGE}/layer")
        self.assertEqual((pulled.status, pulled.body), (200, layer))
        # A slash of a name is escaped on its way.
        self.assertEqual(self.ask("GET", "/v1/repositories/lab%2Fold/tags").json, {"1": IMAGE})

    def check_streaming(self) -> None:
        """Of a large body the registry has the first half before the client sends the second."""
        begun = self.ask("POST", "/v2/lab/large/blobs/uploads/")
        self.assertEqual(begun.status, 202)
        piece = secrets.token_bytes(PIECE)
        whole = hashlib.sha256()
        store = Path(self.registry.storage)

        def stored() -> int:
            found = store.glob("docker/registry/v2/repositories/lab/large/_uploads/*/data")
            return sum(path.stat().st_size for path in found)

        def pieces() -> Iterator[bytes]:
            for number in range(PIECES):
                if number == PIECES // 2:
                    # Some megabytes may be in the buffers of sockets.
                    wait_until(lambda: stored() > PIECES // 2 * PIECE - (32 << 20), "the first half at the registry")
                    self.assertEqual(self.spooled(), 0)
                whole.update(piece)
                yield piece

        location = begun.headers["location"]
        sent = self.ask("PATCH", location, pieces())
        self.assertEqual(sent.status, 202, sent.body)
        digest = "sha256:" + whole.hexdigest()
        location = sent.headers["location"]
        ended = self.ask("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}")
        self.assertEqual(ended.status, 201, ended.body)
        connection = self.connect()
        connection.request("GET", f"/v2/lab/large/blobs/{digest}")
        response = connection.getresponse()
        self.assertEqual((response.status, response.getheader("Docker-Content-Digest")), (200, digest))
        pulled = hashlib.sha256()
        while data := response.read(PIECE):
            pulled.update(data)
        self.assertEqual(pulled.hexdigest(), whole.hexdigest())

    def spooled(self) -> int:
        """Bytes of bodies that the front end keeps in files."""
        return sum(path.stat().st_size for path in Path(self.path("front")).glob("spool/**/*") if path.is_file())

    def check_continue(self) -> None:
        """A client that waits for the word to go on gets it."""
        data = secrets.token_bytes(100_000)
        begun = self.ask("POST", "/v2/lab/app/blobs/uploads/")
        with self.context.wrap_socket(self.connected(), server_hostname="localhost") as secured:
            head = f"PUT {begun.headers['location']}?digest={digest_of(data)} HTTP/1.1\r\nHost: {self.host}\r\n"
            head += f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
            secured.sendall(head.encode())
            answer = secured.makefile("rb")
            self.assertIn(b" 100 ", answer.readline())
            self.assertEqual(answer.readline(), b"\r\n")
            secured.sendall(data)
            self.assertIn(b" 201 ", answer.readline())

    def connected(self) -> Any:
        """A socket to the front end, without TLS."""
        connection = http.client.HTTPConnection("127.0.0.1", self.front.port, timeout=60)
        connection.connect()
        self.addCleanup(connection.close)
        return connection.sock

    def check_refusal(self, size: int) -> None:
        """An answer that comes before a body of `size` bytes was read reaches the client, which is still sending."""
        answer = self.ask("PATCH", f"/v2/lab/app/blobs/uploads/{uuid4()}", bytes(size))
        self.assertEqual((answer.status, answer.json["errors"][0]["code"]), (404, "BLOB_UPLOAD_UNKNOWN"))

    def check_client(self) -> None:
        """The access log has the client's address, whatever it says of another."""
        self.assertEqual(self.ask("GET", "/v2/seen/tags/list", X_Forwarded_For=MADE_UP).status, 404)
        wait_until(lambda: bool(self.lines("/v2/seen/")), "the line of the access log")
        self.assertEqual([line.split()[0] for line in self.lines("/v2/seen/")], [CLIENT])

    def check_passwords(self) -> None:
        """The lines of the configuration that ask for passwords."""
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "sesame"], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        users = Path(self.path("users"))
        users.write_text(f"joe:{hashed}")
        self.start_front(users)
        basic = "Basic " + base64.b64encode(b"joe:sesame").decode()
        refused = self.ask("GET", "/v2/")
        self.assertEqual(refused.status, 401)
        self.assertEqual(refused.headers["docker-distribution-api-version"], "registry/2.0")
        self.assertEqual(refused.headers["www-authenticate"].split()[0], "Basic")
        self.assertEqual(self.ask("PUT", f"{REPOSITORY}/", b"[]").status, 401)
        self.assertEqual(self.lines("PUT /"), [])
        for path in ("/v1/_ping", "/_ping"):
            self.assertEqual((self.ask("GET", path).status, self.ask("GET", path).body), (200, b"true"))
        answer = self.ask("GET", "/v2/", Authorization=basic)
        self.assertEqual((answer.status, answer.headers["docker-distribution-api-version"]), (200, "registry/2.0"))
        self.assertEqual(self.ask("PUT", f"{REPOSITORY}/", b"[]", Authorization=basic).status, 200)
