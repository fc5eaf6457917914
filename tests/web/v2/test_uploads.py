"""Uploads in each of the ways that clients know."""

from __future__ import annotations

from uuid import uuid4

from tests.web.v2.base import V2TestCase, sha256
from txregistry.core.policy import Policy
from txregistry.model import hashing
from txregistry.model.digest import Digest
from txregistry.storage.memory import _MemoryPartial

DATA = bytes(range(256)) * 8


class Start(V2TestCase):
    def test_a_session_is_opened_in_a_repository_that_does_not_exist_yet(self) -> None:
        response = self.ask("POST", "/v2/a/b/blobs/uploads/")
        self.assertEqual(response.code, 202)
        location = response.header("Location")
        assert location is not None
        self.assertTrue(location.startswith("/v2/a/b/blobs/uploads/"))
        self.assertEqual(response.header("Docker-Upload-UUID"), location.rpartition("/")[2])
        self.assertEqual(response.header("Range"), "0-0")
        self.assertEqual(response.header("Content-Length"), "0")
        self.assertEqual(self.ask("GET", "/v2/_catalog").json(), {"repositories": []})

    def test_the_slash_at_the_end_may_be_missing(self) -> None:
        self.assertEqual(self.ask("POST", "/v2/a/blobs/uploads").code, 202)

    def test_a_bad_name_is_refused_with_its_rule(self) -> None:
        detail = self.refused(self.ask("POST", "/v2/a/B/blobs/uploads/"), 400, "NAME_INVALID")
        self.assertEqual(detail["name"], "a/B")

    def test_an_algorithm_can_be_announced(self) -> None:
        start = self.ask("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512")
        self.assertEqual(start.code, 202)
        self.ask("PATCH", start.header("Location") or "", body=DATA)
        put = self.ask("PUT", f"{start.header('Location')}?digest={Digest.of(DATA, 'sha512')}")
        self.assertEqual((put.code, put.header("Docker-Content-Digest")), (201, str(Digest.of(DATA, "sha512"))))

    def test_an_unknown_algorithm_is_refused(self) -> None:
        self.refused(self.ask("POST", "/v2/a/blobs/uploads/?digest-algorithm=foo"), 400, "DIGEST_INVALID")


class Whole(V2TestCase):
    def test_in_one_request(self) -> None:
        response = self.ask("POST", f"/v2/a/blobs/uploads/?digest={sha256(DATA)}", body=DATA)
        self.assertEqual(response.code, 201)
        self.assertEqual(response.header("Docker-Content-Digest"), sha256(DATA))
        self.assertEqual(self.ask("GET", response.header("Location") or "").body, DATA)

    def test_in_one_request_with_a_wrong_digest_leaves_nothing(self) -> None:
        response = self.ask("POST", f"/v2/a/blobs/uploads/?digest={sha256(b'other')}", body=DATA)
        detail = self.refused(response, 400, "DIGEST_INVALID")
        self.assertEqual(detail["found"], sha256(DATA))
        self.assertEqual(self.paths(), [])

    def test_in_a_post_and_a_put(self) -> None:
        location = self.start("a")
        response = self.ask("PUT", f"{location}?digest={sha256(DATA)}", body=DATA)
        self.assertEqual((response.code, response.header("Location")), (201, f"/v2/a/blobs/{sha256(DATA)}"))
        self.assertEqual(self.ask("GET", f"/v2/a/blobs/{sha256(DATA)}").body, DATA)

    def test_nothing_of_a_session_is_left(self) -> None:
        self.push_blob("a", DATA)
        self.assertEqual([path for path in self.paths() if "_uploads" in path], [])

    def test_sha512_needs_no_announcement(self) -> None:
        digest = self.push_blob("a", DATA, "sha512")
        response = self.ask("GET", f"/v2/a/blobs/{digest}")
        self.assertEqual((response.body, response.header("Docker-Content-Digest")), (DATA, digest))

    def test_the_empty_blob(self) -> None:
        empty = sha256(b"")
        self.assertEqual(self.ask("PUT", f"{self.start('a')}?digest={empty}").code, 201)
        self.assertEqual(self.ask("PUT", f"{self.start('a')}?digest={empty}", chunks=[]).code, 201)
        self.assertEqual(self.ask("POST", f"/v2/b/blobs/uploads/?digest={empty}").code, 201)
        for name in "ab":
            response = self.ask("GET", f"/v2/{name}/blobs/{empty}")
            self.assertEqual((response.code, response.body, response.header("Content-Length")), (200, b"", "0"))

    def test_two_sessions_of_one_blob(self) -> None:
        first, second = self.start("a"), self.start("a")
        for location in (first, second):
            self.assertEqual(self.ask("PUT", f"{location}?digest={sha256(DATA)}", body=DATA).code, 201)


