"""The guard: every way in, and that each leads no further than it should."""

import base64
import json
from pathlib import Path
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web.resource import Resource

from tests.auth.test_signatures import private_key
from txregistry.auth.accounts import Accounts
from txregistry.auth.facts import By, Facts, Grant, Kind, Refused
from txregistry.auth.guard import Guard, Parts
from txregistry.auth.image_lists import ImageLists
from txregistry.auth.index import LIFE, Index
from txregistry.auth.sessions import COOKIE, Sessions
from txregistry.auth.signatures import Signatures, load_private, load_public, public_pem, sign
from txregistry.auth.users import UsersFile
from txregistry.concurrency import start
from txregistry.errors import NoSpace, ReadOnly, Unavailable, UpstreamUnavailable, V1Error
from txregistry.model.v1.image import parse_image
from txregistry.model.v1.names import ImageId, V1Repository
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.testing.pools import ImmediatePool

A, B = V1Repository("foo", "a"), V1Repository("foo", "b")
#: Repository -> its images, parents first; `base` is an ancestor of `a1` alone, and `secret` of `b1`.
LISTED = {A: ["a1", "a2"], B: ["b1"]}


class TwoRepositories(Resource):
    """An index that knows two repositories, takes each token that names one of them, and sets cookies."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.code = 200
        self.cookies: list[str | None] = []

    def render_GET(self, request):
        self.asked += 1
        self.cookies.append(request.getHeader("Cookie"))
        request.setHeader("Set-Cookie", f"who={self.asked}; Path=/")
        request.setResponseCode(self.code)
        for repository, images in LISTED.items():
            if request.path.decode() == f"/v1/repositories/{repository}/images":
                return json.dumps([{"id": image} for image in images]).encode()
        request.setResponseCode(404)
        return b"[]"


def token(repository: V1Repository, access: "str | None" = None) -> str:
    more = "" if access is None else f",access={access}"
    return f'Token Token signature=abc,repository="{repository}"{more}'


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class GuardTestCase(SynchronousTestCase):
    secret = "foobar42"

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.contents = Contents()
        self.driver = MemoryDriver(self.clock, contents=self.contents)
        self.index = TwoRepositories()
        for image, ancestry in {
            "a1": ["a1", "base"],
            "a2": ["a2", "a1", "base"],
            "b1": ["b1", "secret"],
        }.items():
            self.successResultOf(self.driver.put(f"images/{image}/ancestry", json.dumps(ancestry).encode()))
        self.guard = self.make()

    def make(self, **more: Any) -> Guard:
        now = self.clock.seconds
        cookies, tokens = Sessions(self.secret, "session", now), Sessions(self.secret, "token", now)
        return Guard(Parts(now, cookies, tokens, ImageLists(self.driver), **more))

    def facts(self, method: str, target: "V1Repository | str", authorization: str = "", **headers: str) -> Facts:
        """A request about a repository, or about an image (`id` or `id/part`)."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if authorization:
            given["authorization"] = authorization
        if isinstance(target, V1Repository):
            return Facts(method, f"/v1/repositories/{target}/tags", Kind.REPOSITORY, given, repository=target)
        image, _, part = target.partition("/")
        return Facts(method, f"/v1/images/{image}/{part or 'layer'}", Kind.IMAGE, given, image_id=image)

    def allowed(self, *facts: Any, **headers: str) -> Grant:
        return self.successResultOf(start(self.guard.allow(self.facts(*facts, **headers))))

    def refused(self, *facts: Any, **headers: str) -> "dict[str, str]":
        error = self.failureResultOf(start(self.guard.allow(self.facts(*facts, **headers))), Refused).value
        self.assertEqual(str(error), "Requires authorization")
        return dict(error.headers)

    def cookie(self, grant: Grant) -> str:
        assert grant.set_cookie is not None
        return grant.set_cookie.partition(";")[0]


