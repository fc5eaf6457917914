"""Pushing and pulling images: every state of a push, every endpoint, every text."""

from __future__ import annotations

import gzip
import json

from tests.web.v1.base import UNFINISHED, A, B, C, V1TestCase, archive, image_json, simple, tarsum
from txregistry.core.policy import Policy

LAYER = archive()
J, PUT_LAYER, CHECKSUM, ANCESTRY = (f"/v1/images/{A}/{part}" for part in ("json", "layer", "checksum", "ancestry"))


class Roads(V1TestCase):
    """The ways on which a push comes to its end."""

    def test_checksum_announced(self) -> None:
        data = image_json(A)
        self.accepted(self.put(J, data, {"X-Docker-Checksum": simple(data, LAYER)}))
        self.assertEqual(self.stored(f"images/{A}/_inprogress"), b"true")
        self.refused(self.get(J), 400, UNFINISHED)
        self.accepted(self.put(PUT_LAYER, LAYER))
        self.finished(A, LAYER)

    def test_the_four_lines(self) -> None:
        data = image_json(A)
        self.accepted(self.put(J, data, {"X-Docker-Checksum": simple(data, LAYER)}))
        self.accepted(self.put(PUT_LAYER, LAYER, {"Content-Type": "application/octet-stream"}))
        self.accepted(self.put("/v1/repositories/foo/bar/tags/latest", json.dumps(A).encode()))
        answer = self.put("/v1/repositories/foo/bar/", json.dumps([{"id": A}]).encode())
        self.accepted(answer, text='""')
        self.finished(A, LAYER)

    def test_checksum_after_the_layer(self) -> None:
        for kind in (simple, tarsum):
            for header in ("X-Docker-Checksum", "X-Docker-Checksum-Payload"):
                self.setUp()
                data = self.push_json(A)
                cookie = self.push_layer(A, LAYER)
                self.refused(self.get(J), 400, UNFINISHED)
                self.accepted(self.put(CHECKSUM, headers={header: kind(data, LAYER), **cookie}))
                self.finished(A, LAYER)
                self.assertEqual(self.stored(f"images/{A}/_checksum"), kind(data, LAYER).encode())

    def test_one_of_two_checksums_is_enough(self) -> None:
        data = self.push_json(A)
        cookie = self.push_layer(A, LAYER)
        sums = {"X-Docker-Checksum": "tarsum+sha256:" + "0" * 64, "X-Docker-Checksum-Payload": simple(data, LAYER)}
        self.accepted(self.put(CHECKSUM, headers={**sums, **cookie}))
        self.finished(A, LAYER)

    def test_checksum_without_cookie(self) -> None:
        data = self.push_json(A)
        self.push_layer(A, LAYER)
        self.accepted(self.put(CHECKSUM, headers={"X-Docker-Checksum": simple(data, LAYER)}))
        self.finished(A, LAYER)

    def test_chunked_and_compressed(self) -> None:
        packed = gzip.compress(LAYER, mtime=0)
        data = self.push_json(A)
        pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]
        answer = self.put(PUT_LAYER, chunks=pieces)
        self.accepted(answer)
        checksum = {"X-Docker-Checksum": tarsum(data, packed)}
        self.assertEqual(tarsum(data, packed), tarsum(data, LAYER))
        self.accepted(self.put(CHECKSUM, headers={**checksum, **self.cookie(answer)}))
        self.finished(A, packed)
        known = json.loads(self.stored(f"_txregistry/index/v1/{A}") or b"")
        self.assertNotEqual(known["diff_id"], known["digest"])

    def test_a_layer_that_is_no_archive(self) -> None:
        layer = b"anything at all"
        data = self.push_json(A)
        cookie = self.push_layer(A, layer)
        # Its tarsum, that of the JSON alone, would let any bytes pass.
        alone = {"X-Docker-Checksum": "tarsum+" + simple(data, b"")}
        self.refused(self.put(CHECKSUM, headers={**alone, **cookie}), 400, "Checksum mismatch")
        self.accepted(self.put(CHECKSUM, headers={"X-Docker-Checksum": simple(data, layer), **cookie}))
        known = json.loads(self.stored(f"_txregistry/index/v1/{A}") or b"")
        self.assertIsNone(known["diff_id"])
        self.assertEqual(self.get(PUT_LAYER).body, layer)

    def test_ids_of_sixteen(self) -> None:
        image = "cafe0123xyz45678"
        self.push_image(image, layer=LAYER)
        self.finished(image, LAYER)

    def test_disk_as_the_old_server_wants_it(self) -> None:
        self.push_image(A)
        data = self.push_image(B, A)
        self.assertEqual(
            self.paths("images/"),
            [f"images/{one}/{part}" for one in (A, B) for part in ("_checksum", "ancestry", "json", "layer")],
        )
        self.assertEqual(json.loads(self.stored(f"images/{B}/ancestry") or b""), [B, A])
        self.assertEqual(self.stored(f"images/{B}/json"), data)

    def test_json_is_kept_byte_by_byte(self) -> None:
        data = b'{ "id" :"%s",\n\t"odd": "\xc3\xa4 \\u00e4" }  ' % A.encode()
        self.accepted(self.put(J, data, {"X-Docker-Checksum": simple(data, LAYER)}))
        self.push_layer(A, LAYER)
        self.assertEqual(self.get(J).body, data)


