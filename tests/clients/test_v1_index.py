"""A registry with an index elsewhere: what a token allows, what the index is sent, and what happens without it."""

import sys
import threading

from tests.clients.index_server import make_token
from tests.clients.server import Registry
from tests.clients.v1_lab import V1Case
from tests.web.v1.base import archive, image_json, simple

ROUNDS = 25
PARTS = ("json", "layer", "ancestry", "files", "diff")
UNKNOWN = "e" * 64


def say(text: str) -> None:
    """Put a number into the output of the tests."""
    sys.stdout.write(f"\n    {text}\n")
    sys.stdout.flush()


class IndexTests(V1Case):
    """Alice has the repository `lab/a`, Bob `lab/b`; each pushed three images."""

    needs = ("v1docker",)

    def setUp(self) -> None:
        super().setUp()
        self.registry, self.index = self.start_with_index()
        self.of_a = self.docker_code("push", self.index.host, "lab/a", "alice", seed=1)
        self.of_b = self.docker_code("push", self.index.host, "lab/b", "bob", seed=2)

    def session_of(self, access: str) -> str:
        """Alice's cookie."""
        method, path, body = {
            "read": ("GET", "tags", None),
            "write": ("PUT", "tags/more", f'"{self.of_a[0]}"'.encode()),
            "delete": ("DELETE", "tags/more", None),
        }[access]
        token = make_token("alice", "lab/a", access)
        answer = self.registry.request(method, f"/v1/repositories/lab/a/{path}", body, Authorization=f"Token {token}")
        self.assertEqual(answer.status, 200, answer.body)
        return answer.headers["set-cookie"].partition(";")[0]

    def test_a_token_is_for_its_repository(self) -> None:
        headers = []
        for access in ("read", "write", "delete"):
            headers.append({"Cookie": self.session_of(access)})
            token = make_token("alice", "lab/a", access)
            headers.append({"Authorization": f"Token {token}"})
            # Of her own making: the signature is for another repository, or access, than is written there.
            headers.append({"Authorization": f"Token {token.replace('lab/a', 'lab/b')}"})
            headers.append({"Authorization": f"Token {token},repository=lab/b"})
        data = image_json(UNKNOWN, self.of_b[-1])
        requests: list[tuple[str, str, bytes | None]] = [
            *[("GET", f"/v1/images/{image}/{part}", None) for image in self.of_b for part in PARTS],
            *[("GET", f"/v1/private_images/{image}/json", None) for image in self.of_b],
            *[("PUT", f"/v1/images/{image}/json", image_json(image)) for image in self.of_b],
            *[("PUT", f"/v1/images/{image}/layer", archive()) for image in self.of_b],
            *[("PUT", f"/v1/images/{image}/checksum", b"") for image in self.of_b],
            # An image may not be built on one that is not hers, or its ancestry would open that.
            ("PUT", f"/v1/images/{UNKNOWN}/json", data),
            ("GET", "/v1/repositories/lab/b/tags", None),
            ("GET", "/v1/repositories/lab/b/tags/latest", None),
            ("GET", "/v1/repositories/lab/b/json", None),
            ("PUT", "/v1/repositories/lab/b/tags/latest", f'"{self.of_a[0]}"'.encode()),
            ("DELETE", "/v1/repositories/lab/b/tags/latest", None),
            ("DELETE", "/v1/repositories/lab/b/", None),
        ]
        allowed = []
        for how in headers:
            for method, path, body in requests:
                answer = self.registry.request(method, path, body, **how)
                if answer.status < 400 or answer.status >= 500:
                    allowed.append((method, path, how, answer.status))
        say(f"a token or session of A on what is B's: {len(headers) * len(requests)} tried, {len(allowed)} allowed")
        self.assertEqual(allowed, [])
        # It is good for her own.
        read = {"Authorization": f"Token {make_token('alice', 'lab/a', 'read')}"}
        for image in self.of_a:
            for part in ("json", "layer", "ancestry"):
                self.assertEqual(self.registry.request("GET", f"/v1/images/{image}/{part}", None, **read).status, 200)
        # And Bob's is as it was.
        self.docker_code("pull", self.index.host, "lab/b", "bob", seed=2)

    def test_a_list_that_grows(self) -> None:
        """What the index comes to list can be pushed, on a parent of the same repository."""
        data, layer = image_json(UNKNOWN, self.of_a[-1]), archive()
        path = f"/v1/images/{UNKNOWN}"
        write = {"Authorization": f"Token {make_token('alice', 'lab/a', 'write')}"}
        self.assertEqual(self.registry.request("PUT", f"{path}/json", data, **write).status, 400)
        self.index.kill()
        self.index.claim("lab/a", "alice", [UNKNOWN])
        self.index.start(self.registry.host)
        write = {"Authorization": f"Token {make_token('alice', 'lab/a', 'write')}"}
        sum_ = {"X_Docker_Checksum": simple(data, layer)}
        self.assertEqual(self.registry.request("PUT", f"{path}/json", data, **write, **sum_).status, 200)
        self.assertEqual(self.registry.request("PUT", f"{path}/layer", layer, **write).status, 200)
        read = {"Authorization": f"Token {make_token('alice', 'lab/a', 'read')}"}
        self.assertEqual(self.registry.request("GET", f"{path}/layer", None, **read).body, layer)

    def test_cookies_of_the_index(self) -> None:
        """Many verifications of two users at a time; the index gives each of them a cookie."""
        before = len(self.index.verifications())
        failures: list[str] = []

        def ask(user: str, name: str, cookie: str) -> None:
            for _ in range(ROUNDS):
                how = {"Authorization": f"Token {make_token(user, name, 'read')}"}
                if cookie:
                    # A client on one machine with both sends back all that it was given.
                    how["Cookie"] = cookie
                answer = self.registry.request("GET", f"/v1/repositories/{name}/tags", None, **how)
                if answer.status != 200:
                    failures.append(f"{user}: {answer.status}")

        people = [("alice", "lab/a", ""), ("bob", "lab/b", ""), ("alice", "lab/a", "member=bob"), ("bob", "lab/b", "")]
        threads = [threading.Thread(target=ask, args=person) for person in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = self.index.verifications()
        foreign = [one for one in seen if one["cookie"] and one["cookie"] != f"member={one['user']}"]
        say(f"{len(seen)} verifications by an index that sets cookies: {len(foreign)} carried another user's")
        self.assertEqual((failures, foreign), ([], []))
        # Each was verified: no token came twice.
        self.assertEqual(len(seen) - before, ROUNDS * len(people))

    def test_without_the_index(self) -> None:
        cookie = {"Cookie": self.session_of("read")}
        path = f"/v1/images/{self.of_a[0]}/json"
        known = {"Authorization": f"Token {make_token('alice', 'lab/a', 'read')}"}
        self.assertEqual(self.registry.request("GET", path, None, **known).status, 200)
        self.index.kill()
        answers = [self.fresh(self.registry, method) for method in ("GET", "PUT", "DELETE") for _ in range(5)]
        statuses = [answer.status for answer in answers]
        say(f"{len(statuses)} requests with an index that was killed: {statuses.count(503)} answered 503")
        self.assertEqual(set(statuses), {503})
        for answer in answers:
            self.assertGreater(int(answer.headers["retry-after"]), 0)
            self.assertNotIn("www-authenticate", answer.headers)
        # Nothing to ask about is no reason to ask; and what was verified is good for a while.
        self.assertEqual(self.registry.request("GET", path).status, 401)
        self.assertEqual(self.registry.request("GET", path, Authorization="Basic Og==").status, 401)
        self.assertEqual(self.registry.request("GET", "/v1/_ping").status, 200)
        self.assertEqual(self.registry.request("GET", path, None, **known).status, 200)
        self.assertEqual(self.registry.request("GET", path, None, **cookie).status, 200)
        # A session is good after a restart, too.
        self.registry.stop()
        self.registry.start()
        self.assertEqual(self.registry.request("GET", path, None, **cookie).status, 200)
        self.assertEqual(self.fresh(self.registry, "GET").status, 503)
        self.index.start(self.registry.host)
        self.assertEqual(self.fresh(self.registry, "GET").status, 200)

    @staticmethod
    def fresh(registry: Registry, method: str):
        """A request with a token that nobody has seen yet."""
        access = {"GET": "read", "PUT": "write", "DELETE": "delete"}[method]
        how = {"Authorization": f"Token {make_token('alice', 'lab/a', access)}"}
        path = "/v1/repositories/lab/a/tags" + ("" if method == "GET" else "/none")
        return registry.request(method, path, b'"x"' if method == "PUT" else None, **how)
