"""Hot answers: what is usual, what is kept, and that each is what the route would have answered."""

import base64
import json
import os
import random
import re
import time
from hashlib import sha256
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from unittest import skipUnless
from urllib.parse import quote

from klein import Klein
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer_only

from tests.core.local_store import memory_folder
from tests.running import Running
from tests.web.v1.base import archive, image_json, simple
from tests.web.v2.base import OCI_INDEX, OCI_MANIFEST, image, index
from txregistry.auth.factory import AccessOptions, check, make_guard
from txregistry.auth.guard import Guard
from txregistry.concurrency import Shields
from txregistry.core.policy import Policy
from txregistry.core.proofs import Proof
from txregistry.core.registry import Registry
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import Digest
from txregistry.storage.local import LocalDriver
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.agent import Agent, request_head
from txregistry.testing.pools import ImmediatePool, result_of
from txregistry.web.app import WebOptions, make_resource
from txregistry.web.cors import CorsRules
from txregistry.web.hot import KEPT_BYTES, Hot, Usual, keep
from txregistry.web.proxies import TrustedProxies

HEAD = b"GET /v2/a/manifests/b HTTP/1.1\r\nHost: c\r\n"
DATE = re.compile(rb"\r\nDate: [^\r]*")
LOCAL = "tcp:0:interface=127.0.0.1"
#: A user's lines of the users file: with the password "first", with "second", none. Bcrypt of the least cost.
BOB = [
    "bob:$2b$04$KbuphvSIOgyQGLHFgAIKKe5QqSSm.KkkkiNlrvlFpW3YNKIgos2Ka\n",
    "bob:$2b$04$dnKtL90J/JJISPDk.9Zj8.rrdcduwOwL3Qd7P8tGgQ5CJJzl/Is/C\n",
    "",
]


class UsualTests(SynchronousTestCase):
    def test_usual(self):
        usual = Usual.parse(
            b"HEAD /x HTTP/1.1\r\nHOST: c\r\nuser-agent:  curl \r\nAccept: a\r\nAccept: b\r\nConnection: Keep-Alive\r\n"
            b"X-Forwarded-For: 1\r\nx-forwarded-for: 2\r\nAuthorization: Basic x\r\n\r\n"
        )
        assert usual is not None
        self.assertEqual(usual.line, "HEAD /x HTTP/1.1")
        self.assertEqual(
            usual.headers, {"host": "c", "user-agent": "curl", "connection": "Keep-Alive", "authorization": "Basic x"}
        )
        self.assertEqual(usual.forwarded, {"x-forwarded-for": ["1", "2"]})

    def test_unusual(self):
        """Whatever Twisted would read in another way, refuse, or answer in another way."""
        self.assertIsNotNone(Usual.parse(HEAD + b"\r\n"))
        for lines in [
            b"Range: bytes=0-1\r\n",
            b"If-None-Match: *\r\n",
            b"If-Modified-Since: x\r\n",
            b"Expect: 100-continue\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Upgrade: h2c\r\n",
            b"Origin: http://x\r\n",
            b"Cookie: a=b\r\n",
            b"X-Signature: data=x\r\n",
            b"X-Meta-Auth-Token: x\r\n",
            b"Referer: http://x/\r\n",
            b"Connection: close\r\n",
            b"Connection: keep-alive, close\r\n",
            b"Host: d\r\n",
            b"User-Agent: a\r\nUser-Agent: b\r\n",
            b"Authorization: a\r\nAuthorization: b\r\n",
            b"User-Agent: \xc3\xa4\r\n",
            b"User-Agent: a\tb\r\n",
            b"User-Agent: a\nb\r\n",
            b"User-Agent: a\rb\r\n",
            b"User-Agent: a\0b\r\n",
            b"User-Agent : a\r\n",
            b"User-Agent: a\r\n b\r\n",
            b"Accept\r\n",
            b"Accept: a\r\n" * 200,
            b"Accept: " + b"a" * 9000 + b"\r\n",
        ]:
            self.assertIsNone(Usual.parse(HEAD + lines + b"\r\n"), lines)
        for whole in [
            b"",
            HEAD,
            HEAD + b"\r\n" + b"x",
            HEAD + b"\r\n" + HEAD + b"\r\n",
            HEAD + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ]:
            self.assertIsNone(Usual.parse(whole), whole)

    def test_passwords_are_not_remembered(self):
        for name in (b"Authorization", b"AUTHORIZATION", b"authorization"):
            head = HEAD + name + b": Basic eDp5\r\n\r\n"
            self.assertEqual(Usual.of(head), Usual.parse(head))
            self.assertIsNot(Usual.of(head), Usual.of(head))
        self.assertIs(Usual.of(HEAD + b"\r\n"), Usual.of(HEAD + b"\r\n"))


