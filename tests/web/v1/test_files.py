"""The files of layers and the differences between layers, as clients ask for them."""

from __future__ import annotations

import json
from typing import Any

from tests.model.archives import END, member
from tests.web.v1.base import UNFINISHED, A, B, C, V1TestCase, archive
from txregistry.concurrency import start
from txregistry.errors import ReadOnly
from txregistry.storage.memory import MemoryDriver
from txregistry.testing.registry import MemoryRegistry

BASE = member(b"./etc/", b"", b"5") + member(b"./etc/hosts", b"1") + member(b"./etc/old") + END
TOP = member(b"./etc/hosts", b"22") + member(b"./etc/.wh.old") + member(b"./new") + END
PRIVATE = {"Authorization": "Token signature=x,repository=foo/bar,access=read"}


class FilesCase(V1TestCase):
    def cacheable(self, response: Any) -> None:
        self.assertEqual(response.header("Cache-Control"), "public, max-age=31536000")
        self.assertEqual(response.header("Last-Modified"), "Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertIsNone(response.header("Pragma"))

    def make_private(self, image: str) -> None:
        self.store("repositories/foo/bar/_private", b"")
        self.store("repositories/foo/bar/tag_latest", image.encode())


class Files(FilesCase):
    def test_a_list_is_made_and_kept(self) -> None:
        self.push_image(A, layer=BASE)
        expected = b", ".join([
            b'[["/etc", "d", false, 0, 0, 33188, 0, 0]',
            b'["/etc/hosts", "f", false, 1, 0, 33188, 0, 0]',
            b'["/etc/old", "f", false, 0, 0, 33188, 0, 0]]',
        ])  # fmt: skip
        for _ in range(2):
            response = self.get(f"/v1/images/{A}/files")
            self.assertEqual((response.code, response.body), (200, expected))
            self.assertEqual(response.header("Content-Type"), "application/json")
            self.assertEqual(response.header("Content-Length"), str(len(expected)))
            self.cacheable(response)
            self.assertEqual(self.stored(f"images/{A}/_files"), expected)

    def test_a_list_that_an_old_server_made_is_sent_as_it_is(self) -> None:
        self.push_image(A, layer=BASE)
        self.store(f"images/{A}/_files", b"[ old ]")
        self.assertEqual(self.get(f"/v1/images/{A}/files").body, b"[ old ]")
        self.store(f"images/{A}/_files", b"")
        self.assertEqual(len(self.get(f"/v1/images/{A}/files").json()), 3)

    def test_head_and_not_modified(self) -> None:
        self.push_image(A, layer=BASE)
        head = self.ask("HEAD", f"/v1/images/{A}/files")
        size = len(self.stored(f"images/{A}/_files") or b"")
        self.assertEqual((head.code, head.body, head.header("Content-Length")), (200, b"", str(size)))
        again = self.get(f"/v1/images/{A}/files", {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"})
        self.assertEqual((again.code, again.body), (304, b""))

    def test_what_cannot_be_listed(self) -> None:
        for image, layer in ((A, b""), (B, b"no archive" * 100), (C, BASE[:700])):
            self.push_image(image, layer=layer)
            for _ in range(2):
                self.refused(self.get(f"/v1/images/{image}/files"), 400, "Layer format not supported")
            self.assertIsNone(self.stored(f"images/{image}/_files"))

    def test_what_is_not_there_or_not_finished(self) -> None:
        for part in ("files", "diff"):
            self.refused(self.get(f"/v1/images/{A}/{part}"), 404, "Image not found")
            conditional = {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
            self.refused(self.get(f"/v1/images/{A}/{part}", conditional), 404, "Image not found")
        self.push_json(A)
        self.store(f"images/{A}/_files", b"[]")
        for part in ("files", "diff"):
            self.refused(self.get(f"/v1/images/{A}/{part}"), 400, UNFINISHED)

    def test_private_images(self) -> None:
        self.push_image(A, layer=BASE)
        url = f"/v1/private_images/{A}/files"
        self.refused(self.get(url), 404, "Image not found")
        self.refused(self.get(url, PRIVATE), 404, "Image not found")
        self.make_private(A)
        response = self.get(url, PRIVATE)
        self.assertEqual((response.code, len(response.json())), (200, 3))
        self.assertEqual(response.header("Cache-Control"), "no-cache")
        conditional = {**PRIVATE, "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
        self.assertEqual(self.get(url, conditional).code, 200)
        for part in ("files", "diff"):
            self.refused(self.get(f"/v1/images/{A}/{part}", PRIVATE), 404, "Image not found")
        self.push_image(B, layer=BASE)
        self.refused(self.get(f"/v1/private_images/{B}/files", PRIVATE), 404, "Image not found")

    def test_a_store_that_takes_nothing(self) -> None:
        self.push_image(A, layer=BASE)

        def refuse(path: str, *_: object) -> Any:
            raise ReadOnly(path)

        self.patch(MemoryDriver, "_put", lambda _, path, *further: refuse(path))
        response = self.get(f"/v1/images/{A}/files")
        self.assertEqual((response.code, len(response.json())), (200, 3))
        self.cacheable(response)
        self.assertIsNone(self.stored(f"images/{A}/_files"))

    def test_methods(self) -> None:
        for part in (f"images/{A}/files", f"images/{A}/diff", f"private_images/{A}/files"):
            self.assertEqual(self.put(f"/v1/{part}").code, 405)
            options = self.ask("OPTIONS", f"/v1/{part}")
            self.assertEqual((options.code, options.header("Allow")), (200, "GET, HEAD, OPTIONS"))


class Diffs(FilesCase):
    def missed(self, image: str) -> None:
        """The answer when a diff is not there yet: an empty one that nobody keeps."""
        response = self.get(f"/v1/images/{image}/diff")
        self.assertEqual((response.code, response.body, response.header("Content-Length")), (200, b"", "0"))
        for name, value in (("Cache-Control", "no-cache"), ("Pragma", "no-cache"), ("Expires", "-1")):
            self.assertEqual(response.header(name), value)

    def test_first_nothing_then_the_differences(self) -> None:
        self.push_image(A, layer=BASE)
        self.push_image(B, A, layer=TOP)
        self.missed(B)
        self.memory.clock.advance(0)
        response = self.get(f"/v1/images/{B}/diff")
        self.assertEqual(
            response.body.decode(),
            '{"deleted": {"/etc/old": ["f", true, 0, 0, 33188, 0, 0]},'
            ' "changed": {"/etc/hosts": ["f", false, 2, 0, 33188, 0, 0]},'
            ' "created": {"/new": ["f", false, 0, 0, 33188, 0, 0]}}',
        )
        self.cacheable(response)
        self.assertEqual(self.stored(f"images/{B}/_diff"), response.body)
        again = self.get(f"/v1/images/{B}/diff", {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"})
        self.assertEqual((again.code, again.body), (304, b""))

    def test_a_miss_is_never_not_modified(self) -> None:
        self.push_image(A, layer=BASE)
        response = self.get(f"/v1/images/{A}/diff", {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"})
        self.assertEqual((response.code, response.body), (200, b""))

    def test_what_an_old_server_worked_out(self) -> None:
        self.push_image(A, layer=BASE)
        self.store(f"images/{A}/_diff", b"{ old }")
        self.assertEqual(self.get(f"/v1/images/{A}/diff").body, b"{ old }")
        self.store(f"images/{A}/_diff", b"")
        self.missed(A)

    def test_lists_of_old_servers_are_used_and_damaged_ones_made_again(self) -> None:
        self.push_image(A, layer=archive("unlike"))
        self.push_image(B, A, layer=TOP)
        old = json.dumps([["/new", "f", False, 0, 0, 0, 0, 0]]).encode()
        self.store(f"images/{A}/_files", old)
        self.store(f"images/{B}/_files", b'[["/ne')
        self.missed(B)
        self.memory.clock.advance(0)
        self.assertEqual(self.get(f"/v1/images/{B}/diff").json()["changed"].keys(), {"/new"})
        self.assertEqual(self.stored(f"images/{A}/_files"), old)
        self.assertEqual(len(json.loads(self.stored(f"images/{B}/_files") or b"")), 3)

    def test_what_cannot_be_worked_out_is_said_for_a_while(self) -> None:
        self.push_image(A, layer=b"no archive")
        self.push_image(B, A, layer=TOP)
        self.missed(B)
        self.memory.clock.advance(0)
        self.refused(self.get(f"/v1/images/{B}/diff"), 400, "Layer format not supported")
        self.memory.clock.advance(61)
        self.missed(B)

    def test_a_pushed_layer_drops_what_was_known_of_another(self) -> None:
        self.push_json(A)
        self.store(f"images/{A}/_files", b"[]")
        self.store(f"images/{A}/_diff", b"{}")
        self.push_image(A, layer=BASE)
        self.missed(A)
        self.assertEqual(len(self.get(f"/v1/images/{A}/files").json()), 3)

    def test_stopped(self) -> None:
        self.push_image(A, layer=BASE)
        self.missed(A)
        v1 = self.memory.registry.v1
        self.successResultOf(start(v1.stop()))
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        self.missed(A)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        self.assertEqual(self.get(f"/v1/images/{A}/files").code, 429)


class SharedRegistries(FilesCase):
    """Two processes on one store."""

    def test_a_diff_that_another_process_made(self) -> None:
        self.push_image(A, layer=BASE)
        other = MemoryRegistry(driver=MemoryDriver(contents=self.memory.contents))
        target = f"/v1/images/{A}/diff"
        self.assertEqual(self.successResultOf(other.agent.request("GET", target)).body, b"")
        other.clock.advance(0)
        self.assertEqual(len(self.get(target).json()["created"]), 3)
