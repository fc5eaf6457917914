"""What V1 answers apart from images and repositories: greetings, users, and what is on no route."""

from __future__ import annotations

import json

from tests.web.v1.base import A, V1TestCase


class Greetings(V1TestCase):
    def test_root(self) -> None:
        self.accepted(self.get("/"), text='"docker-registry server (test)"')

    def test_ping(self) -> None:
        for path in ("/_ping", "/v1/_ping"):
            answer = self.get(path)
            self.accepted(answer)
            self.assertEqual(answer.header("X-Docker-Registry-Standalone"), "True")


class Users(V1TestCase):
    def test_log_in(self) -> None:
        for path in ("/v1/users", "/v1/users/"):
            self.accepted(self.get(path), text='"OK"')
            for kind in ("application/json; charset=utf-8", "application/x-www-form-urlencoded"):
                body = json.dumps({"username": "u", "password": "p", "auth": "", "email": "e"}).encode()
                self.accepted(self.ask("POST", path, {"Content-Type": kind}, body), 201, '"User Created"')
            self.refused(self.ask("POST", path, body=b"x"), 400, "Error Decoding JSON")
        for path in ("/v1/users/u", "/v1/users/u/"):
            answer = self.put(path, b"{}")
            self.assertEqual((answer.code, answer.body), (204, b""))
        self.assertEqual(self.paths(), [])


class Routing(V1TestCase):
    def test_unknown(self) -> None:
        for path in ("/x", "/v1", "/v1/", "/v1/images", "/v1/images/x", "/v1/repositories//foo/tags", "/v3/"):
            self.assertEqual(self.get(path).code, 404, path)

    def test_method_not_allowed(self) -> None:
        for method, path, allowed in [
            ("POST", "/_ping", "GET, HEAD, OPTIONS"),
            ("POST", f"/v1/images/{A}/json", "GET, HEAD, OPTIONS, PUT"),
            ("GET", f"/v1/images/{A}/checksum", "OPTIONS, PUT"),
            ("GET", "/v1/repositories/foo/bar", "DELETE, OPTIONS, PUT"),
            ("GET", "/v1/repositories/foo/bar/tags/", "DELETE, OPTIONS, PUT"),
        ]:
            answer = self.ask(method, path)
            self.assertEqual((answer.code, answer.header("Allow")), (405, allowed), path)

    def test_options(self) -> None:
        for path, allowed in [
            ("/_ping", "GET, HEAD, OPTIONS"),
            (f"/v1/images/{A}/json", "GET, HEAD, OPTIONS, PUT"),
            ("/v1/repositories/foo/bar/tags/x", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ]:
            answer = self.ask("OPTIONS", path)
            self.assertEqual((answer.code, answer.body, answer.header("Allow")), (200, b"", allowed))

    def test_slashes_at_the_beginning(self) -> None:
        self.push_image(A)
        for slashes in ("//", "////"):
            self.assertEqual(self.get(f"{slashes}v1/images/{A}/json").code, 200)

    def test_slash_at_the_end_of_a_list_names_a_repository(self) -> None:
        self.accepted(self.put("/v1/repositories/foo/bar/images/", b"[]"), text='""')
        self.assertEqual(self.paths(), ["repositories/foo/bar%2Fimages/_index_images"])

    def test_odd_hosts(self) -> None:
        for host in ("x" * 300, "a..b", "\xe4", "[", ""):
            self.assertIn(self.get("/_ping", {"Host": host}).code, {200, 400}, host)
            self.assertIn(self.put("/v1/repositories/a/b/", b"[]", {"Host": host}).code, {200, 400}, host)

    def test_v2_has_no_headers_of_v1(self) -> None:
        for path in ("/v2/", "/v2/x"):
            answer = self.successResultOf(self.memory.agent.request("GET", path))
            self.assertIsNone(answer.header("X-Docker-Registry-Version"))
            self.assertIsNone(answer.header("Pragma"))

    def test_body_that_is_too_large(self) -> None:
        for path in (f"/v1/images/{A}/json", "/v1/repositories/foo/bar/", "/v1/repositories/foo/bar/tags/x"):
            upload = self.memory.agent.start("PUT", path, length=1 << 30)
            self.assertEqual(self.successResultOf(upload.response).code, 413)
