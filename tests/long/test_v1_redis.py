"""V1 with a Redis that is there, gone, flushed, or each in turn: no request has another status than without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.long.server import Server
from tests.services.redis import RedisServer
from tests.web.v1.base import A, B, C, archive, image_json, simple

LAYER = archive()
READS = 2


def requests() -> list[tuple[str, str, bytes, dict[str, str]]]:
    """A push of two images, all that can be read of them, more than once, and deletes; no `diff`, which may wait."""
    found: list[tuple[str, str, bytes, dict[str, str]]] = []

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> None:
        found.append((method, f"/v1/{path}", body, headers))

    def read() -> None:
        for _ in range(READS):
            for image in (A, B, C):
                for part in ("json", "ancestry", "layer", "files"):
                    ask("GET", f"images/{image}/{part}")
                ask("HEAD", f"images/{image}/json")
            for name in ("a/b", "a/none"):
                for part in ("tags", "tags/latest", "tags/old", "tags/latest/json", "json", "properties", "images"):
                    ask("GET", f"repositories/{name}/{part}")
            ask("GET", "search?q=a")

    for image, parent in ((A, None), (B, A)):
        data = image_json(image, parent)
        ask("PUT", f"images/{image}/json", data, X_Docker_Checksum=simple(data, LAYER))
        ask("GET", f"images/{image}/json")
        ask("PUT", f"images/{image}/layer", LAYER)
        ask("PUT", f"images/{image}/json", data)
    ask("PUT", "repositories/a/b/", json.dumps([{"id": A}, {"id": B}]).encode())
    for tag in ("latest", "old"):
        ask("PUT", f"repositories/a/b/tags/{tag}", json.dumps(B).encode())
    ask("PUT", "repositories/a/b/images", b"[]")
    read()
    ask("DELETE", "repositories/a/b/tags/old")
    read()
    ask("PUT", "repositories/a/b/properties", b'{"access": "private"}')
    read()
    ask("DELETE", "repositories/a/b/")
    read()
    return found


class RedisTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)

    def statuses(self, label: str, config: dict[str, Any] | None, before: Callable[[int], None]) -> list[str]:
        """What a server with an empty store answers to all requests; `before` each one comes a call with its number."""
        server = Server(str(Path(self.mktemp()).resolve() / label), config=config)
        server.start()
        self.addCleanup(server.stop)
        found = []
        for number, (method, path, body, headers) in enumerate(requests()):
            before(number)
            answer = server.request(method, path, body or None, **headers)
            found.append(f"{method} {path}: {answer.status}")
        server.stop()
        return found

    def test_statuses(self) -> None:
        block = {"host": "127.0.0.1", "port": self.redis.port}
        config = {"cache_lru": block, "cache": block}

        def flush(_: int) -> None:
            self.redis.ask("FLUSHALL")

        def in_turn(number: int) -> None:
            """Killed, then back again, some requests later; flushed in between."""
            if number % 10 == 3:
                self.redis.kill()
            elif number % 10 == 6:
                self.redis.start()
            elif number % 10 == 9:
                flush(number)

        plain = self.statuses("without", None, lambda _: None)
        others = {"there": self.statuses("there", config, lambda _: None)}
        self.assertNotEqual(self.redis.ask("DBSIZE"), b":0\r\n")
        others |= {
            "flushed before each request": self.statuses("flushed", config, flush),
            "killed and started in turn": self.statuses("turn", config, in_turn),
        }
        self.redis.stop()
        others["gone"] = self.statuses("gone", config, lambda _: None)
        differences = [
            (label, one, other)
            for label, found in others.items()
            for one, other in zip(plain, found, strict=True)
            if one != other
        ]
        how = ", ".join(others)
        print(f"{len(plain)} V1 requests with Redis {how}: {len(differences)} other statuses than without")
        self.assertEqual(differences, [])
        for status in ("200", "204", "400", "404", "409"):
            self.assertTrue(any(line.endswith(status) for line in plain), status)