class World:
    """Three workers over one folder: one that keeps answers, one that does not, and one that writes.

    They have one clock. `lines` are what the first two wrote to their access logs.
    """

    def __init__(self, case, options=None, policy=None, proxies=None, users=False, hot_bytes=None, folder=None):
        self.folder = folder or os.path.abspath(case.mktemp())
        self.clock = Clock()
        self.clock.advance(time.time())
        self.lines: tuple[list[str], list[str]] = ([], [])
        self.users = f"{self.folder}-users" if users else None
        self.changes = 0
        self.set_users(BOB[0])
        self.guards: list[Guard] = []
        self.agents = [self._worker(lines, options, policy, proxies) for lines in (*self.lines, [])]
        self.writers = [Agent(agent.site.resource, self.clock) for agent in self.agents]
        site = self.agents[0].site
        self.hot = site.hot = Counting(site, self.guards[0], hot_bytes or KEPT_BYTES)
        self.connections = [None, None]

    def _worker(self, lines, options, policy, proxies):
        driver = LocalDriver(self.folder, ImmediatePool(), self.clock)
        driver.prepare()
        registry = Registry(driver, policy or Policy(), Shields(), self.clock)
        access = AccessOptions(users_file=self.users)
        guard = make_guard(access, check(access), driver, ImmediatePool(), self.clock, lambda _path: True)
        agent = Agent(make_resource(registry, options, guard), self.clock, access_log=lines.append, peer="192.0.2.1")
        agent.site.proxies = proxies
        self.guards.append(guard)
        return agent

    def set_users(self, line):
        """Another process changes the users file, a moment later than before."""
        self.line = line
        if self.users is not None:
            self.changes += 1
            with open(f"{self.users}.new", "w") as file:
                file.write(line)
            os.utime(f"{self.users}.new", (self.changes, self.changes))
            os.replace(f"{self.users}.new", self.users)

    def ask(self, raw, worker=0):
        """What a worker answers to bytes that come at once, and whether it ends the connection."""
        connection = self.connections[worker]
        if connection is None or connection.closed or connection.half_closed:
            connection = self.connections[worker] = self.agents[worker].connect()
        connection.send(raw)
        answer = bytes(connection.received)
        connection.received.clear()
        return DATE.sub(b"", answer), connection.closed or connection.half_closed

    def both(self, raw):
        """The same of both."""
        return self.ask(raw, 0), self.ask(raw, 1)

    def write(self, method, target, headers=None, body=b"", worker=2):
        """Let a worker do something that is in no access log."""
        return result_of(self.writers[worker].request(method, target, headers, body))

    def push(self, name, tag, config=b"{}", headers=None, worker=2):
        """Push an image of V2; its manifest."""
        for blob in (config, b"layer"):
            target = f"/v2/{name}/blobs/uploads/?digest={Digest.of(blob)}"
            self.write("POST", target, headers, blob, worker)
        manifest, headers = image(config), {"Content-Type": OCI_MANIFEST, **(headers or {})}
        pushed = self.write("PUT", f"/v2/{name}/manifests/{tag}", headers, manifest, worker)
        assert pushed.code == 201, pushed
        return manifest

    def push_v1(self, image_id, headers=None, worker=2):
        """Push an image of V1, unless it is there."""
        layer, data = archive(content=image_id.encode()), image_json(image_id)
        announced = {"X-Docker-Checksum": simple(data, layer), **(headers or {})}
        self.write("PUT", f"/v1/images/{image_id}/json", announced, data, worker)
        self.write("PUT", f"/v1/images/{image_id}/layer", headers, layer, worker)

    def logs(self):
        """The whole access logs of both."""
        for agent in self.agents[:2]:
            agent.site.flush_log()
        return ["".join(lines) for lines in self.lines]


