"""Random V1 requests to real servers, one that asks nobody and one with an index: no 5xx, no file outside the root."""

from __future__ import annotations

import collections
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.index_server import Index, make_token
from tests.long import test_fuzz_v2
from tests.long.server import Server
from tests.web.v1.base import archive, image_json, simple, tarsum

STANDALONE, WITH_INDEX = 16_000, 4_000
CLIENTS = 4
SEED = 65
LAYERS = (archive(), gzip.compress(archive(), mtime=0), archive("a/.wh.b", b"x" * 40_000), b"")
#: Image -> its JSON and layer, in a line.
IMAGES = {
    name: (image_json(name, parent), layer)
    for name, parent, layer in zip(
        ("a" * 64, "b" * 64, "0123456789abcdef", "c" * 64), (None, "a" * 64, "b" * 64, None), LAYERS, strict=True
    )
}
IDS = tuple(IMAGES)
#: What makes a path go elsewhere, in any component.
TRAPS = (
    "..",
    ".",
    "../..",
    "a/../..",
    "%2e%2e",
    "%2E%2e%2f%2e%2e",
    "..%2f..%2fimages",
    "%252e%252e%252f",
    "..%5c..",
    "..\\..",
    "%00",
    "a%00",
    "a%0d%0ab",
    "%ff",
    "%c0%ae%c0%ae",
    "%ed%a0%80",
    "%",
    "%zz",
    "/",
    "//",
    "",
    "_inprogress",
    "_index_images",
    "~",
    "x" * 255,
    "x" * 256,
    "x" * 5000,
    "%e2%82%ac" * 90,
    "a?b",
    "a#b",
    "a;b",
    "*",
    "tag_x",
)
REPOSITORIES = ("lab/one", "lab/two", "single", "library/single", "lab/x%25%24_-t", "lab/a/b/c", "images/x")
TAGS = ("latest", "v1", "x", "_", "T" * 128)
ODD_HEADERS = (
    *test_fuzz_v2.ODD_HEADERS,
    *(("X-Docker-Checksum", text) for text in ("", "sha256:", "md5:x", "tarsum+sha256:" + "0" * 64, "\x80", "," * 900)),
    *(("X-Docker-Checksum-Payload", text) for text in ("", "sha256:0", "x" * 3000)),
    *(("If-Modified-Since", text) for text in ("", "0", "Thu, 01 Jan 1970 00:00:00 GMT", "x" * 900, "Thu, 99 Jan 0")),
    *(("Cookie", text) for text in ("session=", "session=x.y.z", "session=" + "A" * 4000, "=;=;", "session=\x80")),
    *(("Authorization", text) for text in ("Basic", "Basic !", "Basic Og==", "Token", "Token " + "a" * 9000)),
    *(("Authorization", text) for text in ("Token repository=../x,access=read", "Basic " + "QQ" * 3000, "\x80 \xff")),
    *(("X-Signature", text) for text in ("", "data=", "data=!;", "data", "data=" + "A" * 400 + ";", ";;=")),
    *(("X-Forwarded-For", text) for text in ("", "1.2.3.4, x", "::" * 900)),
    *(("User-Agent", text) for text in ("", "docker/1.6.2 go/go1.4.2 os/linux", "/" * 3000, "a/b " * 900, "\x80/\x80")),
    ("X-Docker-Token", "true"),
    ("X-Docker-Endpoints", "http://x/v1/"),
    ("X-Docker-Date", "never"),
    ("Origin", "http://x"),
)
ODD_BODIES = (
    *test_fuzz_v2.ODD_BODIES,
    b"null",
    b'"' + b"x" * 70_000 + b'"',
    b'"../../x"',
    b'{"id": "../x"}',
    b'{"id": 1}',
    b'[{"id": ["x"]}]',
    b'[{"id": "a", "Tag": {"x": 1}}, 3]',
    b'{"access": "nobody"}',
    b'{"access": []}',
    b'{"username": "../x", "password": 3}',
    b'{"id": "\\u0000"}',
    archive()[:700],
    LAYERS[1][:-9],
    b"\x1f\x8b" + b"\x00" * 600,
    b"BZh9" + b"\x00" * 90,
    b"\xfd7zXZ\x00" + b"\xff" * 90,
    b"\x28\xb5\x2f\xfd" + b"\xff" * 90,
)


