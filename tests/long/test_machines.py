"""Two machines over one bucket, with one secret key and one Redis or none, behave as one."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.index_server import Index, make_token
from tests.clients.tools import missing
from tests.long.server import Halted, Server, ask, begin, sha256
from tests.services.proxy import Proxy
from tests.services.redis import RedisServer
from tests.services.s3 import S3Server
from tests.web.v1.base import A, B, archive, image_json, simple
from tests.web.v2.base import OCI_MANIFEST, image

MIB = 1 << 20
#: How often a tag is moved on one machine and asked for on the other.
MOVES = 50
#: What the documentation says of an old value after a failure, in seconds; and how late a clock of another process
#: and an answer that is under way may make it look.
LIFE, SLACK = 30.0, 1.0
#: After a change nothing is cached at its key for so long, in seconds; a test that wants an entry waits.
GUARD = 10.5
#: For how long Redis does not answer, in seconds.
PAUSE = 5.0
PATIENCE = 60.0
KEY = "that of both machines"


class MachinesCase(SynchronousTestCase):
    """A bucket, a Redis that the first machine reaches through a proxy, and an index, for what needs them."""

    def setUp(self) -> None:
        if importlib.util.find_spec("boto3") is None:
            raise missing("boto3 is not installed")
        self.folder = Path(self.mktemp()).absolute()
        self.s3 = S3Server(str(self.folder / "s3"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(self.s3.stop)
        self.s3.make_bucket("bucket")

    def start_redis(self) -> None:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.proxy = Proxy(self.redis.port)
        self.addCleanup(self.proxy.stop)

    def start_machines(self, redis: bool = False, **config: Any) -> tuple[Server, Server]:
        """Both, each with a folder of its own."""
        ports: list[int | None] = [None, None]
        if redis:
            self.start_redis()
            ports = [self.proxy.port, self.redis.port]
        servers = []
        for number, port in enumerate(ports):
            cache = {"cache_lru": {"host": "127.0.0.1", "port": port}} if port else {}
            settings = {**self.s3.config("bucket"), "secret_key": KEY, **cache, **config}
            server = Server(str(self.folder / f"machine{number}"), storage="/shared", config=settings)
            self.addCleanup(server.stop)
            servers.append(server)
            server.start()
        return servers[0], servers[1]

    def put_manifest(self, server: Server, tag: str, number: int) -> str:
        """Move a tag to a manifest of this number, whose blob is there; its digest."""
        manifest = image(b"{}", [b"layer"], annotations={"number": str(number)})
        answer = server.request("PUT", f"/v2/a/manifests/{tag}", manifest, Content_Type=OCI_MANIFEST)
        self.assertEqual(answer.status, 201, answer.body)
        return sha256(manifest)

    def tagged(self, server: Server, tag: str) -> str:
        """The digest of what a tag is, by the bytes that are served."""
        answer = server.request("GET", f"/v2/a/manifests/{tag}", Accept=OCI_MANIFEST)
        self.assertEqual(answer.status, 200, answer.body)
        return sha256(answer.body)

    def push_blobs(self, server: Server) -> None:
        for data in (b"{}", b"layer"):
            self.assertEqual(server.upload("a", data, sha256(data)).status, 201)


class BothTests(MachinesCase):
    def test_an_upload_goes_on_at_the_other(self) -> None:
        both = self.start_machines()
        data = random.Random(1).randbytes(11 * MIB)
        location = begin(both[0].connect(), "a")
        for number, at in enumerate(range(0, len(data), MIB)):
            connection = both[number % 2].connect()
            headers = {"Content-Range": f"{at}-{at + MIB - 1}", "Content-Type": "application/octet-stream"}
            status, answer, text = ask(connection, "PATCH", location, data[at : at + MIB], headers)
            self.assertEqual((status, answer.get("range")), (202, f"0-{at + MIB - 1}"), text)
            location = answer["location"]
            connection.close()
        status, _, text = ask(both[1].connect(), "PUT", f"{location}?digest={sha256(data)}")
        self.assertEqual(status, 201, text)
        for server in both:
            self.assertEqual(server.request("GET", f"/v2/a/blobs/{sha256(data)}").body, data)

    def moves(self, redis: bool) -> None:
        both = self.start_machines(redis)
        self.push_blobs(both[0])
        stale = slowest = 0.0
        for number in range(MOVES):
            here, there = both if number % 2 else both[::-1]
            wanted = self.put_manifest(here, "moving", number)
            begun = time.monotonic()
            stale += self.tagged(there, "moving") != wanted
            slowest = max(slowest, time.monotonic() - begun)
            stale += here.request("GET", "/v2/a/tags/list").json != there.request("GET", "/v2/a/tags/list").json
        deleted = both[0].request("DELETE", "/v2/a/manifests/moving").status
        answer = both[1].request("GET", "/v2/a/manifests/moving").status
        how = "with Redis" if redis else "without a cache"
        print(f"two machines {how}: {MOVES} tags moved, {stale:.0f} old answers, slowest {1000 * slowest:.0f} ms")
        self.assertEqual((stale, deleted, answer), (0, 202, 404))

    def test_a_tag_moves_without_a_cache(self) -> None:
        self.moves(redis=False)

    def test_a_tag_moves_with_redis(self) -> None:
        self.moves(redis=True)
        self.assertNotEqual(self.redis.ask("DBSIZE"), b":0\r\n")

    def test_one_push_of_v1_at_both(self) -> None:
        both = self.start_machines(redis=True)
        layer = archive()
        documents = {A: image_json(A), B: image_json(B, A)}
        for image_id, data in documents.items():
            path, checksum = f"/v1/images/{image_id}", simple(data, layer)
            first = both[0].request("PUT", f"{path}/json", data)
            cookie = first.headers["set-cookie"].partition(";")[0]
            second = both[1].request("PUT", f"{path}/layer", layer, Cookie=cookie)
            self.assertEqual((first.status, second.status), (200, 200), second.body)
            cookie = second.headers["set-cookie"].partition(";")[0]
            third = both[0].request("PUT", f"{path}/checksum", b"", Cookie=cookie, X_Docker_Checksum=checksum)
            self.assertEqual(third.status, 200, third.body)
        tag = json.dumps(B).encode()
        self.assertEqual(both[1].request("PUT", "/v1/repositories/a/b/tags/latest", tag).status, 200)
        for server in both:
            self.assertEqual(server.request("GET", "/v1/repositories/a/b/tags").json, {"latest": B})
            for image_id, data in documents.items():
                self.assertEqual(server.request("GET", f"/v1/images/{image_id}/layer").body, layer)
                self.assertEqual(server.request("GET", f"/v1/images/{image_id}/json").body, data)

    def test_a_session_of_v1_at_both(self) -> None:
        index = Index(str(self.folder / "index"))
        self.addCleanup(index.kill)
        both = self.start_machines(standalone=False, index_endpoint=index.url)
        index.start(both[0].host)
        index.claim("lab/a", "alice", [A])
        data, layer, tag = image_json(A), archive(), json.dumps(A).encode()
        tags = "/v1/repositories/lab/a/tags"
        # What is asked with a token opens a session that may do the same, but no more.
        steps: list[tuple[str, str, str, bytes | None, dict[str, str]]] = [
            ("write", "PUT", f"/v1/images/{A}/json", data, {"X_Docker_Checksum": simple(data, layer)}),
            ("write", "PUT", f"/v1/images/{A}/layer", layer, {}),
            ("write", "PUT", f"{tags}/latest", tag, {}),
            ("read", "GET", f"/v1/images/{A}/layer", None, {}),
            ("read", "GET", tags, None, {}),
            ("delete", "DELETE", f"{tags}/latest", None, {}),
        ]
        jars: dict[str, dict[str, str]] = {}
        for number, (access, method, path, body, headers) in enumerate(steps):
            here, there = both if number % 2 else both[::-1]
            self.assertEqual(there.request(method, path, body, **headers).status, 401)
            how = {name.replace("_", "-"): value for name, value in headers.items()}
            if access in jars:
                how["Cookie"] = "; ".join(f"{name}={value}" for name, value in jars[access].items())
            else:
                how["Authorization"] = f"Token {make_token('alice', 'lab/a', access)}"
            connection = here.connect()
            connection.request(method, path, body, how)
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200, (path, answer.read()))
            for name, text in answer.getheaders():
                if name.lower() == "set-cookie":
                    cookie, _, value = text.partition(";")[0].partition("=")
                    jars.setdefault(access, {})[cookie] = value
            connection.close()
        print(f"two machines: {len(steps)} V1 requests in turn by {len(jars)} sessions, none refused")

    def test_a_stalled_machine_wakes(self) -> None:
        """It sleeps in the middle of a PATCH; the other one goes on from what was acknowledged, and finishes."""
        both = self.start_machines()
        asleep, other = both
        data = random.Random(2).randbytes(14 * MIB)
        location = begin(asleep.connect(), "a")
        status, answer, text = ask(asleep.connect(), "PATCH", location, data[: 6 * MIB])
        self.assertEqual((status, answer["range"]), (202, f"0-{6 * MIB - 1}"), text)
        location = answer["location"]
        halted = Halted(asleep, "PATCH", location, 8 * MIB)
        halted.send(os.urandom(6 * MIB))  # something else, so that it can be told apart
        time.sleep(0.5)
        os.kill(asleep.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                found = other.request("GET", location)
                at = int(found.headers["range"].rpartition("-")[2]) + 1
                self.assertGreaterEqual(at, 6 * MIB)
                self.assertEqual(at, 6 * MIB, "what nobody acknowledged counts as sent")
                with contextlib.suppress(OSError):  # refused before all of it was sent
                    status, answer, text = ask(other.connect(), "PATCH", location, data[at:])
                    if status == 202:
                        break
                    self.assertIn(status, (409, 416), text)
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.5)
            location = answer["location"]
            status, _, text = ask(other.connect(), "PUT", f"{location}?digest={sha256(data)}")
            self.assertEqual(status, 201, text)
        finally:
            os.kill(asleep.pid, signal.SIGCONT)
        halted.send(os.urandom(2 * MIB))
        late = halted.answer()
        bodies = [server.request("GET", f"/v2/a/blobs/{sha256(data)}").body for server in both]
        lost = sum(body != data for body in bodies)
        print(f"a stalled machine was overtaken and woke: answered {late}, acknowledged bytes lost on {lost} machines")
        self.assertEqual(lost, 0)
        self.assertNotIn(late, (201, 202))


class FailureTests(MachinesCase):
    """The cache fails: how long after it the other machine gives an old answer."""

    def longest(self, what: str, fails: Callable[[], None], heals: Callable[[], None] | None = None) -> None:
        """The time from the move of a tag to the last old answer, which an entry of the cache may still give."""
        here, there = self.start_machines(redis=True)
        self.push_blobs(here)
        old = self.put_manifest(here, "moving", 1)
        time.sleep(GUARD)
        self.assertEqual(self.tagged(there, "moving"), old)
        keys = self.redis.ask("KEYS", "*/tags/moving/current/link")
        self.assertIn(b"current/link", keys, "nothing is cached that could be old")
        fails()
        new = self.put_manifest(here, "moving", 2)
        moved = time.monotonic()
        last_old = moved
        slowest = 0.0
        asked = 0
        while time.monotonic() < moved + LIFE + 4 * SLACK:
            begun = time.monotonic()
            found = self.tagged(there, "moving")
            slowest = max(slowest, time.monotonic() - begun)
            asked += 1
            if found != new:
                self.assertEqual(found, old)
                last_old = time.monotonic()
            # The machine that moved it knows.
            self.assertEqual(self.tagged(here, "moving"), new)
            if heals is not None and time.monotonic() > moved + PAUSE:
                heals()
                heals = None
            time.sleep(0.05)
        longest = last_old - moved
        print(f"{what}: {asked} requests, longest time of old answers {longest:.1f} s, slowest {1000 * slowest:.0f} ms")
        self.assertEqual(self.tagged(there, "moving"), new)

    def test_one_machine_is_cut_off_from_redis(self) -> None:
        self.longest(
            "one machine cut off from Redis as it moves a tag", lambda: self.proxy.cut(up=True, after=0, times=1 << 20)
        )

    def test_one_machine_is_cut_off_for_a_while(self) -> None:
        self.longest(
            "one machine cut off from Redis for 5 s",
            lambda: self.proxy.cut(up=True, after=0, times=1 << 20),
            lambda: self.proxy.mend(),
        )

    def test_redis_stalls(self) -> None:
        def stalls() -> None:
            self.redis.ask("CLIENT", "PAUSE", str(int(1000 * PAUSE)), "ALL")

        self.longest("Redis stalled for 5 s", stalls)

    def test_redis_is_killed(self) -> None:
        self.longest("Redis killed and started after 5 s", lambda: self.redis.kill(), lambda: self.redis.start())