class Counting(Hot):
    """Counts what it answers, by the kind of target."""

    def __init__(self, site, guard, limit=KEPT_BYTES):
        super().__init__(site, guard, limit)
        self.counts = {}

    def answer(self, channel, head):
        answer = super().answer(channel, head)
        if answer is not None:
            method, target, _ = head.split(b" ", 2)
            kind = b" ".join([method, *re.findall(rb"manifests/sha|manifests|blobs|json|ancestry|tags", target)])
            self.counts[kind.decode()] = self.counts.get(kind.decode(), 0) + 1
        return answer


def get(target, *headers, method="GET"):
    return request_head(method, target, headers)


class KeptTests(SynchronousTestCase):
    """What is kept, and for how long."""

    def hot(self, world, raw, times=1):
        """An answer that was given without the route, and is the same as the route's."""
        before = sum(world.hot.counts.values())
        here, there = world.both(raw)
        self.assertEqual(here, there)
        self.assertEqual(sum(world.hot.counts.values()) - before, times, raw)
        return here[0]

    def cold(self, world, raw):
        return self.hot(world, raw, 0)

    def test_what_is_hot(self):
        world = World(self)
        manifest = world.push("a", "one")
        world.write("PUT", "/v2/a/manifests/list", {"Content-Type": OCI_INDEX}, index([manifest]))
        world.push_v1("1" * 64)
        world.write("PUT", "/v1/repositories/a/b/tags/c", None, json.dumps("1" * 64).encode())
        for target in [
            "/v2/a/manifests/one",
            "/v2/a/manifests/list",
            f"/v2/a/manifests/{Digest.of(manifest)}",
            f"/v2/a/blobs/{Digest.of(b'layer')}",
            f"/v1/images/{'1' * 64}/json",
            f"/v1/images/{'1' * 64}/ancestry",
            "/v1/repositories/a/b/tags/c",
        ]:
            self.cold(world, get(target))
            self.assertTrue(self.hot(world, get(target)).startswith(b"HTTP/1.1 200"))
            self.hot(world, get(target, method="HEAD"))
            world.clock.advance(1)
            self.hot(world, get(target, ("Accept", "x"), ("User-Agent", "y")))
        lists = ["/v2/a/tags/list", "/v2/_catalog", "/v1/repositories/a/b/tags"]
        for target in ["/v2/", "/v2/a/manifests/two", "/v1/_ping", *lists]:
            self.cold(world, get(target))
            self.cold(world, get(target))
        here, there = world.logs()
        self.assertEqual(here, there)
        self.assertEqual(len(here.splitlines()), 7 * 4 + 6 * 2)

    def test_head_first(self):
        """What HEAD let be kept has no body; it is given once somebody has asked for that. Large ones never are."""
        world = World(self)
        world.push("a", "one")
        for size, found in ((70_000, 0), (10, 1)):
            blob = b"1" * size
            world.write("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(blob)}", None, blob)
            target = f"/v2/a/blobs/{Digest.of(blob)}"
            self.cold(world, get(target, method="HEAD"))
            self.hot(world, get(target, method="HEAD"))
            self.cold(world, get(target))
            self.hot(world, get(target), found)
            self.hot(world, get(target, method="HEAD"))

    def test_changes_by_another_worker_count_at_once(self):
        world = World(self)
        first = world.push("a", "tag")
        by_tag, by_digest = get("/v2/a/manifests/tag"), get(f"/v2/a/manifests/{Digest.of(first)}")
        blob = get(f"/v2/a/blobs/{Digest.of(b'layer')}", method="HEAD")
        for raw in (by_tag, by_digest, blob):
            self.cold(world, raw)
            self.hot(world, raw)
        second = world.push("a", "tag", b"[]")
        self.assertTrue(self.cold(world, by_tag).endswith(second))
        self.hot(world, by_tag)
        self.hot(world, by_digest)
        world.write("DELETE", f"/v2/a/manifests/{Digest.of(second)}")
        self.assertIn(b" 404 ", self.cold(world, by_tag))
        world.write("DELETE", f"/v2/a/manifests/{Digest.of(first)}")
        self.assertIn(b" 404 ", self.cold(world, by_digest))
        world.write("DELETE", f"/v2/a/blobs/{Digest.of(b'layer')}")
        self.assertIn(b" 404 ", self.cold(world, blob))
        self.assertEqual(world.hot.size, 0)

    def test_one_worker_moves_a_tag_there_and_back(self):
        """The answer of before is not taken for that of now, nor is anything stale left behind."""
        world = World(self)
        for config in (b"{}", b"[]", b"{}", b"[]"):
            world.push("a", "tag", config)
            self.assertTrue(self.cold(world, get("/v2/a/manifests/tag")).endswith(image(config)))
            self.assertTrue(self.hot(world, get("/v2/a/manifests/tag")).endswith(image(config)))

    def test_bounded(self):
        """What was not asked for the longest goes first, and what is large is not kept."""
        world = World(self, hot_bytes=40_000)
        world.push("a", "tag")
        blobs = [b"%d" % number for number in range(30)]
        for blob in [*blobs, b"1" * 3000]:
            world.write("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(blob)}", None, blob)
        for blob in blobs:
            self.cold(world, get(f"/v2/a/blobs/{Digest.of(blob)}"))
            self.assertLessEqual(world.hot.size, 40_000)
            self.hot(world, get(f"/v2/a/blobs/{Digest.of(blobs[0])}"))
        self.cold(world, get(f"/v2/a/blobs/{Digest.of(blobs[1])}"))
        for _ in range(2):
            self.cold(world, get(f"/v2/a/blobs/{Digest.of(b'1' * 3000)}"))

    def test_long_targets_count(self):
        """V1 takes any number of slashes at the beginning, so that one answer has as many targets as a client likes."""
        world = World(self, hot_bytes=40_000)
        world.push_v1("1" * 64)
        for slashes in range(6000, 6020):
            self.cold(world, get("/" * slashes + f"v1/images/{'1' * 64}/json"))
        self.hot(world, get("/" * 6019 + f"v1/images/{'1' * 64}/json"))
        self.assertLess(sum(map(len, world.hot._kept)), 40_000)

    def test_where_nothing_can_be_proven_nothing_is_kept(self):
        """On a network file system, for one: its driver does not offer to be looked into."""
        clock = Clock()
        for proves in (True, False):
            kind = MemoryDriver if proves else Remote
            registry = Registry(kind(clock), Policy(), Shields(), clock)
            agent = Agent(make_resource(registry), clock)
            agent.site.hot = hot = Counting(agent.site, None)
            for blob in (b"{}", b"layer"):
                result_of(agent.request("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(blob)}", body=blob))
            result_of(agent.request("PUT", "/v2/a/manifests/b", {"Content-Type": OCI_MANIFEST}, image()))
            for target in ["/v2/a/manifests/b", f"/v2/a/blobs/{Digest.of(b'layer')}"] * 2:
                self.assertEqual(result_of(agent.request("GET", target)).code, 200)
            self.assertEqual(sum(hot.counts.values()), 2 if proves else 0)

    def test_private_repositories(self):
        """An image is not shown to who speaks of one, also when it becomes private only now."""
        world = World(self)
        world.push_v1("1" * 64)
        target = f"/v1/images/{'1' * 64}/json"
        token = ("Authorization", 'Token signature=X,repository="a/b",access=read')
        self.cold(world, get(target))
        self.hot(world, get(target, token))
        world.write("PUT", "/v1/repositories/a/b/properties", None, b'{"access": "private"}')
        self.assertIn(b" 404 ", self.cold(world, get(target, token)))
        self.hot(world, get(target))
        world.write("PUT", "/v1/repositories/a/b/properties", None, b'{"access": "public"}')
        self.hot(world, get(target, token))

    @skipUnless(find_spec("bcrypt"), "bcrypt is not installed")
    def test_accounts(self):
        """Only for whoever was let in a moment ago, and would be let in now."""
        world = World(self, users=True)
        headers = dict([basic("bob", "first")])
        world.push("a", "tag", headers=headers)
        target = "/v2/a/manifests/tag"
        for _ in range(2):
            self.assertIn(b" 401 ", self.cold(world, get(target)))
            self.assertIn(b" 401 ", self.cold(world, get(target, basic("bob", "wrong"))))
            self.assertIn(b" 401 ", self.cold(world, get(target, basic("eve", "first"))))
            self.assertIn(b" 200 ", world.both(get(target, basic("bob", "first")))[0][0])
            self.hot(world, get(target, basic("bob", "first")))
        # A path of V2, whatever it looks like.
        self.cold(world, get("/" + target, basic("bob", "first")))
        self.assertIn(b" 401 ", self.cold(world, get("/" + target)))
        self.hot(world, get("/" + target, basic("bob", "first")))
        world.set_users(BOB[1])
        self.assertIn(b" 401 ", self.cold(world, get(target, basic("bob", "first"))))
        self.cold(world, get(target, basic("bob", "second")))
        self.hot(world, get(target, basic("bob", "second")))
        world.set_users(BOB[2])
        self.assertIn(b" 401 ", self.cold(world, get(target, basic("bob", "second"))))

    def test_what_is_for_one_client_is_not_kept(self):
        """Nor what is no 200, nor what has another length than it says."""
        app, clock = Klein(), Clock()
        proof = Proof(MemoryDriver(clock))

        @app.route("/<what>")
        def route(request, what):
            request.setHeader("Content-Length", "1")
            if what == "cookie":
                request.responseHeaders.addRawHeader("Set-Cookie", "a=b")
            request.setResponseCode(203 if what == "code" else 200)
            keep(request, proof, b"12" if what == "length" else b"1")
            return b"1"

        agent = Agent(app.resource(), clock)
        agent.site.hot = hot = Counting(agent.site, None)
        for what, found in [("usual", 1), ("cookie", 0), ("code", 0), ("length", 0)]:
            hot.counts.clear()
            for _ in range(2):
                self.assertEqual(result_of(agent.request("GET", f"/{what}")).body, b"1")
            self.assertEqual(sum(hot.counts.values()), found, what)

    def test_the_lines_of_the_log_come_a_moment_later(self):
        world = World(self)
        world.push("a", "tag")
        self.cold(world, get("/v2/a/manifests/tag"))
        self.hot(world, get("/v2/a/manifests/tag"))
        self.assertEqual([len(lines) for lines in world.lines], [len(world.lines[1]) - 1, len(world.lines[1])])
        world.clock.advance(1)
        self.assertEqual(*world.lines)


