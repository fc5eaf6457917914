"""Tags, the catalog, and their pages."""

from __future__ import annotations

from urllib.parse import quote

from tests.web.v2.base import V2TestCase


class Ping(V2TestCase):
    def test_says_that_the_api_is_here(self) -> None:
        for target in ("/v2/", "/v2"):
            response = self.ask("GET", target)
            self.assertEqual((response.code, response.body), (200, b"{}"))
        self.assertEqual(self.ask("HEAD", "/v2/").body, b"")

    def test_other_methods(self) -> None:
        response = self.ask("POST", "/v2/")
        self.refused(response, 405, "UNSUPPORTED")
        self.assertEqual(response.header("Allow"), "GET, HEAD")

    def test_unknown_paths(self) -> None:
        for target in ("/v2/x", "/v2/x/y", "/v2/a/manifests/t/u", "/v2//tags/list"):
            self.refused(self.ask("GET", target), 404, "NAME_UNKNOWN")
        for target in ("/v2//a/tags/list", "/v2/a//tags/list", "/v2/a/b//manifests/t", "/v2/../manifests/t"):
            self.assertIn(self.ask("GET", target).json()["errors"][0]["code"], {"NAME_UNKNOWN", "NAME_INVALID"})


class Tags(V2TestCase):
    def setUp(self) -> None:
        super().setUp()
        for tag in ("b", "a", "_", "B", "1.0", "a-1"):
            self.push_image("r", tag)
        self.order = ["1.0", "B", "_", "a", "a-1", "b"]

    def tags(self, query: str = "") -> tuple[list[str], str | None]:
        response = self.ask("GET", f"/v2/r/tags/list{query}")
        self.assertEqual((response.code, response.json()["name"]), (200, "r"))
        return response.json()["tags"], response.header("Link")

    def test_in_byte_order(self) -> None:
        self.assertEqual(self.tags(), (self.order, None))

    def test_pages(self) -> None:
        for size in (1, 2, 4, 5):
            found: list[str] = []
            query: str | None = f"?n={size}"
            while query:
                page, link = self.tags(query)
                self.assertEqual(len(page), min(size, len(self.order) - len(found)))
                found += page
                query = link and link.partition("?")[2].join(["?", ""]).partition(">")[0]
            self.assertEqual(found, self.order)

    def test_sizes(self) -> None:
        self.assertEqual(self.tags("?n=0"), ([], None))
        self.assertEqual(self.tags("?n=6"), (self.order, None))
        self.assertEqual(self.tags("?n=99999999999999999999999"), (self.order, None))
        for bad in ("-1", "x", "", "1.5"):
            self.refused(self.ask("GET", f"/v2/r/tags/list?n={bad}"), 400, "PAGINATION_NUMBER_INVALID")

    def test_last_need_not_exist(self) -> None:
        self.assertEqual(self.tags("?last=a-0"), (["a-1", "b"], None))
        self.assertEqual(self.tags("?last=zzz"), ([], None))

    def test_unknown_repository(self) -> None:
        self.refused(self.ask("GET", "/v2/x/tags/list"), 404, "NAME_UNKNOWN")
        self.start("x")
        self.refused(self.ask("GET", "/v2/x/tags/list"), 404, "NAME_UNKNOWN")

    def test_foreign_entries_are_no_tags(self) -> None:
        base = "docker/registry/v2/repositories/r/_manifests/tags"
        for path in ("file", ".tmp/current/link", "empty/index/sha256/x/link"):
            self.successResultOf(self.memory.driver.put(f"{base}/{path}", b"x"))
        self.assertEqual(self.tags()[0], self.order)


class Catalog(V2TestCase):
    def catalog(self, query: str = "") -> tuple[list[str], str | None]:
        response = self.ask("GET", f"/v2/_catalog{query}")
        self.assertEqual(response.code, 200)
        return response.json()["repositories"], response.header("Link")

    def test_whole_names_in_byte_order_and_pages(self) -> None:
        names = ["a", "a-b", "a/1", "a/b", "a/b/c", "a/b-c", "a.b", "ab", "b/x/y", "z"]
        for name in names:
            self.push_blob(name, b"x")
        self.start("only/an/upload")
        self.assertEqual(self.catalog(), (sorted(names), None))
        for size in (1, 3, 10):
            found: list[str] = []
            query = f"?n={size}"
            while query:
                page, link = self.catalog(query)
                found += page
                query = f"?n={size}&last={quote(page[-1], safe='')}" if link else ""
                if link:
                    self.assertEqual(link, f'</v2/_catalog?last={quote(page[-1], safe="")}&n={size}>; rel="next"')
            self.assertEqual(found, sorted(names))

    def test_empty(self) -> None:
        self.assertEqual(self.catalog(), ([], None))

    def test_foreign_directories_are_no_repositories(self) -> None:
        base = "docker/registry/v2/repositories"
        for path in ("A/_manifests/x", "_x/_manifests/x", ".x/_layers/x", "file", "a/_y"):
            self.successResultOf(self.memory.driver.put(f"{base}/{path}", b"x"))
        self.assertEqual(self.catalog(), ([], None))


class Headers(V2TestCase):
    def test_bytes_that_are_no_text(self) -> None:
        self.push_blob("a", b"x")
        for name in ("Range", "If-None-Match", "If-Range", "Content-Type", "Content-Range"):
            for method, target in (("GET", "manifests/t"), ("PUT", "manifests/t"), ("PATCH", "blobs/uploads/x")):
                connection = self.memory.agent.connect()
                response = connection.response()
                head = f"{method} /v2/a/{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{name}: "
                connection.send(head.encode() + b"\xff\xfe\r\n\r\n")
                self.assertIn(self.successResultOf(response).code, {400, 404, 416})
