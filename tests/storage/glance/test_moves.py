"""What is written, replaced and deleted, while Glance is there and while it is not."""

from __future__ import annotations

import hashlib
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import fail

from tests.storage.glance.base import ID, LAYER, GlanceCase
from tests.storage.glance.fake import FakeGlance
from txregistry.auth.glance import GlanceAccess
from txregistry.errors import LostRace, NotFound, TooLarge, Unavailable
from txregistry.interfaces import request_access
from txregistry.model.digest import Digest
from txregistry.storage import layout
from txregistry.storage.glance.mover import LEASE
from txregistry.storage.glance.places import DIGEST, IMAGE_ID
from txregistry.storage.glance.records import BYTES, PENDING

DATA = b"some bytes" * 1000
BLOB = layout.blob_data(Digest("sha256", hashlib.sha256(DATA).hexdigest()))


class MoveTests(GlanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.driver = self.node()

    def images(self) -> list[dict[str, object]]:
        """All images but the mark of the store."""
        return [each.document for each in self.fake.images.values() if "txregistry" not in each.document]

    def left_in_alternate(self) -> list[str]:
        return [path for path in self.contents.objects if path.startswith((BYTES, PENDING))]

    def test_a_blob(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.assertEqual(self.record(self.driver, BLOB).state, "alternate")
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
        self.assertEqual(self.round(self.driver), "")
        record = self.record(self.driver, BLOB)
        self.assertEqual((record.state, record.size), ("glance", len(DATA)))
        self.assertEqual(record.sha512, hashlib.sha512(DATA).hexdigest())
        (image,) = self.images()
        self.assertEqual((image["id"], image[DIGEST]), (record.image, f"sha256:{hashlib.sha256(DATA).hexdigest()}"))
        self.assertEqual((image["disk_format"], image["container_format"]), ("raw", "docker"))
        self.assertEqual(self.left_in_alternate(), [])
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
        self.assertEqual(self.do(self.driver.stat(BLOB)).size, len(DATA))
        self.assertEqual(self.do(self.driver.read(BLOB, 1 << 20))[0], DATA)
        self.fails(TooLarge, self.driver.read(BLOB, 10))

    def test_a_v1_layer_with_copies_of_what_is_known_of_it(self) -> None:
        for part, data in (("json", '{"id": "é"}'), ("ancestry", "[]"), ("_checksum", "sha256:1"), ("_files", "[]")):
            self.do(self.driver.put(f"images/{ID}/{part}", data.encode()))
        self.do(self.driver.put("_txregistry/state/v1/attempts/x/layer", DATA))
        self.do(self.driver.move("_txregistry/state/v1/attempts/x/layer", LAYER))
        self.fails(NotFound, self.driver.stat("_txregistry/state/v1/attempts/x/layer"))
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)
        self.round(self.driver)
        (image,) = self.images()
        self.assertEqual(image[IMAGE_ID], ID)
        self.assertEqual((image["meta_json"], image["meta_ancestry"]), ('{"id": "é"}', "[]"))
        self.assertNotIn("meta__files", image)
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)

    def test_what_cannot_be_a_property_is_none(self) -> None:
        self.do(self.driver.put(f"images/{ID}/json", '{"id": "\U0001f600"}'.encode()))
        self.do(self.driver.put(f"images/{ID}/ancestry", b"x" * 60001))
        self.do(self.driver.put(f"images/{ID}/_checksum", b"\xff"))
        self.push(self.driver, LAYER, DATA)
        self.assertEqual(self.round(self.driver), "")
        self.assertEqual([name for name in self.images()[0] if name.startswith("meta")], [])

    def test_what_is_put_stays(self) -> None:
        self.do(self.driver.put(BLOB, b"{}"))
        self.round(self.driver)
        self.assertEqual((self.images(), self.contents.objects[BLOB].data), ([], b"{}"))
        # Where a blob was, too.
        self.push(self.driver, BLOB, DATA)
        self.assertNotIn(BLOB, self.contents.objects)
        self.round(self.driver)
        self.do(self.driver.put(BLOB, b"[]"))
        self.assertEqual(self.do(self.driver.read(BLOB, 10))[0], b"[]")
        self.round(self.driver)
        self.assertEqual((self.images(), self.record(self.driver, BLOB).state), ([], "kept"))

    def test_conditions(self) -> None:
        self.push(self.driver, BLOB, DATA)
        for _ in range(2):
            self.fails(LostRace, self.driver.put(BLOB, b"x", if_absent=True))
            _, version = self.do(self.driver.read(BLOB, 1 << 20))
            self.round(self.driver)
        self.do(self.driver.put(BLOB, b"x", if_match=version))
        self.fails(LostRace, self.driver.put(BLOB, b"y", if_match=version))
        self.do(self.driver.remove(BLOB))
        self.fails(LostRace, self.driver.put(BLOB, b"y", if_match=version))
        self.do(self.driver.put(BLOB, b"z", if_absent=True))
        self.assertEqual(self.do(self.driver.read(BLOB, 10))[0], b"z")

    def test_glance_out(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.round(self.driver)
        self.fake.out = True
        self.fails(Unavailable, self.driver.open(BLOB))
        self.fails(Unavailable, self.driver.read(BLOB, 1 << 20))
        self.assertEqual(self.do(self.driver.stat(BLOB)).size, len(DATA))
        self.push(self.driver, LAYER, b"new")
        self.assertEqual(self.bytes_at(self.driver, LAYER), b"new")
        self.assertIn("refused", self.round(self.driver))
        self.fails(NotFound, self.driver.open(f"images/{'c' * 64}/json"))
        self.fails(NotFound, self.driver.open(f"images/{'c' * 64}/layer"))
        self.push(self.driver, BLOB, DATA)
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
        self.fake.out = False
        self.assertEqual(self.round(self.driver), "")
        self.assertEqual((len(self.images()), self.left_in_alternate()), (2, []))
        self.assertEqual((self.bytes_at(self.driver, BLOB), self.bytes_at(self.driver, LAYER)), (DATA, b"new"))

    def test_never_seen_before_it_went_out(self) -> None:
        self.fake.out = True
        for verb in (self.driver.stat, self.driver.open, self.driver.remove, self.driver.list):
            self.fails(Unavailable, verb(LAYER))
            self.fails(Unavailable, verb(f"images/{ID}"))
            self.fails(Unavailable, verb(BLOB))
        self.push(self.driver, BLOB, DATA)
        self.fake.out = False
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)

    def test_deleted(self) -> None:
        for path in (BLOB, LAYER):
            self.push(self.driver, path, DATA)
        self.round(self.driver)
        self.fake.out = True
        self.do(self.driver.remove(BLOB))
        self.do(self.driver.remove(f"images/{ID}"))
        for path in (BLOB, LAYER):
            self.assertEqual(self.record(self.driver, path).state, "deleted")
            self.fails(NotFound, self.driver.stat(path))
            self.fails(NotFound, self.driver.remove(path))
        self.fake.out = False
        for path in (BLOB, LAYER, f"images/{ID}", f"{BLOB.rpartition('/')[0]}"):
            self.fails(NotFound, self.driver.stat(path))
        self.assertEqual(self.do(self.driver.list("images")).entries, ())
        self.assertEqual(len(self.images()), 2)
        self.round(self.driver)
        self.assertEqual((self.images(), self.record(self.driver, BLOB).state), ([], "gone"))
        self.assertEqual(self.left_in_alternate(), [])
        self.push(self.driver, BLOB, DATA)
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)

    def test_a_deleted_thing_goes_with_every_image_that_says_it_is_it(self) -> None:
        self.push(self.driver, LAYER, DATA)
        self.round(self.driver)
        self.fake.add("another", {IMAGE_ID: ID}, b"old")
        self.do(self.driver.remove(LAYER))
        self.round(self.driver)
        self.assertEqual(self.images(), [])

    def test_a_protected_image_keeps_its_tombstone(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.round(self.driver)
        self.images()[0]["protected"] = True
        self.do(self.driver.remove(BLOB))
        self.assertIn("403", self.round(self.driver))
        self.assertEqual(self.record(self.driver, BLOB).state, "deleted")
        self.fails(NotFound, self.driver.stat(BLOB))
        self.images()[0]["protected"] = False
        self.assertEqual(self.round(self.driver), "")
        self.assertEqual(self.images(), [])

    def test_an_image_that_glance_has_half_deleted(self) -> None:
        """As one that was killed leaves it: there for ever, and never deleted."""
        self.push(self.driver, LAYER, DATA)
        self.round(self.driver)
        self.images()[0]["status"] = "deleted"
        self.do(self.driver.remove(LAYER))
        self.assertEqual(self.round(self.driver), "")
        self.assertEqual(self.record(self.driver, LAYER).state, "gone")

    def test_listings(self) -> None:
        self.push(self.driver, LAYER, DATA)
        self.do(self.driver.put(f"images/{ID}/json", b"{}"))
        self.push(self.driver, BLOB, DATA)
        for _ in range(2):
            names = {entry.name for entry in self.do(self.driver.list(f"images/{ID}")).entries}
            self.assertEqual(names, {"json", "layer"})
            folder = BLOB.rpartition("/")[0]
            self.assertEqual([entry.name for entry in self.do(self.driver.list(folder)).entries], ["data"])
            above = self.do(self.driver.list(folder.rpartition("/")[0])).entries
            self.assertEqual([(entry.name, entry.is_directory) for entry in above], [(folder.rpartition("/")[2], True)])
            self.assertTrue(self.do(self.driver.stat(folder)).is_directory)
            self.assertEqual(len(self.do(self.driver.list("images")).entries), 1)
            self.round(self.driver)

    # -- what Glance may do ---------------------------------------------------------------------------------------

    def test_other_bytes_than_were_sent(self) -> None:
        for spoil in (lambda data: data[:-1], lambda data: b"X" + data[1:]):
            for algorithm in ("sha512", "md5"):
                self.fake.spoil, self.fake.algorithm = spoil, algorithm
                self.push(self.driver, BLOB, DATA)
                self.assertIn("other bytes", self.round(self.driver))
                self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
                self.assertFalse(any(DIGEST in image for image in self.images()))
        self.fake.spoil = lambda data: data
        self.assertEqual(self.round(self.driver), "")
        self.assertEqual(len(self.images()), 1)
        self.assertEqual(self.record(self.driver, BLOB).state, "glance")

    def test_a_token_that_has_ended(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.fake.expire()
        self.assertEqual(self.round(self.driver), "")
        for _ in range(3):
            self.fake.expire()
            self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)

    def test_a_read_that_breaks_goes_on(self) -> None:
        data = bytes(3 << 20)
        for ranges in (True, False):
            self.fake.ranges = ranges
            self.push(self.driver, BLOB, data)
            self.round(self.driver)
            for cut in (0, 1, 1 << 20, (2 << 20) + 5):
                self.fake.cut = cut
                self.assertEqual(self.bytes_at(self.driver, BLOB), data)

    def test_a_read_that_cannot_go_on(self) -> None:
        self.push(self.driver, BLOB, bytes(3 << 20))
        self.round(self.driver)

        async def work() -> None:
            reader = await self.driver.open(BLOB)
            chunks = reader.chunks(0, reader.size)
            await chunks.__anext__()
            self.do(self.driver.remove(BLOB))
            self.round(self.driver)
            chunks._stream.cut = 0  # type: ignore[attr-defined]  # a connection that is cut off
            await chunks.__anext__()

        self.fails(Unavailable, work())

    def test_an_image_that_somebody_deleted_in_glance(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.round(self.driver)
        del self.fake.images[self.record(self.driver, BLOB).image]
        self.fails(NotFound, self.driver.open(BLOB))
        told: list[str] = []
        found = self.do(self.driver.reconcile(told.append))
        self.assertEqual((found.lost, len(told)), ((BLOB,), 1))

    def test_an_image_of_another_size(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.round(self.driver)
        self.fake.images[self.record(self.driver, BLOB).image].data = b"short"
        self.fails(Unavailable, self.driver.open(BLOB))

    def test_a_glance_without_keystone(self) -> None:
        fake = FakeGlance(None)
        driver = self.node(fake)
        self.push(driver, BLOB, DATA)
        self.round(driver)
        self.assertEqual(self.bytes_at(driver, BLOB), DATA)

    # -- the rights of a client ---------------------------------------------------------------------------------

    def as_client(self, token: str, work: Any, endpoint: str | None = None) -> Any:
        """What a request with a token of its own does."""
        context = copy_context()
        context.run(request_access.set, GlanceAccess(token, endpoint))
        return context.run(work)

    def test_a_client_reads_with_its_own_token(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.as_client("none", lambda: self.assertEqual(self.bytes_at(self.driver, BLOB), DATA))  # of the alternate
        self.round(self.driver)
        self.fake.clients = {"good": 0, "none": 404, "bad": 401, "no": 403, "ill": 500}
        self.as_client("good", lambda: self.assertEqual(self.bytes_at(self.driver, BLOB), DATA))
        for token in ("none", "bad", "no"):
            self.as_client(token, lambda: self.fails(NotFound, self.driver.open(BLOB)))
            self.as_client(token, lambda: self.fails(NotFound, self.driver.read(BLOB, 1 << 20)))
        self.as_client("ill", lambda: self.fails(Unavailable, self.driver.open(BLOB)))
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)
        other = "http://other.test/image"
        self.as_client("good", lambda: self.bytes_at(self.driver, BLOB), other)
        self.assertTrue(self.fake.urls[-1].startswith(other + "/v2/images/"))

    def test_a_broken_read_goes_on_with_the_same_token(self) -> None:
        data = bytes(2 << 20)
        self.push(self.driver, BLOB, data)
        self.round(self.driver)
        self.fake.clients = {"good": 0}
        self.fake.cut = 5
        reader = self.as_client("good", lambda: self.do(self.driver.open(BLOB)))
        self.fake.expire()

        async def read() -> bytes:
            return b"".join([piece async for piece in reader.chunks(0, reader.size)])

        self.fake.out = False
        asked = self.fake.tokens
        self.assertEqual(self.do(read()), data)
        self.assertEqual(self.fake.tokens, asked)

    # -- upkeep ---------------------------------------------------------------------------------------------------

    def test_reconcile(self) -> None:
        self.round(self.driver)
        self.fake.out = True
        for number in range(5):
            self.push(self.driver, f"images/{number:064x}/layer", b"%d" % number)
        self.do(self.driver.remove(f"images/{4:064x}/layer"))
        self.fails(Unavailable, self.driver.reconcile(lambda line: None))
        self.fake.out = False
        found = self.do(self.node().reconcile(lambda line: None))
        self.assertEqual((found.seen, found.moved, found.removed, found.left, found.lost), (5, 4, 1, (), ()))
        self.assertEqual((len(self.images()), self.left_in_alternate()), (4, []))

    def test_reconcile_waits_for_others(self) -> None:
        self.push(self.driver, BLOB, DATA)
        # One that died after it had made the image.
        self.fake.before = self._die_at_upload
        self.driver.records.save = self._only_once(self.driver.records.save)  # type: ignore[method-assign]  # a crash
        self.fails(Exception, self.driver.background.round())
        self.fake.before = lambda method, target: None
        claimed = self.record(self.driver, BLOB).claim
        self.assertIn(claimed, self.fake.images)
        other = self.node()
        waiting = other.reconcile(lambda line: None)
        self.assertNoResult(waiting)
        self.clock.pump([1.0] * int(LEASE + 5))
        self.assertEqual(self.successResultOf(waiting).moved, 1)
        self.assertNotIn(claimed, self.fake.images)
        self.assertEqual(len(self.images()), 1)

    @staticmethod
    def _die_at_upload(method: str, target: str) -> None:
        if method == "PUT":
            raise KeyError("killed")

    @staticmethod
    def _only_once(save: Any) -> Any:
        calls: list[object] = []

        def wrapped(*args: Any) -> Any:
            calls.append(args)
            if len(calls) > 1:
                raise KeyError("killed")
            return save(*args)

        return wrapped

    def test_sweep(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.do(self.driver.alternate.put(f"{BYTES}/{BLOB}/orphan", b"x"))
        self.assertEqual(self.do(self.driver.sweep(self.clock.seconds())), 0)
        self.clock.advance(25 * 3600)
        self.assertEqual(self.do(self.driver.sweep(self.clock.seconds())), 1)
        self.assertEqual(self.bytes_at(self.driver, BLOB), DATA)

    def test_move_of_a_thing(self) -> None:
        self.push(self.driver, BLOB, DATA)
        self.round(self.driver)
        self.do(self.driver.move(BLOB, LAYER))
        self.fails(NotFound, self.driver.stat(BLOB))
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)

    def test_a_layer_put_in_place_that_had_failed_once_and_is_another_now(self) -> None:
        source = "_txregistry/state/v1/attempts/x/layer"
        alternate: Any = self.driver.alternate
        move = alternate.move
        alternate.move = lambda *_: fail(Unavailable(source))
        self.do(self.driver.put(source, DATA))
        self.fails(Unavailable, self.driver.move(source, LAYER))
        self.assertEqual(self.bytes_at(self.driver, LAYER), DATA)
        self.clock.advance(1)
        self.do(self.driver.put(source, b"another"))
        alternate.move = move
        self.do(self.driver.move(source, LAYER))
        self.assertEqual(self.bytes_at(self.driver, LAYER), b"another")
        self.round(self.driver)
        self.assertEqual(self.bytes_at(self.driver, LAYER), b"another")

    def test_probe(self) -> None:
        self.do(self.driver.probe(b"x"))
        self.assertEqual(self.images(), [])
        self.fake.spoil = lambda data: b"y"
        self.fails(Unavailable, self.driver.probe(b"x"))
        self.assertEqual(self.images(), [])