class Chunked(V2TestCase):
    def test_as_docker_streams_it(self) -> None:
        location = self.start("a")
        patch = self.ask("PATCH", location, chunks=[DATA[:100], DATA[100:]])
        self.assertEqual((patch.code, patch.header("Range")), (202, f"0-{len(DATA) - 1}"))
        put = self.ask("PUT", f"{patch.header('Location')}?digest={sha256(DATA)}", chunks=[])
        self.assertEqual(put.code, 201)
        self.assertEqual(self.ask("GET", f"/v2/a/blobs/{sha256(DATA)}").body, DATA)

    def test_in_ranges(self) -> None:
        location = self.start("a")
        for first, last in ((0, 999), (1000, 1499)):
            patch = self.ask("PATCH", location, {"Content-Range": f"{first}-{last}"}, DATA[first : last + 1])
            self.assertEqual((patch.code, patch.header("Range")), (202, f"0-{last}"))
        headers = {"Content-Range": f"1500-{len(DATA) - 1}"}
        put = self.ask("PUT", f"{location}?digest={sha256(DATA)}", headers, DATA[1500:])
        self.assertEqual(put.code, 201)

    def test_ahead_behind_and_repeated_chunks_are_refused_and_change_nothing(self) -> None:
        location = self.start("a")
        self.ask("PATCH", location, {"Content-Range": "0-99"}, DATA[:100])
        for value in ("200-299", "50-149", "0-99"):
            response = self.ask("PATCH", location, {"Content-Range": value}, bytes(100))
            self.refused(response, 416, "RANGE_INVALID")
            self.assertEqual((response.header("Range"), response.header("Location")), ("0-99", location))
            self.assertEqual(self.ask("GET", location).header("Range"), "0-99")

    def test_a_closing_chunk_out_of_order_leaves_the_session_usable(self) -> None:
        location = self.start("a")
        self.ask("PATCH", location, body=DATA[:100])
        closing = f"{location}?digest={sha256(DATA)}"
        self.refused(self.ask("PUT", closing, {"Content-Range": "0-99"}, DATA[:100]), 416, "RANGE_INVALID")
        self.assertEqual(self.ask("GET", closing).code, 204)
        headers = {"Content-Range": f"100-{len(DATA) - 1}"}
        self.assertEqual(self.ask("PUT", closing, headers, DATA[100:]).code, 201)

    def test_ranges_that_are_none(self) -> None:
        location = self.start("a")
        for value in ("bytes 0-4/5", "abc", "4-0", "-5"):
            self.refused(self.ask("PATCH", location, {"Content-Range": value}, b"12345"), 416, "RANGE_INVALID")

    def test_a_range_of_another_length_than_the_body(self) -> None:
        location = self.start("a")
        self.refused(self.ask("PATCH", location, {"Content-Range": "0-9"}, b"12345"), 400, "SIZE_INVALID")
        response = self.ask("PATCH", location, {"Content-Range": "0-9"}, chunks=[b"12345"])
        self.refused(response, 400, "SIZE_INVALID")
        response = self.ask("PATCH", location, {"Content-Range": "0-1"}, chunks=[b"12345"])
        self.refused(response, 400, "SIZE_INVALID")
        self.assertEqual(self.ask("GET", location).header("Range"), "0-0")
        self.assertEqual(self.ask("PUT", f"{location}?digest={sha256(b'12345')}", body=b"12345").code, 201)

    def test_another_worker_goes_on(self) -> None:
        """All that a worker knows of a session lies in the store: no byte is read twice, nor is one without states."""
        reads: list[object] = []
        original = _MemoryPartial.read

        def noted(partial, tap):
            reads.append(partial)
            return original(partial, tap)

        self.patch(_MemoryPartial, "read", noted)
        for available in {hashing.AVAILABLE, False}:
            self.patch(hashing, "AVAILABLE", available)
            reads.clear()
            location = self.start("a")
            self.ask("PATCH", location, body=DATA[:100])
            self.ask("PATCH", location, body=DATA[100:])
            self.assertEqual(self.ask("PUT", f"{location}?digest={sha256(DATA)}").code, 201)
            self.assertEqual(self.ask("GET", f"/v2/a/blobs/{sha256(DATA)}").body, DATA)
            self.assertEqual(len(reads), 0 if available else 1)