class States(V1TestCase):
    """Each request in each state of an image."""

    def test_nothing(self) -> None:
        self.refused(self.put(PUT_LAYER, LAYER), 404, "Image not found")
        some = {"X-Docker-Checksum": "sha256:" + "0" * 64}
        self.refused(self.put(CHECKSUM, headers=some), 400, "Checksum not found in Cookie")
        self.refused(self.put(CHECKSUM, headers={**some, "Cookie": "v1_push=x"}), 404, "Image not found")
        for path in (J, PUT_LAYER, ANCESTRY):
            self.refused(self.get(path), 404, "Image not found")
            # Not even to those that would be content with an old copy.
            self.refused(self.get(path, {"If-Modified-Since": "x"}), 404, "Image not found")
        self.assertEqual(self.paths(), [])

    def test_json_only(self) -> None:
        self.push_json(A)
        for path in (J, PUT_LAYER, ANCESTRY):
            self.refused(self.get(path), 400, UNFINISHED)
            self.refused(self.get(path, {"If-Modified-Since": "x"}), 400, UNFINISHED)
        some = {"X-Docker-Checksum": "sha256:" + "0" * 64}
        self.refused(self.put(CHECKSUM, headers=some), 400, "Checksum not found in Cookie")
        self.push_json(A, comment="another")

    def test_layer_without_checksum(self) -> None:
        data = self.push_json(A)
        self.push_layer(A, archive("another"))
        for path in (J, PUT_LAYER, ANCESTRY):
            self.refused(self.get(path), 400, UNFINISHED)
        cookie = self.push_layer(A, LAYER)
        some = {"X-Docker-Checksum": "sha256:" + "0" * 64, **cookie}
        self.refused(self.put(CHECKSUM, headers=some), 400, "Checksum mismatch")
        self.refused(self.get(J), 400, UNFINISHED)
        self.push_json(A)
        self.accepted(self.put(CHECKSUM, headers={"X-Docker-Checksum": simple(data, LAYER), **cookie}))
        self.finished(A, LAYER)

    def test_layer_with_another_checksum_than_announced(self) -> None:
        data = image_json(A)
        self.push_json(A, headers={"X-Docker-Checksum": simple(data, LAYER)})
        refused = self.put(PUT_LAYER, archive("another"))
        self.refused(refused, 400, "Checksum mismatch, ignoring the layer")
        self.refused(self.get(J), 400, UNFINISHED)
        self.assertEqual(self.paths("_txregistry/tmp"), [])
        self.push_layer(A, LAYER)
        self.finished(A, LAYER)

    def test_finished(self) -> None:
        data = self.push_json(A)
        cookie = self.push_layer(A, LAYER)
        right = {"X-Docker-Checksum": simple(data, LAYER), **cookie}
        self.accepted(self.put(CHECKSUM, headers=right))
        before = self.everything()
        self.refused(self.put(J, data), 409, "Image already exists")
        self.refused(self.put(J, data, {"X-Docker-Checksum": "sha256:1"}), 409, "Image already exists")
        self.refused(self.put(PUT_LAYER, LAYER), 409, "Image already exists")
        self.refused(self.put(PUT_LAYER, LAYER, cookie), 409, "Image already exists")
        self.refused(self.put(CHECKSUM, headers=right), 409, "Cannot set this image checksum")
        self.assertEqual(before, self.everything())
        self.finished(A, LAYER)

    def test_other_json_voids_a_layer(self) -> None:
        data = self.push_json(A)
        cookie = self.push_layer(A, LAYER)
        changed = self.push_json(A, comment="another")
        for sent in (data, changed):
            checksum = {"X-Docker-Checksum": simple(sent, LAYER), **cookie}
            self.refused(self.put(CHECKSUM, headers=checksum), 400, "Checksum mismatch")
        cookie = self.push_layer(A, LAYER)
        self.accepted(self.put(CHECKSUM, headers={"X-Docker-Checksum": simple(changed, LAYER), **cookie}))
        self.finished(A, LAYER)

    def test_client_leaves_in_mid_layer(self) -> None:
        data = image_json(A)
        self.push_json(A, headers={"X-Docker-Checksum": simple(data, LAYER)})
        upload = self.memory.agent.start("PUT", PUT_LAYER, length=len(LAYER))
        upload.send(LAYER[:600])
        self.memory.clock.advance(2)
        self.assertNotEqual(self.paths("_txregistry/tmp"), [])
        upload.lose()
        self.assertNoResult(upload.response)
        self.assertEqual(self.paths("_txregistry/tmp"), [])
        self.refused(self.get(J), 400, UNFINISHED)
        self.push_layer(A, LAYER)
        self.finished(A, LAYER)