class OpenTests(GuardTestCase):
    def test_everybody(self):
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            for target in (A, "a1"):
                for authorization in ("", token(B, "read"), basic("joe", "x"), "nonsense"):
                    grant = self.allowed(method, target, authorization)
                    self.assertEqual(grant, Grant(By.ANYBODY))
        self.assertTrue(self.guard.is_open)
        self.assertFalse(grant.is_personal)

    def test_tokens_are_random(self):
        grant = self.allowed("PUT", A)
        texts = {self.guard.token(grant, A, "write") for _ in range(3)}
        self.assertEqual(len(texts), 3)
        for text in texts:
            self.assertRegex(text, r'\AToken signature=[A-Z0-9]{16},repository="foo/a",access=write\Z')


class IndexTests(GuardTestCase):
    def setUp(self):
        super().setUp()
        self.use_index()

    def use_index(self, **more: Any) -> None:
        agent = RequestTraversalAgent(self.index)
        self.guard = self.make(index=Index("http://index.example", agent, self.clock), **more)

    def test_open_routes(self):
        facts = Facts("GET", "/v1/_ping", Kind.OPEN)
        self.assertEqual(self.successResultOf(start(self.guard.allow(facts))), Grant(By.ANYBODY))

    def test_without_credentials(self):
        for authorization in ("", basic("joe", "x"), "Token", "Token x", "Token repository=foo", "nonsense"):
            for method in ("GET", "PUT", "DELETE"):
                for target in (A, "a1", "a1/json"):
                    self.assertEqual(self.refused(method, target, authorization), {"WWW-Authenticate": "Token"})
        self.assertEqual(self.index.asked, 0)

    def test_a_token(self):
        grant = self.allowed("PUT", A, token(A, "write"))
        self.assertEqual((grant.by, grant.repository, grant.access), (By.TOKEN, A, "write"))
        self.assertTrue(grant.is_personal)
        self.assertEqual(self.index.asked, 1)
        self.assertEqual(self.contents.objects["repositories/foo/a/_images_list"].data, b'["a1", "a2"]')

    def test_one_the_index_does_not_take(self):
        for code in (401, 403, 404, 500):
            self.index.code = code
            self.assertEqual(self.refused("PUT", A, token(A)), {"WWW-Authenticate": "Token"})
        self.refused("PUT", V1Repository("foo", "c"), token(V1Repository("foo", "c")))
        self.assertEqual(self.index.asked, 5)
        self.assertNotIn("repositories/foo/a/_images_list", self.contents.objects)

    def test_an_index_that_is_down(self):
        self.index.code = 503
        self.failureResultOf(start(self.guard.allow(self.facts("PUT", A, token(A)))), UpstreamUnavailable)

    def test_methods(self):
        for access, allowed in [
            ("read", {"GET"}),
            ("write", {"PUT", "POST"}),
            ("delete", {"DELETE"}),
            (None, {"GET", "HEAD", "PUT", "POST", "DELETE"}),
        ]:
            for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
                asked = self.index.asked
                if method in allowed:
                    self.allowed(method, A, token(A, access))
                else:
                    self.refused(method, A, token(A, access))
                    self.assertEqual(self.index.asked, asked, (access, method))

    def test_a_token_of_another_repository(self):
        self.refused("GET", B, token(A))
        self.refused("PUT", V1Repository("foo", "a%2Fb"), token(A))
        self.assertEqual(self.index.asked, 0)

    def test_images(self):
        for image in ("a1", "a2", "base"):
            self.allowed("GET", f"{image}/layer", token(A, "read"))
        for image in ("a1", "a2"):
            for part in ("layer", "checksum"):
                self.allowed("PUT", f"{image}/{part}", token(A, "write"))

    def test_images_of_others(self):
        for image in ("b1", "secret", "nonesuch", "..", ""):
            for part in ("json", "layer", "ancestry", "files", "diff"):
                self.refused("GET", f"{image}/{part}", token(A))
            for part in ("layer", "checksum"):
                self.refused("PUT", f"{image}/{part}", token(A))
        # An ancestor may be read, not written.
        for part in ("layer", "checksum"):
            self.refused("PUT", f"base/{part}", token(A))

    def test_beginning_an_image(self):
        def verdict(image: str, data: bytes, authorization: str, **headers: str) -> str:
            grant = self.allowed("PUT", f"{image}/json", authorization, **headers)
            work = start(self.guard.check_push(grant, parse_image(data, ImageId(image), None)))
            if work.result is None:
                self.successResultOf(work)
                return ""
            return self.failureResultOf(work, V1Error).value.message

        cookie = self.cookie(self.allowed("PUT", A, token(A, "write")))
        stranger, orphan = "This image does not belong to the repository", "Image depends on a non existing parent"
        for how in ({"authorization": token(A, "write")}, {"authorization": "", "cookie": cookie}):
            for image, parent, text in [
                ("a1", "", ""),
                ("a1", ', "parent": "base"', ""),
                ("a1", ', "parent": "a2"', ""),
                ("a1", ', "parent": "b1"', orphan),
                ("a1", ', "parent": "secret"', orphan),
                ("b1", "", stranger),
                ("base", "", stranger),
                ("secret", ', "parent": "a1"', stranger),
            ]:
                data = f'{{"id": "{image}"{parent}}}'.encode()
                self.assertEqual(verdict(image, data, **how), text, (image, parent, how))

    def test_a_session(self):
        grant = self.allowed("PUT", A, token(A, "write"))
        cookie = self.cookie(grant)
        self.assertIn("HttpOnly", grant.set_cookie or "")
        asked = self.index.asked
        again = self.allowed("PUT", A, cookie=f"x=y; {cookie}; z=")
        self.assertEqual((again.by, again.repository, again.access), (By.SESSION, A, "write"))
        self.assertIsNone(again.set_cookie)
        self.allowed("PUT", "a1/layer", cookie=cookie)
        self.allowed("POST", A, cookie=cookie)
        self.assertEqual(self.index.asked, asked)

    def test_a_session_is_bound(self):
        cookie = self.cookie(self.allowed("GET", A, token(A, "read")))
        self.cookie(self.allowed("GET", B, token(B, "read")))
        self.allowed("GET", A, cookie=cookie)
        for image in ("a1", "a2", "base"):
            self.allowed("GET", image, cookie=cookie)
        self.refused("GET", B, cookie=cookie)
        for image in ("b1", "secret", "nonesuch"):
            self.refused("GET", image, cookie=cookie)
        for method in ("PUT", "POST", "DELETE", "HEAD"):
            self.refused(method, A, cookie=cookie)
            self.refused(method, "a1", cookie=cookie)

    def test_a_session_goes_by_the_list_that_is_stored(self):
        cookie = self.cookie(self.allowed("GET", A, token(A)))
        self.contents.objects.clear()
        self.refused("GET", "a1", cookie=cookie)
        self.allowed("GET", A, cookie=cookie)

    def test_a_session_and_the_token_of_another(self):
        cookie = self.cookie(self.allowed("PUT", A, token(A, "write")))
        self.assertEqual(self.allowed("PUT", B, token(B, "write"), cookie=cookie).repository, B)
        self.assertEqual(self.allowed("PUT", "b1/layer", token(B, "write"), cookie=cookie).repository, B)
        self.assertEqual(self.allowed("PUT", "b1/json", token(B, "write"), cookie=cookie).repository, B)
        self.assertEqual(self.allowed("PUT", "a1/json", token(B, "write"), cookie=cookie).repository, A)

    def test_an_hour(self):
        cookie = self.cookie(self.allowed("GET", A, token(A, "read")))
        for _ in range(5):
            self.clock.advance(3000)
            grant = self.allowed("GET", "a1", cookie=cookie)
            self.assertNotEqual(self.cookie(grant), cookie)
            old, cookie = cookie, self.cookie(grant)
        self.clock.advance(3000)
        cleared = self.refused("GET", A, cookie=old)
        self.assertTrue(cleared["Set-Cookie"].startswith(f"{COOKIE}=; Max-Age=0"))
        self.allowed("GET", A, cookie=cookie)

    def test_another_worker_and_another_key(self):
        cookie = self.cookie(self.allowed("GET", A, token(A)))
        self.use_index()
        self.allowed("GET", A, cookie=cookie)
        self.secret = "another"
        self.use_index()
        cleared = self.refused("GET", A, cookie=cookie)
        self.assertIn("Set-Cookie", cleared)

    def test_secure_cookies(self):
        facts = Facts("GET", "/", Kind.REPOSITORY, {"authorization": token(A)}, repository=A, secure=True)
        grant = self.successResultOf(start(self.guard.allow(facts)))
        self.assertTrue((grant.set_cookie or "").endswith("; Secure"))

    def test_no_cookie_is_carried_to_the_index(self):
        self.allowed("GET", A, token(A, "read"))
        self.allowed("GET", B, token(B, "read"))
        self.allowed("PUT", B, token(B, "write"))
        self.assertEqual(self.index.cookies, [None] * 3)

    def test_a_storage_without_writes(self):
        for error in (ReadOnly, NoSpace):
            self.use_index()

            def refuse(path, data, error=error, **_):
                raise error(path)

            self.patch(self.driver, "put", refuse)
            grant = self.allowed("GET", "a1", token(A, "read"))
            self.assertIsNone(grant.set_cookie)

    def test_a_storage_that_is_down_is_no_refusal(self):
        def refuse(path, limit):
            raise Unavailable(path)

        self.patch(self.driver, "read", refuse)
        self.failureResultOf(start(self.guard.allow(self.facts("GET", A, token(A)))), Unavailable)

    def test_an_unchanged_list_is_not_written_again(self):
        self.allowed("GET", A, token(A))
        self.patch(self.driver, "put", None)
        self.clock.advance(LIFE)
        self.allowed("GET", A, token(A))
        self.assertEqual(self.index.asked, 2)

    def test_a_list_of_an_old_server(self):
        self.successResultOf(self.driver.put("repositories/foo/a/_images_list", b'["old"]'))
        cookie = Sessions(self.secret, "session", self.clock.seconds)
        header = cookie.cookie(cookie.new(A, "read"), False).partition(";")[0]
        self.allowed("GET", "old", cookie=header)
        self.refused("GET", "a1", cookie=header)
        for broken in (b"", b"{", b"{}", b"[1]", b"\xff"):
            self.successResultOf(self.driver.put("repositories/foo/a/_images_list", broken))
            self.refused("GET", "old", cookie=header)

    def test_signatures(self):
        key = load_private(private_key())
        self.use_index(signatures=Signatures(load_public(public_pem(key)), False))
        for method, target in (("DELETE", A), ("PUT", "b1/json"), ("GET", "secret")):
            path = self.facts(method, target).path
            headers = sign(key, method, path, {}, self.clock.seconds())
            given = {name.lower().replace("-", "_"): value for name, value in headers.items()}
            self.assertEqual(self.allowed(method, target, **given), Grant(By.SIGNATURE))
            self.refused("GET", B, **given)
        self.assertEqual(self.index.asked, 0)