class Sessions(V2TestCase):
    def test_status(self) -> None:
        location = self.start("a")
        response = self.ask("GET", location)
        self.assertEqual((response.code, response.header("Range")), (204, "0-0"))
        self.ask("PATCH", location, body=b"12345")
        response = self.ask("GET", location)
        self.assertEqual((response.header("Range"), response.header("Location")), ("0-4", location))

    def test_cancel(self) -> None:
        location = self.start("a")
        self.ask("PATCH", location, body=DATA)
        self.assertEqual(self.ask("DELETE", location).code, 204)
        for method in ("GET", "PATCH", "DELETE"):
            self.refused(self.ask(method, location), 404, "BLOB_UPLOAD_UNKNOWN")
        put = self.ask("PUT", f"{location}?digest={sha256(DATA)}")
        self.refused(put, 404, "BLOB_UPLOAD_UNKNOWN")
        self.assertEqual(self.paths(), [])

    def test_a_second_put_finds_no_session(self) -> None:
        location = self.start("a")
        closing = f"{location}?digest={sha256(DATA)}"
        self.assertEqual(self.ask("PUT", closing, body=DATA).code, 201)
        self.refused(self.ask("PUT", closing, body=DATA), 404, "BLOB_UPLOAD_UNKNOWN")

    def test_ids_of_nobody_and_of_another_repository(self) -> None:
        other = self.start("b").rpartition("/")[2]
        for uuid in (str(uuid4()), other, "x", "..", "%2e%2e", "a%2fb", "x" * 3000):
            self.refused(self.ask("GET", f"/v2/a/blobs/uploads/{uuid}"), 404, self.unknown(uuid))

    def test_an_id_of_nobody_is_not_repeated_in_a_header(self) -> None:
        for uuid in ("%0d%0aEvil:%201", "%00", "x"):
            for method in ("GET", "PATCH", "PUT", "DELETE"):
                response = self.ask(method, f"/v2/a/blobs/uploads/{uuid}?digest={sha256(DATA)}")
                self.assertIn("Location", self.refused(response, 404, "BLOB_UPLOAD_UNKNOWN")["reason"])
                self.assertEqual(response.header("Location"), None)

    def unknown(self, uuid: str) -> str:
        return "NAME_UNKNOWN" if "%2f" in uuid else "BLOB_UPLOAD_UNKNOWN"

    def test_digests_that_are_none(self) -> None:
        location = self.start("a")
        upper = sha256(DATA).replace("sha256:", "SHA256:")
        for query in ("", "?digest=", "?digest=md5:" + "0" * 32, f"?digest={upper}", "?digest=sha256:abc",
                      "?digest=sha256:" + "A" * 64):  # fmt: skip
            self.refused(self.ask("PUT", location + query, body=DATA), 400, "DIGEST_INVALID")
        self.assertEqual(self.ask("PUT", f"{location}?digest={sha256(DATA)}", body=DATA).code, 201)

    def test_a_digest_that_does_not_match_ends_the_session(self) -> None:
        wrong = sha256(b"other")
        streamed, ranged = self.start("a"), self.start("a")
        self.ask("PATCH", streamed, body=DATA)
        self.refused(self.ask("PUT", f"{streamed}?digest={wrong}"), 400, "DIGEST_INVALID")
        self.ask("PATCH", ranged, {"Content-Range": "0-99"}, DATA[:100])
        headers = {"Content-Range": f"100-{len(DATA) - 1}"}
        self.refused(self.ask("PUT", f"{ranged}?digest={wrong}", headers, DATA[100:]), 400, "DIGEST_INVALID")
        self.refused(self.ask("PUT", f"{self.start('a')}?digest={wrong}", body=DATA), 400, "DIGEST_INVALID")
        self.refused(self.ask("GET", f"/v2/a/blobs/{wrong}"), 404, "NAME_UNKNOWN")
        self.assertEqual(self.paths(), [])

    def test_a_cut_chunk_is_kept_as_far_as_it_came(self) -> None:
        location = self.start("a")
        exchange = self.memory.agent.start("PATCH", location, length=len(DATA))
        exchange.send(DATA[:1000])
        self.memory.clock.advance(1)
        exchange.lose()
        self.assertEqual(self.ask("GET", location).header("Range"), "0-999")
        self.ask("PATCH", location, {"Content-Range": f"1000-{len(DATA) - 1}"}, DATA[1000:])
        self.assertEqual(self.ask("PUT", f"{location}?digest={sha256(DATA)}").code, 201)

    def test_a_session_that_another_request_writes_to(self) -> None:
        location = self.start("a")
        exchange = self.memory.agent.start("PATCH", location, length=10)
        exchange.send(b"12345")
        response = self.ask("PATCH", location, body=b"67890")
        self.refused(response, 409, "BLOB_UPLOAD_INVALID")
        self.assertTrue(response.header("Retry-After"))
        exchange.send(b"67890")
        self.assertEqual(self.successResultOf(exchange.response).header("Range"), "0-9")