class Refusals(V1TestCase):
    """What a push may not say."""

    def test_json(self) -> None:
        for data, message in [
            (b"no json", "Invalid JSON"),
            (b"", "Invalid JSON"),
            (b"{}", "Invalid JSON"),
            (b"[]", "Invalid JSON"),
            (b'"x"', "Invalid JSON"),
            (b'{"a": 1}', "Missing key `id' in JSON"),
            (image_json(B), "JSON data contains invalid id"),
            (image_json(A, B), "Image depends on a non existing parent"),
            (image_json(A, A), "Image depends on a non existing parent"),
            (image_json(A, "../x"), "Image depends on a non existing parent"),
        ]:
            self.refused(self.put(J, data), 400, message)
        for checksum in ("x", "a:b:c"):
            refused = self.put(J, image_json(A), {"X-Docker-Checksum": checksum})
            self.refused(refused, 400, "Invalid checksum format")
        self.assertEqual(self.paths(), [])

    def test_content_type_does_not_matter(self) -> None:
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            self.push_json(A, headers={"Content-Type": kind})

    def test_refused_json_leaves_a_finished_image_alone(self) -> None:
        data = self.push_image(A)
        self.refused(self.put(J, b"{}"), 400, "Invalid JSON")
        self.refused(self.put(J, data), 409, "Image already exists")
        self.assertTrue(self.get(J).header("X-Docker-Checksum"))

    def test_parent_in_progress_is_enough(self) -> None:
        self.push_json(A)
        self.push_json(B, A)
        self.assertEqual(json.loads(self.stored(f"images/{B}/ancestry") or b""), [B, A])

    def test_checksum(self) -> None:
        self.push_json(A)
        cookie = self.push_layer(A, LAYER)
        for headers, message in [
            ({}, "Missing Image's checksum"),
            ({"X-Docker-Checksum": ""}, "Missing Image's checksum"),
            ({"X-Docker-Checksum": "none"}, "Invalid checksum format"),
            ({"X-Docker-Checksum": "a:b:c"}, "Invalid checksum format"),
        ]:
            self.refused(self.put(CHECKSUM, headers={**headers, **cookie}), 400, message)

    def test_ids_that_are_none(self) -> None:
        for image in ("short", "A" * 64, "g" * 64, "a" * 63, "a" * 17, "x" * 300):
            answer = self.put(f"/v1/images/{image}/json", json.dumps({"id": image}).encode())
            self.refused(answer, 400, "Invalid image id")
        self.assertEqual(self.paths(), [])


class NoRoom(V1TestCase):
    policy = Policy(space_reserve=1 << 70)

    def test_layer_is_refused_before_its_first_byte(self) -> None:
        async def free() -> int:
            return 1 << 60

        self.push_json(A)
        self.patch(self.memory.driver, "free_space", lambda: free())
        upload = self.memory.agent.start("PUT", PUT_LAYER, length=1 << 30)
        self.assertEqual(self.successResultOf(upload.response).code, 507)
        self.assertEqual(self.paths("_txregistry/tmp"), [])
        self.refused(self.get(J), 400, UNFINISHED)