@implementer_only(IStorageDriver)
class Remote(MemoryDriver):
    """One that says nothing at once."""


def basic(name, password):
    return "Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Walk:
    """A random walk: requests of every kind to both workers, and now and then a change by the other one.

    Every answer and every line of the access log has to be the same of both.
    """

    TAGS, NAMES = ("latest", "v1"), ("a", "lib/b")
    CONFIGS = tuple(b'{"n": %d}' % number for number in range(3))
    V1_REPOSITORIES = ("lib/x", "team/y")

    def __init__(self, case, seed, credentials=(), **world):
        self.case = case
        self.random = random.Random(seed)
        self.world = World(case, folder=f"{memory_folder(case)}/store", **world)
        self.credentials = credentials
        self.images = [sha256(b"%d" % number).hexdigest() for number in range(3)]
        self.folder = self.world.folder

    def headers(self):
        """What a writer needs."""
        return dict(self.credentials[BOB.index(self.world.line)] for _ in self.credentials[:1])

    # -- what the other worker, or an operator, does ------------------------------------------------------------

    def change(self):
        pick = self.random.choice
        name, tag, config = pick(self.NAMES), pick(self.TAGS), pick(self.CONFIGS)
        digest, blob = Digest.of(image(config)), Digest.of(config)
        image_id, repository = pick(self.images), pick(self.V1_REPOSITORIES)
        v1 = f"/v1/repositories/{repository}"
        delete = [f"/v2/{name}/manifests/{tag}", f"/v2/{name}/manifests/{digest}", f"/v2/{name}/blobs/{blob}"]
        # In memory, who was let in before differs between workers, and so what happens after too many wrong passwords.
        worker = 2 if self.credentials else pick((0, 2))
        headers = self.headers()

        def write(method, target, body=b""):
            self.world.write(method, target, headers, body, worker)

        self.random.choice(
            [
                lambda: self.world.push(name, tag, config, headers, worker),
                lambda: self.world.push(name, tag, config, headers, worker),
                lambda: self.world.push(name, tag, config, headers, worker),
                lambda: write("DELETE", pick(delete)),
                lambda: self.world.push_v1(image_id, headers, worker),
                *[lambda: write("PUT", f"{v1}/tags/{tag}", json.dumps(image_id).encode())] * 3,
                lambda: write("DELETE", f"{v1}/tags/{tag}"),
                lambda: write("PUT", f"{v1}/properties", b'{"access": "%s"}' % pick([b"private", b"public"])),
                lambda: self.by_hand(f"docker/registry/v2/blobs/sha256/{blob.hex[:2]}/{blob.hex}/data"),
                lambda: self.by_hand(f"images/{image_id}/{pick(['_inprogress', '_checksum', 'layer', 'ancestry'])}"),
                lambda: self.world.set_users(pick(BOB[:2])),
            ]
        )()  # fmt: skip

    def by_hand(self, path):
        """Take a file away, or put it back, or make an empty one, as an operator might."""
        path = f"{self.folder}/{path}"
        if os.path.exists(path):
            os.replace(path, f"{self.folder}-{path.replace('/', '-')[-80:]}")
        elif os.path.exists(aside := f"{self.folder}-{path.replace('/', '-')[-80:]}"):
            os.replace(aside, path)
        elif path.endswith("_inprogress") and os.path.isdir(os.path.dirname(path)):
            with open(path, "w"):
                pass

    # -- what clients ask -----------------------------------------------------------------------------------------

    def target(self):
        pick = self.random.choice
        name, tag, config = pick(self.NAMES), pick(self.TAGS), pick(self.CONFIGS)
        image_id, repository = pick(self.images), pick(self.V1_REPOSITORIES)
        usual = [
            f"/v2/{name}/manifests/{tag}",
            f"/v2/{name}/manifests/{Digest.of(image(config))}",
            f"/v2/{name}/blobs/{Digest.of(config)}",
            f"/v1/images/{image_id}/json",
            f"/v1/images/{image_id}/ancestry",
            f"/v1/repositories/{repository}/tags/{tag}",
            f"/v1/repositories/{repository}/tags/{tag}",
        ]
        if self.random.random() < 0.75:
            return pick(usual)
        return pick(
            [
                "/v2/",
                "/v2",
                f"/v2/{name}/tags/list",
                "/v2/_catalog",
                f"/v2/{name}/referrers/{Digest.of(config)}",
                f"/v2/{name}/manifests/none",
                f"/v2/{name}/manifests/latest?x=y",
                f"/v2/{name}/manifests/l%61test",
                f"//v2/{name}/manifests/latest",
                f"http://elsewhere/v2/{name}/manifests/latest",
                f"/v2/{quote(name, safe='')}/manifests/latest",
                f"/v2/{name}/manifests/@latest",
                f"//v1/images/{image_id}/json",
                f"/v1/images/{image_id}/layer",
                f"/v1/images/{image_id}/files",
                f"/v1/private_images/{image_id}/json",
                f"/v1/repositories/{repository}/tags",
                f"/v1/repositories/{repository}/tags/{tag}/json",
                f"/v1/repositories/{repository}/images",
                f"/v1/repositories/{repository}/properties",
                "/v1/_ping",
            ]
        )

    def request(self):
        pick, chance = self.random.choice, self.random.random
        method = pick(["GET", "GET", "GET", "HEAD", "HEAD", *(["get", "OPTIONS", "PATCH"] if chance() < 0.1 else [])])
        config = pick(self.CONFIGS)
        odd = [
            ("Range", "bytes=0-1"),
            ("If-None-Match", pick(["*", f'"{Digest.of(config)}"', f'"{Digest.of(image(config))}"', "x"])),
            ("If-Modified-Since", pick(["Thu, 01 Jan 1970 00:00:00 GMT", "x"])),
            ("Origin", pick(["https://ui.example", "https://other.example"])),
            ("Cookie", "v1_session=x"),
            ("Connection", pick(["close", "keep-alive, Close", "Upgrade", "Keep-Alive"])),
            ("Expect", "100-continue"),
            ("Content-Length", "0"),
            ("User-Agent", pick(['a "quoted" agent', "back\\slash", "caf\xe9", "", "a\tb", "a\nb"])),
            ("User-Agent", "second"),
            ("Host", "second"),
            ("Referer", "https://x/?token=secret"),
            ("X-Something", "x"),
            ("Transfer-Encoding", "identity"),
        ]
        usual = [
            ("Accept", pick([OCI_MANIFEST, "*/*", ""])),
            ("Accept", "text/html"),
            ("accept-encoding", "gzip"),
            ("USER-AGENT", pick(["docker/1.0", "curl"])),
            ("Connection", "keep-alive"),
            ("X-Forwarded-For", pick(["198.51.100.7", "203.0.113.1, 10.0.0.1", "x", ""])),
            ("X-Real-IP", "198.51.100.9"),
            ("X-Forwarded-Proto", "https"),
        ]
        headers = [header for header in usual if chance() < 0.25]
        headers += [pick(odd) for _ in range(2) if chance() < 0.15]
        if self.credentials and chance() < 0.9:
            headers.append(self.credentials[0] if chance() < 0.8 else pick(self.credentials))
        elif chance() < 0.3:
            repository = pick(self.V1_REPOSITORIES)
            headers.append(("Authorization", pick([f"Token signature=X,repository={repository},access=read", "x", ""])))
        self.random.shuffle(headers)
        raw = request_head(method, self.target(), headers, None if ("Expect", "x") in headers else 0)
        if chance() < 0.03:
            raw = pick(
                [
                    raw.replace(b" HTTP/1.1", b" HTTP/1.0"),
                    raw.replace(b" /", b"  /", 1),
                    raw.replace(b"Host: localhost:5000\r\n", b""),
                    raw.replace(b"\r\nHost", b"\r\nX : y\r\nHost"),
                    raw.replace(b"\r\nHost", b"\r\nAccept: a\r\n folded\r\nHost"),
                    raw.replace(b"\r\nHost", b"\r\nnocolon\r\nHost"),
                    raw + raw,
                    b"\r\n" + raw,
                    raw[:20],
                    raw + b"rest",
                ]
            )
        return raw

    def run(self, steps):
        for step in range(steps):
            if self.random.random() < 0.08:
                self.change()
            if self.random.random() < 0.02:
                self.world.clock.advance(self.random.choice([0.5, 1, 7, 61]))
            raw = self.request()
            if not raw.endswith(b"\r\n\r\n"):  # what waits for more is ended, so that the next begins anew
                for number in (0, 1):
                    self.world.connections[number] = None
            here, there = self.world.both(raw)
            self.case.assertEqual(here, there, (step, raw))
            if not raw.endswith(b"\r\n\r\n"):
                for number in (0, 1):
                    self.world.connections[number] = None
        here, there = (log.splitlines() for log in self.world.logs())
        self.case.assertEqual(here, there)
        return self.world.hot.counts