class Mount(V2TestCase):
    def test_from_a_repository_that_has_it(self) -> None:
        digest = self.push_blob("a", DATA)
        response = self.ask("POST", f"/v2/b/c/blobs/uploads/?mount={digest}&from=a")
        self.assertEqual((response.code, response.header("Location")), (201, f"/v2/b/c/blobs/{digest}"))
        self.assertEqual(response.header("Docker-Content-Digest"), digest)
        self.assertEqual(self.ask("GET", f"/v2/b/c/blobs/{digest}").body, DATA)

    def test_without_a_source(self) -> None:
        digest = self.push_blob("a", DATA)
        self.assertEqual(self.ask("POST", f"/v2/b/blobs/uploads/?mount={digest}").code, 201)

    def test_what_cannot_be_mounted_begins_an_upload(self) -> None:
        digest = self.push_blob("a", DATA)
        for query in (f"mount={digest}&from=x", f"mount={sha256(b'no')}&from=a", f"mount={sha256(b'no')}",
                      f"mount={digest}&from=X/", "mount=bad&from=a", "mount="):  # fmt: skip
            response = self.ask("POST", f"/v2/b/blobs/uploads/?{query}")
            self.assertEqual(response.code, 202)
            put = self.ask("PUT", f"{response.header('Location')}?digest={digest}", body=DATA)
            self.assertEqual(put.code, 201)


class Expiry(V2TestCase):
    policy = Policy(upload_expiry=100)

    def test_old_sessions_are_swept_and_others_are_not(self) -> None:
        old = self.start("a")
        self.memory.clock.advance(90)
        young = self.start("b")
        held = self.start("c")
        exchange = self.memory.agent.start("PATCH", held, length=10)
        self.memory.clock.advance(20)
        exchange.send(b"12345")
        self.assertEqual(self.successResultOf(self.sweep()), 1)
        self.refused(self.ask("GET", old), 404, "BLOB_UPLOAD_UNKNOWN")
        self.assertEqual(self.ask("GET", young).code, 204)
        exchange.send(b"67890")
        self.assertEqual(self.successResultOf(exchange.response).code, 202)

    def sweep(self):
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self.memory.registry.janitor.sweep())
