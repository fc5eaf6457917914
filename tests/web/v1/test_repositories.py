"""Repositories: tags, lists of images, properties, and what is known of clients."""

from __future__ import annotations

import json
import re

from tests.web.v1.base import A, B, C, V1TestCase, image_json
from txregistry.core.policy import Policy
from txregistry.web.app import WebOptions

BAR = "/v1/repositories/foo/bar"
AGENT = "docker/0.7.2-dev go/go1.2 git-commit/x os/OStest arch/archtest"


class Tags(V1TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.push_image(A)
        self.push_image(B, A)

    def tag(self, path: str, image: str = A, headers: dict[str, str] | None = None) -> None:
        self.accepted(self.put(f"/v1/repositories/{path}", json.dumps(image).encode(), headers))

    def test_one(self) -> None:
        self.tag("foo/bar/tags/v1")
        self.assertEqual(self.stored("repositories/foo/bar/tag_v1"), A.encode())
        self.accepted(self.get(f"{BAR}/tags/v1"), text=f'"{A}"')
        self.tag("foo/bar/tags/v1", B)
        self.accepted(self.get(f"{BAR}/tags/v1"), text=f'"{B}"')
        self.accepted(self.get(f"{BAR}/tags"), text=f'{{\n    "v1": "{B}"\n}}')

    def test_missing(self) -> None:
        self.refused(self.get(f"{BAR}/tags"), 404, "Repository not found")
        self.refused(self.get(f"{BAR}/tags/v1"), 404, "Tag not found")
        self.put(f"{BAR}/", b"[]")
        self.accepted(self.get(f"{BAR}/tags"), text="{}")

    def test_values(self) -> None:
        for data in (b"", b"x", b"1", b"null", b'""', b"[]", b"{}", b"\xff", b"[" * 100_000):
            self.refused(self.put(f"{BAR}/tags/x", data), 400, "Invalid data")
        for value in (C, "..", "../x", "a/b", "x\0", "y" * 1000):
            self.refused(self.put(f"{BAR}/tags/x", json.dumps(value).encode()), 404, "Image not found")
        self.assertEqual(self.paths("repositories"), [])

    def test_image_in_progress_can_be_tagged(self) -> None:
        self.accepted(self.put(f"/v1/images/{C}/json", image_json(C)))
        self.tag("foo/bar/tags/x", C)

    def test_deleting(self) -> None:
        self.tag("foo/bar/tags/latest")
        self.tag("foo/bar/tags/v1")
        self.accepted(self.ask("DELETE", f"{BAR}/tags/latest"))
        self.refused(self.get(f"{BAR}/tags/latest"), 404, "Tag not found")
        self.accepted(self.ask("DELETE", f"{BAR}/tags/latest"))
        self.accepted(self.ask("DELETE", "/v1/repositories/none/none/tags/latest"))
        left = [f"repositories/foo/bar/{name}" for name in ("tag_v1", "tagv1_json")]
        self.assertEqual(self.paths("repositories"), left)

    def test_deleting_the_repository(self) -> None:
        for path in (f"{BAR}/tags", BAR, f"{BAR}/"):
            self.tag("foo/bar/tags/latest")
            self.tag("foo/barn/tags/latest")
            self.put(f"{BAR}/", b"[]")
            self.accepted(self.ask("DELETE", path))
            self.refused(self.ask("DELETE", path), 404, "Repository not found")
            self.refused(self.get(f"{BAR}/tags"), 404, "Repository not found")
            self.refused(self.get(f"{BAR}/tags/latest"), 404, "Tag not found")
            self.refused(self.get(f"{BAR}/images"), 404, "images not found")
            self.assertEqual(self.get("/v1/repositories/foo/barn/tags").code, 200)
            self.assertEqual(self.get(f"/v1/images/{A}/json").code, 200)

    def test_clients(self) -> None:
        self.memory.clock.advance(1390255309.75)
        unknown = {"arch": "amd64", "docker_go_version": None, "docker_version": None, "kernel": None}
        unknown |= {"last_update": None, "os": "linux"}
        self.assertEqual(self.get(f"{BAR}/json").json(), unknown)
        self.assertEqual(self.get(f"{BAR}/tags/v1/json").json(), unknown)
        self.tag("foo/bar/tags/v1", headers={"User-Agent": AGENT})
        known: dict[str, object] = {"docker_version": "0.7.2-dev", "docker_go_version": "go1.2", "os": "ostest"}
        known |= {"arch": "archtest", "last_update": 1390255309}
        self.assertEqual(self.get(f"{BAR}/json").json(), unknown)
        self.assertEqual(self.get(f"{BAR}/tags/v1/json").json(), known)
        self.tag("foo/bar/tags/latest", headers={"User-Agent": AGENT})
        answer = self.get(f"{BAR}/json")
        self.accepted(answer, text=json.dumps(known, indent=4, sort_keys=True))
        self.tag("foo/bar/tags/latest")
        self.assertEqual(self.get(f"{BAR}/json").json(), {"last_update": 1390255309})
        self.accepted(self.ask("DELETE", f"{BAR}/tags/latest"))
        self.assertEqual(self.get(f"{BAR}/json").json(), unknown)

    def test_old_servers_see_no_tag_that_is_none(self) -> None:
        self.tag("foo/bar/tags/_x")
        self.tag("foo/bar/tags/y")
        names = [path.rpartition("/")[2] for path in self.paths("repositories")]
        self.assertEqual(sorted(name for name in names if name.startswith("tag_")), ["tag__x", "tag_y"])
        self.assertEqual(list(self.get(f"{BAR}/tags").json()), ["_x", "y"])

    def test_names(self) -> None:
        for path, directory in [
            ("ubuntu", "library/ubuntu"),
            ("library/ubuntu", "library/ubuntu"),
            ("foo/b%20r+x%25y", "foo/b+r%2Bx%25y"),
            ("foo/x%$_-t", "foo/x%25%24_-t"),
            ("foo/bar/baz", "foo/bar%2Fbaz"),
            ("foo/bar/", "foo/bar"),
        ]:
            self.tag(f"{path}/tags/z")
            self.assertIn(f"repositories/{directory}/tag_z", self.paths())
            self.assertEqual(self.get(f"/v1/repositories/{path}/tags").json(), {"z": A})


class Switched(V1TestCase):
    policy = Policy(delete=False)

    def test_nothing_can_be_deleted(self) -> None:
        self.push_image(A)
        self.put(f"{BAR}/tags/latest", json.dumps(A).encode())
        for path in (BAR, f"{BAR}/tags", f"{BAR}/tags/latest"):
            self.assertEqual(self.ask("DELETE", path).code, 405)
        self.assertEqual(self.get(f"{BAR}/tags").json(), {"latest": A})


class Index(V1TestCase):
    def headers(self, response, access: str, repository: str = "foo/bar", host: str = "localhost:5000") -> None:
        token = response.header("X-Docker-Token")
        pattern = rf'Token signature=[A-Z0-9]{{16}},repository="{repository}",access={access}'
        self.assertTrue(re.fullmatch(pattern, token))
        self.assertEqual(response.header("WWW-Authenticate"), token)
        self.assertEqual(response.header("X-Docker-Endpoints"), host)

    def test_push(self) -> None:
        data = b'[ {"id": "a1"},{"id": "a2", "Tag": "latest"} ]'
        for path in (BAR, f"{BAR}/"):
            answer = self.put(path, data)
            self.accepted(answer, text='""')
            self.headers(answer, "write")
        self.setUp()
        self.put(f"{BAR}/", data)
        self.assertEqual(self.stored("repositories/foo/bar/_index_images"), data)
        answer = self.get(f"{BAR}/images")
        self.accepted(answer, text=data.decode())
        self.headers(answer, "read")
        answer = self.put(f"{BAR}/images", b"[]")
        self.assertEqual((answer.code, answer.body), (204, b""))
        self.headers(answer, "write")
        answer = self.ask("DELETE", f"{BAR}/images")
        self.assertEqual((answer.code, answer.body), (204, b""))
        self.headers(answer, "delete")
        self.assertEqual(self.get(f"{BAR}/images").code, 200)

    def test_merge(self) -> None:
        self.put(f"{BAR}/", b'[{"id":"a1"}]')
        self.put(f"{BAR}/images", b'[{"id":"a1","checksum":"x"},{"id":"a2","Tag":"t"}]')
        self.put(f"{BAR}/images", b'[{"id":"a1"}]')
        listed = {one["id"]: one for one in self.get(f"{BAR}/images").json()}
        self.assertEqual(listed, {"a1": {"id": "a1", "checksum": "x"}, "a2": {"id": "a2", "Tag": "t"}})

    def test_refusals(self) -> None:
        self.refused(self.get(f"{BAR}/images"), 404, "images not found")
        for path in (f"{BAR}/", f"{BAR}/images"):
            self.refused(self.put(path, b"x"), 400, "Error Decoding JSON")
            self.refused(self.put(path, b'{"id": 1}'), 400, "Invalid data")
            self.refused(self.put(path, b"[1]"), 400, "Invalid data")
        self.refused(self.put(f"{BAR}/tags/a/b", b'"x"'), 400, "Invalid data")
        self.assertEqual(self.paths(), [])

    def test_quoted_repository_in_the_token(self) -> None:
        self.headers(self.put("/v1/repositories/foo/b%20r/", b"[]"), "write", r"foo/b\+r")

    def test_endpoints(self) -> None:
        self.headers(self.put(f"{BAR}/", b"[]", {"Host": "reg.example:8080"}), "write", host="reg.example:8080")
        self.options = WebOptions(flavor="test", registry_endpoints=("a.example", "b.example:1"))
        self.setUp()
        self.headers(self.put(f"{BAR}/", b"[]"), "write", host="a.example,b.example:1")

    def test_without_host(self) -> None:
        connection = self.memory.agent.connect()
        due = connection.response()
        connection.send(b"PUT /v1/repositories/foo/bar/ HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]")
        self.headers(self.successResultOf(due), "write", host="127.0.0.1:5000")

    def test_authorize(self) -> None:
        self.accepted(self.put(f"{BAR}/auth"), text='"OK"')


class Properties(V1TestCase):
    def test_access(self) -> None:
        path = f"{BAR}/properties"
        self.assertEqual(self.get(path).text, '{\n    "access": "public"\n}')
        for word, now in [("private", "private"), ("private", "private"), ("else", "private"), ("public", "public")]:
            self.accepted(self.put(path, json.dumps({"access": word}).encode()))
            self.assertEqual(self.get(path).json(), {"access": now})
        self.accepted(self.put(path, b'{"access": "public"}'))

    def test_refusals(self) -> None:
        for data in (b"", b"x", b"[]", b"{}", b'"private"', b'{"a": "private"}'):
            self.refused(self.put(f"{BAR}/properties", data), 400, "Invalid data")
        for word in (b"1", b"[]", b"{}", b"null"):
            self.accepted(self.put(f"{BAR}/properties", b'{"access": %s}' % word))
        self.assertEqual(self.paths(), [])


class Search(V1TestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("ubuntu", "Foo/Bar", "foo/x%$y"):
            self.put(f"/v1/repositories/{name}/", b"[]")
        for name in ("team/bar", "library/ubuntu"):
            path = f"docker/registry/v2/repositories/{name}/_layers/sha256/{A}/link"
            self.store(path, b"sha256:" + A.encode())

    def names(self, query: str) -> list[str]:
        answer = self.get(f"/v1/search{query}")
        self.accepted(answer, text=answer.text)
        return [one["name"] for one in answer.json()["results"]]

    def test_both_dialects(self) -> None:
        self.assertEqual(self.names("?q=bar"), ["Foo/Bar", "team/bar"])
        self.assertEqual(self.names("?q=BUN"), ["library/ubuntu"])
        self.assertEqual(self.names("?q=%25%24"), ["foo/x%$y"])
        self.assertEqual(self.names("?q=nowhere"), [])
        self.assertEqual(len(self.names("")), 4)

    def test_pages(self) -> None:
        answer = self.get("/v1/search?q=bar&n=1&page=2").json()
        expected = {"query": "bar", "num_results": 2, "page": 2, "page_size": 1, "num_pages": 2}
        self.assertEqual(answer, {**expected, "results": [{"name": "team/bar", "description": ""}]})
        for query in ("?n=0&page=0", "?n=x&page=-1", "?n=99999999999999999999", "?q=%ff"):
            self.assertEqual(self.get(f"/v1/search{query}").code, 200)