class AccountTests(GuardTestCase):
    def setUp(self):
        try:
            import bcrypt
        except ImportError:
            raise SkipTest("bcrypt is not installed") from None
        gensalt = bcrypt.gensalt
        self.patch(bcrypt, "gensalt", lambda: gensalt(4))
        super().setUp()
        self.file = UsersFile(str(Path(self.mktemp())))
        self.file.set("joe", "secret")
        self.accounts = Accounts(self.file, ImmediatePool(), self.clock, open=True)
        self.guard = self.make(accounts=self.accounts)

    def test_what_can_be_decided_at_once(self):
        """Reading by V1; by V2 with a password that was right a moment ago. Nothing with an index, all without both."""
        self.guard = self.make(
            accounts=Accounts(UsersFile(self.file.path, True), ImmediatePool(), self.clock, open=True)
        )
        secret = basic("joe", "secret")
        for authorization in ("", "Basic", "Token x", secret):
            self.assertTrue(self.guard.allows_now(False, authorization))
            self.assertFalse(self.guard.allows_now(True, authorization))
        facts = Facts("GET", "/v2/", Kind.OPEN, {"authorization": secret})
        self.assertEqual(self.successResultOf(start(self.guard.allow_v2(facts))).by, By.ACCOUNT)
        allowed = [text for text in ("", "Basic", basic("joe", "x"), secret) if self.guard.allows_now(True, text)]
        self.assertEqual(allowed, [secret])
        self.assertTrue(self.make().allows_now(True, ""))
        closed = [
            self.make(index=Index("http://index.test", RequestTraversalAgent(self.index), self.clock)),
            self.make(glance_endpoints=("http://g",)),
        ]
        self.assertEqual([guard.allows_now(v2, secret) for guard in closed for v2 in (True, False)], [False] * 4)

    def test_reading_is_free(self):
        for target in (A, "a1"):
            for method in ("GET", "HEAD"):
                self.assertEqual(self.allowed(method, target), Grant(By.ANYBODY))

    def test_a_password(self):
        for target in (A, "a1", "a1/json"):
            for method in ("PUT", "POST", "DELETE"):
                grant = self.allowed(method, target, basic("joe", "secret"))
                self.assertEqual((grant.by, grant.user, grant.listed), (By.ACCOUNT, "joe", None))
                wrong = [basic("joe", "wrong"), basic("ann", "secret")]
                for authorization in ("", *wrong, "Basic", "Basic !", "Basic Og=="):
                    challenge = self.refused(method, target, authorization)
                    self.assertEqual(challenge, {"WWW-Authenticate": 'Basic realm="txregistry"'})
                self.clock.advance(100)

    def granted(self, access: str = "write") -> str:
        """The token that a client gets which has shown its password."""
        return self.guard.token(self.allowed("PUT", A, basic("joe", "secret")), A, access)

    def test_our_own_token(self):
        text = "Token " + self.granted()
        grant = self.allowed("PUT", A, text)
        self.assertEqual((grant.by, grant.user, grant.repository), (By.TOKEN, "joe", A))
        self.allowed("PUT", "a1/layer", text)
        self.refused("PUT", B, text)
        self.refused("DELETE", A, text)
        cookie = self.cookie(grant)
        self.assertEqual(self.allowed("PUT", A, cookie=cookie).by, By.SESSION)
        self.refused("PUT", B, cookie=cookie)
        self.refused("DELETE", A, cookie=cookie)

    def test_a_changed_token(self):
        text = self.granted("read")
        self.refused("PUT", A, text)
        self.refused("PUT", A, text.replace("access=read", "access=write"))
        self.refused("PUT", A, text.replace(",access=read", ""))
        self.refused("PUT", B, self.granted().replace("foo/a", "foo/b"))

    def test_tokens_of_who_did_not_show_a_password(self):
        grant = self.allowed("GET", A)
        self.refused("PUT", A, self.guard.token(grant, A, "write"))

    def test_a_cookie_is_no_token(self):
        cookie = self.cookie(self.allowed("PUT", A, self.granted()))
        value = cookie.partition("=")[2]
        self.refused("PUT", A, f"Token signature={value},repository=foo/a,access=write")

    def test_an_account_that_is_gone(self):
        text = self.granted()
        cookie = self.cookie(self.allowed("PUT", A, text))
        self.file.remove("joe")
        self.refused("PUT", A, text)
        self.refused("PUT", A, cookie=cookie)

    def test_sessions_of_an_index_do_not_count(self):
        sessions = Sessions(self.secret, "session", self.clock.seconds)
        cookie = sessions.cookie(sessions.new(A, None), False).partition(";")[0]
        self.refused("PUT", A, cookie=cookie)