CORS = CorsRules(("https://ui.example",), ("GET",), ("Content-Type",), ("X-Docker-Size",), True, 600)
STEPS = 20_000 if os.environ.get("TXREGISTRY_LONG") else 1500


class WalkTests(SynchronousTestCase):
    def walk(self, seed, kinds, **world):
        counts = Walk(self, seed, **world).run(STEPS)
        for kind in kinds:
            self.assertGreater(counts.get(kind, 0), 3, (kind, counts))

    V2 = ("GET manifests", "HEAD manifests", "GET manifests/sha", "HEAD manifests/sha", "GET blobs", "HEAD blobs")
    V1 = ("GET json", "HEAD json", "GET ancestry", "HEAD ancestry", "GET tags", "HEAD tags")

    def test_open(self):
        self.walk(1, self.V2 + self.V1)

    def test_pages_of_one_origin(self):
        self.walk(2, self.V2 + self.V1, options=WebOptions(cors=CORS))

    def test_pages_of_any_origin(self):
        self.walk(3, self.V2 + self.V1, options=WebOptions(cors=CorsRules(("*",), ("GET",)), flavor="x"))

    def test_behind_a_trusted_front_end(self):
        proxies, options = TrustedProxies(["192.0.2.0/24", "10.0.0.0/8"]), WebOptions(accel_prefix="/files")
        self.walk(4, self.V2[:4] + self.V1, proxies=proxies, options=options)

    def test_beside_a_trusted_front_end(self):
        proxies, options = TrustedProxies(["10.0.0.0/8"]), WebOptions(accel_prefix="/files")
        self.walk(5, self.V2[:4] + self.V1, proxies=proxies, options=options)

    @skipUnless(find_spec("bcrypt"), "bcrypt is not installed")
    def test_accounts(self):
        credentials = [basic("bob", "first"), basic("bob", "second"), basic("eve", "first"), basic("", "")]
        self.walk(6, self.V2 + self.V1, users=True, credentials=credentials)


