"""Access to the routes of V1 (and V2), from the request to the answer: against an index, with accounts, and signed."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.trial.unittest import SkipTest
from twisted.web.resource import Resource

from tests.auth.test_signatures import private_key
from tests.web.v1.base import A, B, C, V1TestCase, archive, image_json, simple
from txregistry.auth.accounts import Accounts
from txregistry.auth.guard import Guard, Parts
from txregistry.auth.image_lists import ImageLists
from txregistry.auth.index import Index
from txregistry.auth.sessions import Sessions
from txregistry.auth.signatures import Signatures, load_private, load_public, public_pem, sign
from txregistry.auth.users import UsersFile
from txregistry.testing.agent import Agent, Response
from txregistry.testing.pools import ImmediatePool
from txregistry.web.app import WebOptions, make_resource

#: Requests that need no credentials in any mode, those of all modes first.
OPEN = [("GET", "/"), ("GET", "/_ping"), ("GET", "/v1/_ping"), ("GET", "/v1/_status")]
REPOSITORY, IMAGE = "/v1/repositories/foo/bar", f"/v1/images/{A}"
#: What the original asked for credentials.
CLOSED = [
    *[("GET", f"{IMAGE}/{part}") for part in ("json", "layer", "ancestry", "files", "diff")],
    *[("PUT", f"{IMAGE}/{part}") for part in ("json", "layer", "checksum")],
    *[("GET", f"/v1/private_images/{A}/{part}") for part in ("json", "layer", "files")],
    *[(method, f"{REPOSITORY}/tags") for method in ("GET", "DELETE")],
    *[(method, f"{REPOSITORY}/tags/latest") for method in ("GET", "PUT", "DELETE")],
    *[("GET", f"{REPOSITORY}/{part}") for part in ("json", "properties", "tags/latest/json")],
    ("PUT", f"{REPOSITORY}/properties"),
    ("DELETE", REPOSITORY),
    ("DELETE", f"{REPOSITORY}/"),
]
#: The part of an index.
STUBS = [
    *[(method, path) for method in ("GET", "POST") for path in ("/v1/users", "/v1/users/")],
    ("PUT", "/v1/users/joe/"),
    ("PUT", REPOSITORY),
    ("PUT", f"{REPOSITORY}/"),
    *[(method, f"{REPOSITORY}/images") for method in ("GET", "PUT")],
    ("PUT", f"{REPOSITORY}/auth"),
    ("GET", "/v1/search"),
]


class Lists(Resource):
    """An index: `lists` has the ids of each repository."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[str]] = {}
        self.code = 200

    def render_GET(self, request):
        request.setResponseCode(self.code)
        name = request.path.decode().removeprefix("/v1/repositories/").removesuffix("/images")
        return json.dumps([{"id": image} for image in self.lists[name]]).encode()


class Guarded(V1TestCase):
    """A registry behind a guard."""

    def use(self, **parts: Any) -> None:
        now = self.memory.clock.seconds
        cookies, tokens = Sessions("k", "session", now), Sessions("k", "token", now)
        self.guard = Guard(Parts(now, cookies, tokens, ImageLists(self.memory.driver), **parts))
        self.memory.agent = Agent(make_resource(self.memory.registry, self.options, self.guard), self.memory.clock)

    def denied(self, response: Response, challenge: str) -> None:
        self.refused(response, 401, "Requires authorization")
        self.assertEqual(response.headers.getRawHeaders("WWW-Authenticate"), [challenge])