class Client(test_fuzz_v2.Client):
    """Sends V1 requests; with tokens to a server that asks for them."""

    with_tokens = False
    cookie = ""

    def push(self) -> tuple[str, str, bytes]:
        """What belongs to a push, in whatever order it comes."""
        image = self.rng.choice(IDS)
        data, layer = IMAGES[image]
        repository = self.rng.choice(REPOSITORIES)
        listed = json.dumps([{"id": one} for one in IDS]).encode()
        target, body = self.rng.choice((
            (f"/v1/images/{image}/json", data),
            (f"/v1/images/{image}/layer", layer),
            (f"/v1/images/{image}/checksum", b""),
            (f"/v1/repositories/{repository}/tags/{self.rng.choice(TAGS)}", json.dumps(image).encode()),
            (f"/v1/repositories/{repository}/", listed),
            (f"/v1/repositories/{repository}/images", listed),
        ))  # fmt: skip
        return "PUT", target, body

    def trap(self) -> str:
        return self.rng.choice((*TRAPS, self.outside, f"..%2f..%2f{self.outside}"))

    def image(self) -> str:
        return self.trap() if self.rng.random() < test_fuzz_v2.BAD else self.rng.choice((*IDS, "d" * 64))

    def repository(self) -> str:
        chance = self.rng.random()
        if chance < test_fuzz_v2.BAD:
            return self.trap()
        if chance < 2 * test_fuzz_v2.BAD:
            return f"{self.trap()}/{self.rng.choice(('x', self.trap()))}"
        if chance < 3 * test_fuzz_v2.BAD:
            return f"lab/{self.trap()}"
        return self.rng.choice(REPOSITORIES)

    def tag(self) -> str:
        return self.trap() if self.rng.random() < test_fuzz_v2.BAD else self.rng.choice(TAGS)

    def of_image(self) -> tuple[str, str]:
        part = self.rng.choice(("json", "json", "layer", "layer", "ancestry", "checksum", "files", "diff", self.trap()))
        kind = self.rng.choice(("images",) * 5 + ("private_images",))
        usual = ("GET", "HEAD", "PUT", "PUT") if part in {"json", "layer", "checksum"} else ("GET", "GET", "HEAD")
        return self.method(*usual), f"/v1/{kind}/{self.image()}/{part}"

    def of_repository(self) -> tuple[str, str]:
        parts = ("tags", "tags/", "json", "properties", "images", "auth", "", "/")
        part = self.rng.choice((*parts, *(f"tags/{self.tag()}" for _ in range(6)), f"tags/{self.tag()}/json"))
        usual = ("GET", "GET", "GET", "HEAD", "PUT", "PUT", "PUT", "DELETE")
        return self.method(*usual), f"/v1/repositories/{self.repository()}/{part}"

    def of_others(self) -> tuple[str, str]:
        odd = ("", "0", "-1", "9" * 400, "x", "%ff", "%00", "lab", "a%2Fb", self.outside)
        pairs = [f"{name}={self.rng.choice(odd)}" for name in ("q", "n", "page", "x")]
        query = "?" + "&".join(self.rng.sample(pairs, self.rng.randrange(5)))
        paths = ("/v1/search", "/v1/search", "/v1/_ping", "/_ping", "/", "/v1/users/", "/v1/users", "/v1/_status")
        target = self.rng.choice((*paths, f"/v1/users/{self.trap()}/", f"/v1/{self.trap()}", f"/{self.trap()}"))
        return self.method("GET", "GET", "HEAD", "PUT", "POST"), target + query

    def anything(self) -> tuple[str, str]:
        alphabet = ("/v1", "/images/", "/repositories/", "..", "%2e", "%2f", "%00", "\\", "?", "&", "~", "json", "{")
        noise = "".join(self.rng.choice(alphabet) for _ in range(self.rng.randrange(40)))
        return self.method("GET", "PUT", "DELETE"), self.rng.choice(("/v1/", "/", "", "http://x/v1/", "*")) + noise

    kinds = (of_image, of_image, of_image, of_repository, of_repository, of_repository, of_others, anything)

    def headers(self, method: str) -> list[tuple[str, str]]:
        found = [self.rng.choice(ODD_HEADERS) for _ in range(self.rng.choice((0, 0, 1, 1, 3)))]
        data, layer = self.rng.choice(list(IMAGES.values()))
        if method == "PUT" and self.rng.random() < 0.7:
            total = self.rng.choice((simple, tarsum))(data, layer) if layer else simple(data, layer)
            found.append((self.rng.choice(("X-Docker-Checksum", "X-Docker-Checksum-Payload")), total))
        if self.with_tokens and self.rng.random() < 0.85:
            usual = {"GET": "read", "PUT": "write", "DELETE": "delete"}.get(method, "read")
            access = self.mostly((usual,), ("read", "write", "delete", "", "x"))
            repository = self.mostly(("lab/one", "lab/two", "library/single", "lab/x%2525%2524_-t"), (self.trap(),))
            text = make_token(self.rng.choice(("alice", "alice", "bob")), repository, access)
            # Unless it tries what servers make of several, as it is the one that counts.
            found = [one for one in found if one[0] != "Authorization" or self.rng.random() < 0.1]
            found.append(("Authorization", f"{self.mostly(('Token ',), ('', 'token ', 'Basic '))}{text}"))
        return found if method in {"PUT", "PATCH", "POST"} else [one for one in found if one[0] != "Expect"]

    def body(self, method: str, target: str) -> bytes:
        if method not in {"PUT", "PATCH", "POST"} and self.rng.random() < 0.9:
            return b""
        if self.rng.random() < 0.3:
            return self.rng.choice((*ODD_BODIES, self.rng.randbytes(self.rng.randrange(2000))))
        named = [image for image in IDS if image in target]
        data, layer = IMAGES[named[0] if named else self.rng.choice(IDS)]
        for ending, usual in (
            ("/json", data),
            ("/layer", layer),
            ("/checksum", b""),
            ("/properties", self.rng.choice((b'{"access": "private"}', b'{"access": "public"}'))),
        ):
            if target.endswith(ending):
                return usual
        if "/tags/" in target:
            return json.dumps(self.rng.choice(IDS)).encode()
        if "/users" in target:
            return b'{"username": "joe", "password": "12345", "email": "joe@x"}'
        return json.dumps([{"id": image, "checksum": "x"} for image in IDS]).encode()