class Two(V1TestCase):
    """Two clients push one image."""

    def test_the_second_is_not_told_off(self) -> None:
        """Whenever the first one finishes, the second gets what docker takes for success."""
        other = gzip.compress(LAYER, mtime=0)
        for theirs in (LAYER, other):
            for step in range(3):
                self.setUp()
                data = image_json(A)
                mine = self.put(J, data)
                yours = self.put(J, data)
                cookies = [self.cookie(mine), self.cookie(yours)]
                if step > 0:
                    cookies[1] = self.push_layer(A, theirs, cookies[1])
                cookies[0] = self.push_layer(A, LAYER, cookies[0])
                right = {"X-Docker-Checksum": simple(data, LAYER), **cookies[0]}
                self.accepted(self.put(CHECKSUM, headers=right))
                if step == 0:
                    cookies[1] = self.push_layer(A, theirs, cookies[1])
                if step == 2:
                    self.refused(self.put(J, data, cookies[1]), 409, "Image already exists")
                checksum = {"X-Docker-Checksum": simple(data, theirs), **cookies[1]}
                self.refused(self.put(CHECKSUM, headers=checksum), 409, "Image already exists")
                self.refused(self.put(CHECKSUM, headers=right), 409, "Cannot set this image checksum")
                self.finished(A, LAYER)

    def test_a_layer_that_arrives_after_the_end_is_dropped(self) -> None:
        data = image_json(A)
        self.push_json(A)
        slow = self.memory.agent.start("PUT", PUT_LAYER, length=len(LAYER))
        slow.send(LAYER[:700])
        self.memory.clock.advance(2)
        quick = gzip.compress(LAYER, mtime=0)
        cookie = self.push_layer(A, quick)
        self.accepted(self.put(CHECKSUM, headers={"X-Docker-Checksum": simple(data, quick), **cookie}))
        slow.send(LAYER[700:])
        self.memory.clock.advance(2)
        answer = self.successResultOf(slow.response)
        self.accepted(answer)
        late = {"X-Docker-Checksum": simple(data, LAYER), **self.cookie(answer)}
        self.refused(self.put(CHECKSUM, headers=late), 409, "Image already exists")
        self.finished(A, quick)

    def test_a_checksum_finishes_the_layer_that_it_is_of(self) -> None:
        data = self.push_json(A)
        packed = gzip.compress(LAYER, mtime=0)
        first = self.push_layer(A, LAYER)
        second = self.push_layer(A, packed)
        self.assertNotEqual(first, second)
        self.accepted(self.put(CHECKSUM, headers={"X-Docker-Checksum": simple(data, packed), **second}))
        self.finished(A, packed)

    def test_of_two_with_one_tarsum_the_senders_own(self) -> None:
        for own in (0, 1):
            self.setUp()
            data = self.push_json(A)
            layers = [LAYER, gzip.compress(LAYER, mtime=0)]
            cookies = [self.push_layer(A, layer) for layer in layers]
            checksum = {"X-Docker-Checksum": tarsum(data, LAYER), **cookies[own]}
            self.accepted(self.put(CHECKSUM, headers=checksum))
            self.finished(A, layers[own])