class AgainstIndex(Guarded):
    options = WebOptions(flavor="test", standalone=False)

    def setUp(self) -> None:
        super().setUp()
        self.lists = Lists()
        self.lists.lists = {"foo/bar": [A, B], "foo/other": [C]}
        self.use(index=Index("http://index.example", RequestTraversalAgent(self.lists), self.memory.clock))

    @staticmethod
    def token(access: str, repository: str = "foo/bar") -> dict[str, str]:
        return {"Authorization": f'Token Token signature=abc,repository="{repository}",access={access}'}

    def test_without_a_token(self):
        for method, path in OPEN:
            self.assertEqual(self.ask(method, path).code, 200, path)
        for method, path in CLOSED:
            self.denied(self.ask(method, path), "Token")
            self.assertEqual(self.ask("OPTIONS", path).code, 200)
        self.assertEqual(self.get("/v1/_ping").header("X-Docker-Registry-Standalone"), "False")

    def test_the_part_of_the_index_is_elsewhere(self):
        for method, path in STUBS:
            self.assertEqual(self.ask(method, path).code, 404, (method, path))

    def test_v2_is_not_spoken(self):
        for path in ("/v2/", "/v2/foo/bar/tags/list", "//v2/", "/v2/_catalog"):
            response = self.successResultOf(self.memory.agent.request("GET", path))
            self.assertEqual(response.code, 404, path)

    def test_a_refusal_comes_before_the_body(self):
        exchange = self.memory.agent.start("PUT", f"{IMAGE}/layer", {}, length=1 << 30)
        self.denied(self.successResultOf(exchange.response), "Token")

    def push(self, image: str, parent: str | None, repository: str = "foo/bar") -> None:
        """Push as docker does: the token with each request, and the cookies."""
        layer = archive(image)
        data = image_json(image, parent)
        how = self.token("write", repository) | {"X-Docker-Checksum": simple(data, layer)}
        self.accepted(self.put(f"/v1/images/{image}/json", data, how))
        self.accepted(self.put(f"/v1/images/{image}/layer", layer, how))

    def test_push_and_pull(self):
        self.push(A, None)
        self.push(B, A)
        self.accepted(self.put(f"{REPOSITORY}/tags/latest", f'"{B}"'.encode(), self.token("write")))
        read = self.token("read")
        first = self.get(f"{REPOSITORY}/tags", read)
        self.assertEqual(first.json(), {"latest": B})
        session = self.cookie(first)
        for how in (read, session):
            self.assertEqual(self.get(f"/v1/images/{B}/ancestry", how).json(), [B, A])
            for image in (A, B):
                response = self.get(f"/v1/images/{image}/layer", how)
                self.assertEqual(response.body, archive(image))
                self.assertTrue((response.header("Cache-Control") or "").startswith("private,"))
                self.assertEqual(self.get(f"/v1/images/{image}/json", how).code, 200)

    def test_a_push_by_session(self):
        session = self.cookie(self.put(f"{REPOSITORY}/properties", b'{"access": "public"}', self.token("write")))
        layer, data = archive(), image_json(A)
        how = session | {"X-Docker-Checksum": simple(data, layer)}
        self.lists.code = 401
        self.accepted(self.put(f"{IMAGE}/json", data, how))
        self.accepted(self.put(f"{IMAGE}/layer", layer, how))

    def test_images_of_another_repository(self):
        self.push(C, None, "foo/other")
        session = self.cookie(self.get(f"{REPOSITORY}/properties", self.token("read")))
        for how in (self.token("read"), session):
            for part in ("json", "layer", "ancestry", "files", "diff"):
                self.denied(self.get(f"/v1/images/{C}/{part}", how), "Token")
        write = self.token("write")
        self.denied(self.put(f"/v1/images/{C}/layer", b"x", write), "Token")
        self.denied(self.put(f"/v1/images/{C}/checksum", b"", write | {"X-Docker-Checksum": "a:b"}), "Token")
        self.refused(
            self.put(f"/v1/images/{C}/json", image_json(C), write), 400, "This image does not belong to the repository"
        )
        # Its layers cannot be reached from a child either.
        self.refused(
            self.put(f"{IMAGE}/json", image_json(A, C), write), 400, "Image depends on a non existing parent"
        )

    def test_what_is_wrong_with_json_is_told_first(self):
        write = self.token("write")
        self.refused(self.put(f"/v1/images/{C}/json", b"{", write), 400, "Invalid JSON")
        self.refused(self.put(f"/v1/images/{C}/json", b'{"id": "x"}', write), 400, "JSON data contains invalid id")

    def test_statuses_of_the_index(self):
        for code, expected in [(200, 404), (401, 401), (403, 401), (404, 401), (500, 401), (502, 503), (503, 503)]:
            self.lists.code = code
            response = self.get(f"{REPOSITORY}/tags/{code}", self.token("read", "foo/bar"))
            self.assertEqual(response.code, expected, code)
            self.assertEqual(response.header("Retry-After"), "5" if expected == 503 else None)
            self.memory.clock.advance(100)

    def test_slashes_and_escapes_do_not_matter(self):
        for path in (f"//v1/images/{C}/layer", f"/v1/images/{C[:-1]}%63/layer", "/v1/repositories/foo/oth%65r/tags"):
            self.denied(self.get(path, self.token("read")), "Token")


