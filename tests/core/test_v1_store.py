"""What V1 leaves behind, and what is swept of it."""

from __future__ import annotations

import json

from tests.web.v1.base import A, B, V1TestCase, archive, simple
from txregistry.concurrency import start
from txregistry.core.v1.records import Attempt, Push

EXPIRY = 7 * 24 * 3600.0
LAYER = archive()


class Sweep(V1TestCase):
    def sweep(self) -> int:
        return self.successResultOf(start(self.memory.registry.janitor.sweep()))

    def test_layers_whose_clients_never_came_back(self) -> None:
        data = self.push_json(A)
        cookie = self.push_layer(A, LAYER)
        self.memory.clock.advance(EXPIRY - 1)
        self.push_json(B)
        self.push_layer(B, LAYER)
        self.assertEqual(self.sweep(), 0)
        self.memory.clock.advance(2)
        self.assertEqual(self.sweep(), 1)
        self.assertEqual(self.paths(f"_txregistry/state/v1/attempts/{A}"), [])
        self.assertEqual(len(self.paths(f"_txregistry/state/v1/attempts/{B}")), 2)
        # Too late for its checksum, but not to push it again.
        checksum = {"X-Docker-Checksum": simple(data, LAYER)}
        self.refused(self.put(f"/v1/images/{A}/checksum", headers={**checksum, **cookie}), 400, "Checksum mismatch")
        cookie = self.push_layer(A, LAYER)
        self.accepted(self.put(f"/v1/images/{A}/checksum", headers={**checksum, **cookie}))
        self.finished(A, LAYER)

    def test_what_is_finished_stays(self) -> None:
        self.push_image(A, layer=LAYER)
        self.memory.clock.advance(EXPIRY * 100)
        self.assertEqual(self.sweep(), 0)
        self.finished(A, LAYER)


class Healing(V1TestCase):
    """Records and files that do not go together."""

    def test_mark_beside_a_finished_record(self) -> None:
        self.push_image(A, layer=LAYER)
        self.store(f"images/{A}/_inprogress", b"true")
        self.assertEqual(self.get(f"/v1/images/{A}/json").code, 200)
        self.finished(A, LAYER)

    def test_images_that_an_operator_removed(self) -> None:
        self.push_image(A, layer=LAYER)
        self.successResultOf(self.memory.driver.remove(f"images/{A}"))
        for part in ("json", "layer", "ancestry"):
            self.refused(self.get(f"/v1/images/{A}/{part}"), 404, "Image not found")
        self.refused(self.put(f"/v1/images/{A}/layer", LAYER), 404, "Image not found")
        other = archive("other")
        self.push_image(A, layer=other)
        self.finished(A, other)

    def test_index_that_was_deleted(self) -> None:
        self.push_image(A, layer=LAYER)
        self.successResultOf(self.memory.driver.remove("_txregistry/index"))
        self.assertEqual(self.get(f"/v1/images/{A}/layer").body, LAYER)

    def test_damaged_records(self) -> None:
        for record in (b"", b"x", b"{}", b"[]", b'{"finished": {}}', b"null", b"[" * 100_000):
            self.setUp()
            self.assertIsNone(Push.decode(record))
            self.assertIsNone(Attempt.decode(record))
            self.push_json(A)
            self.store(f"_txregistry/state/v1/pushes/{A}", record)
            self.push_image(A, layer=LAYER)
            self.finished(A, LAYER)

    def test_records_come_back_as_they_were(self) -> None:
        attempt = Attempt("x", "00", ("a:b", "c:d"), "sha256:1", 5, None)
        push = Push(b'{"id": "\xff\xc3\xa4"}', ("a", "b"), ("a:b",), "a:b", attempt, "a:b")
        self.assertEqual(Push.decode(push.encode()), push)
        self.assertEqual(Attempt.decode(attempt.encode()), attempt)
        json.loads(push.encode())
