"""Names that would lead elsewhere: whatever a URL says, the storage is asked for paths below its root only."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.web.v1.base import A, V1TestCase

BAD = ["..", ".", "%2e%2e", "%2E.", "a%00b", "%00", "a%0ab", "a%5cb", "a%2f..%2fb", "..%2f..", "a/../b", "a" * 5000,
       "%c3%a4" * 200, "%ff", "%7f", "..%252f", "%ed%a0%80", "~", "%20", "%2f", ""]  # fmt: skip
IMAGES = ["/v1/images/{}/json", "/v1/images/{}/layer", "/v1/images/{}/checksum", "/v1/images/{}/ancestry",
          "/v1/private_images/{}/json", "/v1/private_images/{}/layer"]  # fmt: skip
REPOSITORIES = ["/v1/repositories/{}", "/v1/repositories/{}/", "/v1/repositories/{}/tags", "/v1/repositories/{}/images",
                "/v1/repositories/{}/json", "/v1/repositories/{}/properties", "/v1/repositories/{}/auth",
                "/v1/repositories/{}/x/tags/latest", "/v1/repositories/{}/x/tags", "/v1/repositories/x/{}/tags/latest",
                "/v1/repositories/x/y/tags/{}", "/v1/repositories/x/y/tags/{}/json", "/v1/users/{}/"]  # fmt: skip
VERBS = ("read", "open", "put", "partial", "peek", "partials", "stat", "list", "move", "remove", "settle")


class Paths(V1TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.push_image(A)
        for verb in VERBS:
            self.patch(self.memory.driver, verb, self.watched(getattr(self.memory.driver, verb)))

    def watched(self, verb: Any) -> Any:
        def watch(*args: Any, **more: Any) -> Any:
            for path in args:
                if isinstance(path, str) and path:
                    self.look(path)
            return verb(*args, **more)

        return watch

    def look(self, path: str) -> None:
        for part in path.split("/"):
            self.assertNotIn(part, ("", ".", ".."), path)
            self.assertLessEqual(len(part.encode("utf-8")), 255, path)
            self.assertTrue(part.isprintable() or part.isspace(), path)
        first = path.partition("/")[0]
        self.assertIn(first, ("images", "repositories", "_txregistry", "docker"), path)

    def try_all(self, bad: str) -> None:
        before = self.everything()
        token = {"Authorization": f'Token repository="{bad[:200]}"'}
        for rule in IMAGES + REPOSITORIES:
            for method in ("GET", "PUT", "DELETE", "HEAD"):
                body = json.dumps(bad).encode() if method == "PUT" else b""
                answer = self.successResultOf(self.memory.agent.request(method, rule.format(bad), token, body))
                self.assertLess(answer.code, 500, (method, rule, bad))
        self.assertTrue(before.items() <= self.everything().items())

    def test_known_tricks(self) -> None:
        for bad in BAD:
            self.try_all(bad)

    @given(st.text(st.sampled_from("./%2eE5f0cA\\ a~\x80"), max_size=12))
    @settings(deadline=None, derandomize=True, max_examples=25)
    def test_random_ones(self, text: str) -> None:
        self.try_all("".join(char if " " < char < "\x7f" else "%80" for char in text))

    def test_ids_in_bodies(self) -> None:
        for bad in ("..", "../images", "a/b", "\0", "x" * 300, "\ud800"):
            for rule in ("/v1/repositories/x/y/tags/latest",):
                self.assertLess(self.put(rule, json.dumps(bad).encode()).code, 500)
            data = json.dumps({"id": "b" * 64, "parent": bad}).encode()
            answer = self.put(f"/v1/images/{'b' * 64}/json", data)
            self.refused(answer, 400, "Image depends on a non existing parent")