class ServerTests(SynchronousTestCase):
    def test_two_servers_on_one_folder(self):
        """What one process changes, the other one answers from the next request on; both write one access log."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        config = folder / "config.yml"
        config.write_text(f"dev: {{storage_path: store, listen: '{LOCAL}', access_log: access.log}}\n")
        asked = 0

        with Running(folder, "--config", str(config)) as one, Running(folder, "--config", str(config)) as two:
            connections = [HTTPConnection(server.addresses[0].partition("://")[2]) for server in (one, two)]

            def ask(server, method, target, body=None, **headers):
                nonlocal asked
                asked += 1
                connections[server].request(method, target, body, headers)
                response = connections[server].getresponse()
                return response.status, response.read()

            for config_blob in (b"{}", b"[]"):
                manifest = image(config_blob)
                for blob in (config_blob, b"layer"):
                    self.assertEqual(ask(1, "POST", f"/v2/a/blobs/uploads/?digest={Digest.of(blob)}", blob)[0], 201)
                headers = {"Content-Type": OCI_MANIFEST}
                self.assertEqual(ask(1, "PUT", "/v2/a/manifests/tag", manifest, **headers)[0], 201)
                for _ in range(40):
                    self.assertEqual(ask(0, "GET", "/v2/a/manifests/tag"), (200, manifest))
            self.assertEqual(ask(1, "DELETE", f"/v2/a/manifests/{Digest.of(manifest)}")[0], 202)
            self.assertEqual(ask(0, "GET", "/v2/a/manifests/tag")[0], 404)
            for connection in connections:
                connection.close()
            for server in (one, two):
                server.stop()
        self.assertEqual(len((folder / "access.log").read_text().splitlines()), asked)