class WithKey(Guarded):
    options = WebOptions(flavor="test", standalone=False)

    def test_signed_requests(self):
        key = load_private(private_key())
        index = Index("http://index.example", RequestTraversalAgent(Lists()), self.memory.clock)
        self.use(index=index, signatures=Signatures(load_public(public_pem(key)), True))
        layer, data = archive(), image_json(A)
        for part, body in (("json", data), ("layer", layer)):
            path = f"{IMAGE}/{part}"
            headers = {"X-Docker-Checksum": simple(data, layer)}
            headers |= sign(key, "PUT", path, headers, self.memory.clock.seconds())
            self.accepted(self.put(path, body, headers))
            self.denied(self.put(path, body, headers | {"X-Docker-Checksum": "a:b"}), "Token")
        headers = sign(key, "GET", f"{IMAGE}/layer", {}, self.memory.clock.seconds())
        self.assertEqual(self.get(f"{IMAGE}/layer?x=1", headers).body, layer)
        headers = sign(key, "GET", "/v1/repositories/foo/a b/tags", {}, self.memory.clock.seconds())
        self.assertEqual(self.get("/v1/repositories/foo/a%20b/tags", headers).code, 404)


class WithAccounts(Guarded):
    def setUp(self) -> None:
        try:
            import bcrypt
        except ImportError:
            raise SkipTest("bcrypt is not installed") from None
        gensalt = bcrypt.gensalt
        self.patch(bcrypt, "gensalt", lambda: gensalt(4))
        super().setUp()
        self.file = UsersFile(str(Path(self.mktemp())))
        self.open(True)

    def open(self, new_accounts: bool) -> None:
        self.use(accounts=Accounts(self.file, ImmediatePool(), self.memory.clock, open=new_accounts))

    @staticmethod
    def basic(name: str = "joe", password: str = "secret") -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}

    CHALLENGE = 'Basic realm="txregistry"'

    def create(self, **account: Any) -> Response:
        response: Response = self.ask("POST", "/v1/users/", body=json.dumps(account).encode())
        return response

    def test_docker_login(self):
        self.accepted(self.create(username="joe", password="secret", email="j@x", auth=""), 201, '"User Created"')
        self.accepted(self.create(username="joe", password="x"), 400, '"Username or email already exists"')
        self.accepted(self.get("/v1/users/", self.basic()), 200, '"OK"')
        for how in ({}, self.basic("joe", "wrong"), self.basic("ann")):
            self.denied(self.get("/v1/users/", how), self.CHALLENGE)

    def test_accounts_that_cannot_be(self):
        for body, text in [
            (b"{", "Error Decoding JSON"),
            (b"[]", "Missing key `username' in JSON"),
            (b'{"username": "joe"}', "Missing key `password' in JSON"),
            (b'{"username": "a b", "password": "x"}', None),
            (b'{"username": "joe", "password": ""}', "the password is empty"),
            (b'{"username": "joe", "password": "' + b"x" * 73 + b'"}', "the password is longer than 72 bytes"),
        ]:
            response = self.ask("POST", "/v1/users/", body=body)
            self.assertEqual(response.code, 400)
            self.assertEqual(list(response.json()), ["error"])
            if text is not None:
                self.assertEqual(response.json()["error"], text)
        self.assertEqual(self.file.read(), {})

    def test_closed(self):
        self.file.set("joe", "secret")
        self.open(False)
        self.denied(self.create(username="ann", password="x"), self.CHALLENGE)
        self.accepted(self.get("/v1/users/", self.basic()), 200, '"OK"')
        self.assertEqual(set(self.file.read()), {"joe"})

    def test_a_new_password(self):
        self.file.set("joe", "secret")
        self.file.set("ann", "secret")
        body = b'{"password": "new"}'
        for how in ({}, self.basic("joe", "wrong"), self.basic("ann")):
            self.denied(self.put("/v1/users/joe/", body, how), self.CHALLENGE)
        self.assertEqual(self.put("/v1/users/joe/", body, self.basic()).code, 204)
        self.assertEqual(self.get("/v1/users/", self.basic("joe", "new")).code, 200)

    def test_what_needs_a_password(self):
        for method, path in [*OPEN, *CLOSED, *STUBS]:
            if "/users" in path:
                continue
            response = self.ask(method, path)
            if method == "GET" or path.endswith("/auth"):
                self.assertNotEqual(response.code, 401, (method, path))
            else:
                self.denied(response, self.CHALLENGE)

    def test_a_push_as_docker_does_it_over_http(self):
        self.file.set("joe", "secret")
        # Basic for what the index does, and its token for the rest.
        self.denied(self.put(f"{REPOSITORY}/", b"[]"), self.CHALLENGE)
        begun = self.put(f"{REPOSITORY}/", f'[{{"id": "{A}"}}]'.encode(), self.basic())
        self.assertEqual(begun.code, 200)
        token = begun.header("X-Docker-Token") or ""
        self.assertTrue(re.match(r'Token signature=[\w.-]+,repository="foo/bar",access=write\Z', token), token)
        layer, data = archive(), image_json(A)
        how = {"Authorization": f"Token {token}", "X-Docker-Checksum": simple(data, layer)}
        self.accepted(self.put(f"{IMAGE}/json", data, how))
        self.accepted(self.put(f"{IMAGE}/layer", layer, how))
        self.accepted(self.put(f"{REPOSITORY}/tags/latest", f'"{A}"'.encode(), how))
        self.denied(self.put("/v1/repositories/foo/other/tags/latest", f'"{A}"'.encode(), how), self.CHALLENGE)
        self.assertEqual(self.put(f"{REPOSITORY}/images", b"[]", self.basic()).code, 204)
        # Reading is free, and its answers may be kept by anybody.
        response = self.get(f"{IMAGE}/layer")
        self.assertEqual(response.body, layer)
        self.assertTrue((response.header("Cache-Control") or "").startswith("public,"))

    def test_too_many_tries(self):
        self.file.set("joe", "secret")
        codes = [self.get("/v1/users/", self.basic("joe", "wrong")).code for _ in range(11)]
        self.assertEqual(codes, [401] * 10 + [429])
        self.assertTrue(self.get("/v1/users/", self.basic()).header("Retry-After"))

    def test_v2_asks_from_the_first_request_on(self):
        self.file.set("joe", "secret")

        def ask(method: str, path: str, headers: Any = None) -> Response:
            response: Response = self.successResultOf(self.memory.agent.request(method, path, headers))
            return response

        for method, path in [
            ("GET", "/v2/"),
            ("GET", "//v2/"),
            ("GET", "/v2/a/tags/list"),
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/x"),
            ("DELETE", "/v2/a/manifests/x"),
        ]:
            response = ask(method, path)
            self.assertEqual(response.code, 401, path)
            self.assertEqual(response.header("WWW-Authenticate"), self.CHALLENGE)
            self.assertEqual(response.header("Docker-Distribution-Api-Version"), "registry/2.0")
            self.assertNotEqual(ask(method, path, self.basic()).code, 401, path)
        self.assertEqual(ask("GET", "/v2/").json()["errors"][0]["code"], "UNAUTHORIZED")
        self.assertEqual(ask("POST", "/v2/a/blobs/uploads/", self.basic()).code, 202)