class Reading(V1TestCase):
    """A finished image."""

    def setUp(self) -> None:
        super().setUp()
        self.base = self.push_image(A, layer=LAYER)
        self.data = self.push_image(B, A)

    def test_json(self) -> None:
        answer = self.get(J)
        self.assertEqual((answer.code, answer.body), (200, self.base))
        self.assertEqual(answer.header("X-Docker-Size"), str(len(LAYER)))
        self.assertEqual(answer.header("X-Docker-Checksum"), simple(self.base, LAYER))
        self.assertEqual(answer.header("Content-Type"), "application/json")
        self.assertEqual(answer.header("Cache-Control"), "public, max-age=31536000")
        self.assertEqual(answer.header("Expires"), "Fri, 01 Jan 1971 00:00:00 GMT")
        self.assertEqual(answer.header("Last-Modified"), "Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertIsNone(answer.header("Set-Cookie"))
        head = self.ask("HEAD", J)
        self.assertEqual((head.code, head.body), (200, b""))
        self.assertEqual(head.header("Content-Length"), str(len(self.base)))

    def test_ancestry(self) -> None:
        answer = self.get(f"/v1/images/{B}/ancestry")
        self.assertEqual((answer.code, answer.text), (200, f'[\n    "{B}",\n    "{A}"\n]'))
        self.assertEqual(answer.header("Cache-Control"), "public, max-age=31536000")

    def test_conditional(self) -> None:
        for path in (J, PUT_LAYER, ANCESTRY):
            for since in ("Thu, 01 Jan 1970 00:00:00 GMT", "Sat, 01 Jan 2022 00:00:00 GMT", "whatever"):
                answer = self.get(path, {"If-Modified-Since": since})
                self.assertEqual((answer.code, answer.body), (304, b""))
                self.assertEqual(answer.header("Cache-Control"), "public, max-age=31536000")
                self.assertTrue(answer.header("Expires"))
                self.assertIsNone(answer.header("Last-Modified"))
            self.assertEqual(self.get(path, {"If-Modified-Since": "Tue, 31 Dec 1968 00:00:00 GMT"}).code, 200)

    def test_layer(self) -> None:
        answer = self.get(PUT_LAYER)
        self.assertEqual((answer.code, answer.body), (200, LAYER))
        self.assertEqual(answer.header("Content-Type"), "application/octet-stream")
        self.assertEqual(answer.header("Content-Length"), str(len(LAYER)))
        self.assertEqual(answer.header("Accept-Ranges"), "bytes")
        head = self.ask("HEAD", PUT_LAYER)
        self.assertEqual((head.code, head.body, head.header("Content-Length")), (200, b"", str(len(LAYER))))

    def test_ranges(self) -> None:
        size = len(LAYER)
        for asked, start, stop in [
            ("0-0", 0, 1),
            ("5-9", 5, 10),
            ("5-", 5, size),
            ("-5", size - 5, size),
            (f"7-{size}", 7, size),  # docker's: its end is the size
        ]:
            answer = self.get(PUT_LAYER, {"Range": f"bytes={asked}"})
            self.assertEqual((answer.code, answer.body), (206, LAYER[start:stop]), asked)
            self.assertEqual(answer.header("Content-Range"), f"bytes {start}-{stop - 1}/{size}")
        whole = self.get(PUT_LAYER, {"Range": f"bytes={size}-{size}"})
        self.assertEqual((whole.code, whole.body, whole.header("Content-Length")), (416, b"", "0"))
        self.assertEqual(whole.header("Content-Range"), f"bytes */{size}")
        other = self.get(PUT_LAYER, {"Range": "bytes=0-1", "If-Range": "Fri, 02 Jan 1970 00:00:00 GMT"})
        self.assertEqual((other.code, other.body), (200, LAYER))

    def test_missing_layer_is_no_broken_answer(self) -> None:
        self.successResultOf(self.memory.driver.remove(f"images/{A}/layer"))
        self.refused(self.get(PUT_LAYER), 404, "Image not found")

    def test_empty_layer(self) -> None:
        self.push_image(C, layer=b"")
        answer = self.get(f"/v1/images/{C}/layer")
        self.assertEqual((answer.code, answer.body, answer.header("Content-Length")), (200, b"", "0"))


class Private(V1TestCase):
    """Images in private repositories have URLs of their own."""

    def test_everything(self) -> None:
        data = self.push_image(A, layer=LAYER)
        self.push_image(B)
        self.put("/v1/repositories/foo/bar/", json.dumps([{"id": A}]).encode())
        token = {"Authorization": 'Token Token signature=x,repository="foo/bar",access=read'}
        paths = [f"/v1/private_images/{A}/{part}" for part in ("json", "layer")]
        for path in paths:
            self.refused(self.get(path), 404, "Image not found")
            self.refused(self.get(path, token), 404, "Image not found")
        self.assertEqual(self.get(J, token).code, 200)
        self.accepted(self.put("/v1/repositories/foo/bar/properties", b'{"access": "private"}'))
        for path in (J, PUT_LAYER, ANCESTRY):
            self.refused(self.get(path, token), 404, "Image not found")
            self.assertEqual(self.get(path).code, 200)
        answer, layer = (self.get(path, token) for path in paths)
        self.assertEqual((answer.code, answer.body, layer.body), (200, data, LAYER))
        self.assertEqual(answer.header("Cache-Control"), "no-cache")
        self.refused(self.get(f"/v1/private_images/{B}/json", token), 404, "Image not found")
        self.put("/v1/repositories/foo/bar/tags/b", json.dumps(B).encode())
        self.assertEqual(self.get(f"/v1/private_images/{B}/json", token).code, 200)
        self.accepted(self.put("/v1/repositories/foo/bar/properties", b'{"access": "public"}'))
        self.refused(self.get(paths[0], token), 404, "Image not found")