class TokenClient(Client):
    with_tokens = True


class FuzzTests(SynchronousTestCase):
    """The numbers are those of the line that each test prints."""

    def test_standalone(self) -> None:
        self.check(Client, STANDALONE, None)

    def test_with_an_index(self) -> None:
        index = Index(os.path.abspath(self.mktemp()))
        for repository, user in (("one", "alice"), ("two", "bob"), ("x%$_-t", "alice")):
            index.claim(f"lab/{repository}", user, [*IDS[:3], "d" * 64] if user == "alice" else [IDS[3]])
        index.claim("library/single", "alice", list(IDS))
        index.start("127.0.0.1:1")
        self.addCleanup(index.kill)
        config = {"standalone": False, "index_endpoint": index.url, "secret_key": "k" * 32}
        self.check(TokenClient, WITH_INDEX, config)
        verified = len(index.verifications())
        print(f"{verified} verifications asked of the index")
        # Good answers are kept for a while, and what is no token is never asked about.
        self.assertGreater(verified, WITH_INDEX // 7)

    def check(self, client_class: type[Client], requests: int, config: dict[str, Any] | None) -> None:
        # Deep enough that a few steps up from anywhere in the root still lead into this test's folder.
        base = Path(self.mktemp()).resolve()
        folder = base.joinpath(*"bcdefghijklmnop")
        server = Server(str(folder), config=config)
        server.start()
        self.addCleanup(server.stop)
        clients = [
            client_class(server, SEED + number, requests // CLIENTS, f"{base}/outside") for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
            client.close()
        root = Path(server.storage)
        expected = {folder, *folder.parents, Path(server.log), folder / "config.yml"}
        outside = [path for path in base.rglob("*") if root not in (path, *path.parents) and path not in expected]
        complaints = [text for client in clients for text in client.complaints]
        statuses = sum((client.statuses for client in clients), collections.Counter[int]())
        tracebacks = Path(server.log).read_text(errors="replace").count("Traceback")
        internal = sum(count for status, count in statuses.items() if status >= 500)
        mode = "V1 requests" if config is None else "V1 requests with an index"
        print(f"{statuses.total()} random {mode}, seed {SEED}: {dict(sorted(statuses.items()))}; 5xx: {internal}, "
              f"files outside the root: {len(outside)}, tracebacks: {tracebacks}")  # fmt: skip
        self.assertEqual(complaints[:5], [])
        self.assertEqual((outside, tracebacks), ([], 0))
        self.assertLessEqual(set(os.listdir(root)), {"images", "repositories", "_txregistry"})
        self.look_at_names(root)
        # The requests reached what they were about.
        for status in (200, 304, 400, 404, 405, *((201, 204, 206) if config is None else (401,))):
            self.assertTrue(statuses[status], status)
        self.assertEqual(server.request("GET", "/v1/_ping").status, 200)

    def look_at_names(self, root: Path) -> None:
        """Images and repositories lie where their names say, and have no other files than theirs."""
        parts = {"json", "ancestry", "layer", "_checksum", "_inprogress", "_files", "_diff"}
        self.assertLessEqual(set(os.listdir(root / "images")), {*IDS, "d" * 64})
        for image in (root / "images").iterdir():
            self.assertLessEqual(set(os.listdir(image)), parts, image.name)
        own = re.compile(r"(tag_.+|tag.+_json|json|_private|_index_images|_images_list)\Z", re.DOTALL)
        for repository in (root / "repositories").glob("*/*"):
            for file in repository.iterdir():
                self.assertTrue(file.is_file() and own.match(file.name), file)
