"""A whole store copied to another: nothing is lost, named before it is there, or carried twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.v1.base import A, B, C, archive, image_json, simple, tarsum
from tests.web.v2.base import OCI_MANIFEST, image, sha256
from txregistry.concurrency import start
from txregistry.core.copying.objects import GIVE_UP, SMALL, Copied, Objects
from txregistry.core.copying.store import Copy
from txregistry.core.copying.trees import Trees
from txregistry.core.policy import Policy
from txregistry.errors import NoSpace, StorageError, Unavailable
from txregistry.interfaces import IPartial, Page, Version
from txregistry.storage import layout
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.testing.pools import result_of
from txregistry.testing.registry import MemoryRegistry

LAYER = archive()
LARGE = bytes(range(256)) * (SMALL // 256) + b"and a little more"
#: What is made again, or belongs to nobody else.
NOT_COPIED = (f"{layout.INDEX}/", f"{layout.TMP}/")
_ODD_TYPE = "application/vnd.odd.manifest+json"


class Killed(BaseException):
    """The process ends here."""


class Watched(MemoryDriver):
    """A target that looks at itself after each change, and dies before one of them."""

    def __init__(self, contents: Contents | None = None, dies_at: int | None = None) -> None:
        super().__init__(Clock(), contents=contents)
        self.changes = 0
        self.dies_at = dies_at
        self.dangling: list[str] = []
        self.written: list[str] = []

    def change(self) -> None:
        if self.changes == self.dies_at:
            raise Killed
        self.changes += 1

    def _put(self, path: str, *rest: Any) -> Version:
        self.change()
        version: Version = super()._put(path, *rest)
        self.written.append(path)
        self.look()
        return version

    def _remove(self, path: str) -> None:
        self.change()
        super()._remove(path)
        self.look()

    def _partial(self, path: str, create: bool) -> Any:
        partial: Any = super()._partial(path, create)
        commit = partial._commit

        def watched(path: str) -> None:
            self.change()
            commit(path)
            self.look()

        partial._commit = watched
        return partial

    def look(self) -> None:
        self.dangling += dangling(self.contents)


def dangling(contents: Contents) -> list[str]:
    """What is named in a store and is not there."""
    found = []
    objects = contents.objects
    for path, value in objects.items():
        parts = path.split("/")
        if path.startswith(f"{layout.REPOSITORIES}/") and path.endswith("/link"):
            algorithm, hex_ = value.data.decode().split(":")
            wanted = [f"{layout.BLOBS}/{algorithm}/{hex_[:2]}/{hex_}/data"]
            if path.endswith("/current/link"):
                wanted.append(f"{'/'.join(parts[:-4])}/revisions/{algorithm}/{hex_}/link")
                name = "/".join(parts[4:-5])
                if f"{layout.STATE}/revisions/{name}/_revisions/{algorithm}/{hex_}" in objects:
                    wanted.pop()
        elif parts[0] == "repositories" and parts[-1].startswith("tag_"):
            wanted = [f"images/{value.data.decode()}/json"]
        elif parts[0] == "images" and parts[-1] == "json":
            wanted = [f"images/{parts[1]}/layer", f"images/{parts[1]}/ancestry"]
        else:
            continue
        found += [f"{path}: {target}" for target in wanted if target not in objects]
    return found


class Told:
    """Hears how a copy goes on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.expected = self.done = self.bytes = 0

    def expect(self, count: int) -> None:
        self.expected += count

    def step(self) -> None:
        self.done += 1

    def moved(self, size: int) -> None:
        self.bytes += size

    def tell(self, line: str) -> None:
        self.lines.append(line)


class CopyCase(SynchronousTestCase):
    """A source that a registry filled, and a target."""

    def setUp(self) -> None:
        self.memory = MemoryRegistry(Policy(accept_unknown_media_types=True))
        self.source = self.memory.driver
        self.target = Watched()
        self.clock = Clock()
        self.told = Told()

    def ask(self, method: str, target: str, body: bytes = b"", code: int = 201, **headers: str) -> Any:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.successResultOf(self.memory.agent.request(method, target, names, body))
        self.assertEqual(response.code, code, response.body[:500])
        return response

    def push_blob(self, name: str, data: bytes) -> None:
        self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={sha256(data)}", data)

    def push(self, name: str, reference: str, layer: bytes, **more: object) -> bytes:
        for blob in (b"{}", layer):
            self.push_blob(name, blob)
        manifest = image(b"{}", [layer], **more)
        self.ask("PUT", f"/v2/{name}/manifests/{reference}", manifest, Content_Type=OCI_MANIFEST)
        return manifest

    def push_v1(self, image_id: str, parent: str | None = None, layer: bytes = LAYER, sums: Any = simple) -> None:
        data = image_json(image_id, parent)
        self.ask("PUT", f"/v1/images/{image_id}/json", data, 200, X_Docker_Checksum=sums(data, layer))
        self.ask("PUT", f"/v1/images/{image_id}/layer", layer, 200)

    def tag_v1(self, name: str, tag: str, image_id: str) -> None:
        self.ask("PUT", f"/v1/repositories/{name}/tags/{tag}", json.dumps(image_id).encode(), 200)

    def fill(self) -> None:
        """Both dialects, a tag that moved, a referrer, an odd type, large and empty objects."""
        self.push("team/app", "latest", b"first")
        manifest = self.push("team/app", "latest", LARGE)
        subject = {"mediaType": OCI_MANIFEST, "size": len(manifest), "digest": sha256(manifest)}
        referrer = image(b"{}", [], subject=subject)
        self.ask("PUT", f"/v2/team/app/manifests/{sha256(referrer)}", referrer, Content_Type=OCI_MANIFEST)
        self.push("team/app/deep", "v1", b"")
        odd = json.dumps({"schemaVersion": 2, "mediaType": _ODD_TYPE}).encode()
        self.ask("PUT", "/v2/team/app/manifests/odd", odd, Content_Type=_ODD_TYPE)
        self.push_v1(A)
        self.push_v1(B, A, layer=archive(content=LARGE), sums=tarsum)
        self.ask("PUT", "/v1/repositories/team/old/", json.dumps([{"id": A}, {"id": B}]).encode(), 200)
        self.tag_v1("team/old", "latest", B)
        self.tag_v1("team/old", "base", A)

    def copy(self, target: MemoryDriver | None = None, **options: Any) -> Deferred[Copied]:
        copying = Copy(self.source, target or self.target, self.told, self.clock, **options)
        return start(copying.run())

    def copied(self, target: MemoryDriver | None = None, **options: Any) -> Copied:
        return self.successResultOf(self.copy(target, **options))

    def objects(self, contents: Contents) -> dict[str, bytes]:
        """All that is copied."""
        found = {path: value.data for path, value in contents.objects.items()}
        return {path: data for path, data in found.items() if not path.startswith(NOT_COPIED)}

    def assert_same(self, target: MemoryDriver | None = None) -> None:
        contents = (target or self.target).contents
        there, here = self.objects(contents), self.objects(self.memory.contents)
        self.assertEqual(sorted(there), sorted(here))
        self.assertEqual([path for path in here if there[path] != here[path]], [])
        self.assertEqual(list(contents.growing), [])


class WholeTests(CopyCase):
    def test_everything_arrives(self) -> None:
        self.fill()
        found = self.copied()
        self.assertEqual((found.failed, found.held, found.doubtful, found.dangling, found.extra), (0, 0, 0, 0, 0))
        self.assertEqual((found.whole, found.skipped, self.told.lines), (True, 0, []))
        self.assert_same()
        self.assertEqual(found.copied, len(self.objects(self.memory.contents)))
        self.assertEqual(found.bytes, sum(map(len, self.objects(self.memory.contents).values())))
        self.assertEqual((self.told.bytes, self.told.done), (found.bytes, self.told.expected))
        self.assertEqual(self.target.dangling, [])
        self.assertEqual([path for path in self.target.contents.objects if path.startswith(NOT_COPIED)], [])

    def test_the_target_serves(self) -> None:
        self.fill()
        self.copied()
        wanted = [
            *("/v2/_catalog", "/v2/team/app/tags/list", "/v2/team/app/manifests/latest", "/v2/team/app/manifests/odd"),
            *(f"/v2/team/app/blobs/{sha256(LARGE)}", f"/v2/team/app/referrers/{sha256(image(b'{}', [LARGE]))}"),
            *("/v1/repositories/team/old/tags", f"/v1/images/{B}/layer", f"/v1/images/{B}/ancestry", "/v1/search?q="),
            "/v1/repositories/team/old/images",
        ]
        before = [(path, self.ask("GET", path, code=200).body) for path in wanted]
        self.memory = MemoryRegistry(Policy(accept_unknown_media_types=True), driver=self.target)
        self.assertEqual([(path, self.ask("GET", path, code=200).body) for path in wanted], before)

    def test_a_second_run_carries_nothing(self) -> None:
        self.fill()
        first = self.copied()
        changes = self.target.changes
        several: list[dict[str, Any]] = [{}, {"verify": True}, {"delete": True}]
        for options in several:
            second = self.copied(**options)
            self.assertEqual((second.copied, second.bytes, second.skipped), (0, 0, first.copied))
            self.assertEqual((second.extra, self.target.changes), (0, changes))

    def test_killed_before_each_change(self) -> None:
        """Whatever a dead run has left, no name leads nowhere, and the next run makes it whole."""
        self.fill()
        self.copied()
        for changes in range(self.target.changes + 1):
            target = Watched(dies_at=changes)
            killed = self.copy(target, jobs=1 + changes % 3)
            if not isinstance(getattr(killed, "result", None), Copied):
                self.failureResultOf(killed, Killed)
            else:
                break
            self.assertEqual((target.dangling, dangling(target.contents)), ([], []))
            # What it was writing is swept by a server.
            self.assertEqual([path for path in target.contents.growing if not path.startswith(layout.TMP)], [])
            target.contents.growing.clear()
            target.dies_at = None
            self.copied(target)
            self.assertEqual(target.dangling, [])
            self.assert_same(target)
        self.assertEqual(changes, self.target.changes)
        self.assertGreater(changes, 40)

    def test_order_of_what_only_v1_knows(self) -> None:
        """A layer that waits for its checksum comes before its record, an image's JSON after all else of it."""
        attempt = [layout.v1_attempt_layer(B, "1"), layout.v1_attempt_record(B, "1"), layout.v1_push(B)]
        self.push_v1(A)
        for path in (*attempt, layout.v1_image(A, "kept")):
            self.successResultOf(self.source.put(path, b"{}"))
        self.copied(jobs=1)
        self.assertEqual([path for path in self.target.written if path in attempt], attempt)
        trees = Trees(Objects(self.source, self.target, self.told, self.clock), self.source, 1)
        groups = self.successResultOf(start(trees.state()))
        self.assertEqual([[path for path in group if path in attempt] for group in groups], [[one] for one in attempt])
        parts = [path for path in self.target.written if path.startswith(f"{layout.V1_IMAGES}/{A}/")]
        self.assertEqual(parts[-1], layout.v1_image(A, "json"))
        self.assertIn(layout.v1_image(A, "kept"), parts)

    def test_an_image_that_the_target_had_begun(self) -> None:
        self.push_v1(A)
        mark = layout.v1_image(A, "_inprogress")
        self.successResultOf(self.target.put(mark, b"true"))
        self.copied()
        self.assertNotIn(mark, self.target.contents.objects)

    def test_a_source_in_use(self) -> None:
        """An image is pushed at any moment of the copy: no tag comes without it, and it comes by the next run."""
        self.fill()

        class Busy(MemoryDriver):
            """A source in which something happens before one of its listings."""

            happens: Callable[[], None]
            at, lists = 0, 0

            def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
                self.lists += 1
                if self.lists == self.at:
                    self.happens()
                return super().list(prefix, cursor, limit)

        def happens() -> None:
            self.push("team/app", "latest", b"late")
            self.push("team/new", "latest", b"late as well")
            self.push_v1(C, B)
            self.tag_v1("team/old", "latest", C)

        quiet, late = Busy(Clock(), contents=self.memory.contents), 0
        self.source = quiet
        self.copied(Watched())
        before = dict(self.memory.contents.objects)
        for calls in range(1, quiet.lists + 1):
            self.memory.contents.objects.clear()
            self.memory.contents.objects.update(before)
            self.source = source = Busy(Clock(), contents=self.memory.contents)
            source.at, source.happens = calls, happens
            target = Watched()
            self.copied(target)
            late += self.objects(target.contents) != self.objects(self.memory.contents)
            self.copied(target, delete=True)
            self.assertEqual(target.dangling, [])
            self.assert_same(target)
        self.assertGreater(late, 10)


class DamagedTests(CopyCase):
    def set_blob(self, data: bytes, now: bytes) -> str:
        hex_ = sha256(data).partition(":")[2]
        path = f"{layout.BLOBS}/sha256/{hex_[:2]}/{hex_}/data"
        self.memory.contents.objects[path].data = now
        return path

    def test_a_damaged_blob(self) -> None:
        self.push("team/app", "good", b"good")
        self.push("team/app", "bad", LARGE)
        path = self.set_blob(LARGE, LARGE[:-1] + b"?")
        found = self.copied()
        self.assertFalse(found.whole)
        self.assertEqual((found.failed, found.held, self.target.dangling), (2, 1, []))
        self.assertEqual(self.told.lines[0], f"{path}: damaged, not copied: its digest is {sha256(LARGE[:-1] + b'?')}")
        there = self.objects(self.target.contents)
        self.assertNotIn(path, there)
        tags = f"{layout.REPOSITORIES}/team/app/_manifests/tags"
        self.assertIn(f"{tags}/good/current/link", there)
        self.assertEqual([name for name in there if name.startswith(f"{tags}/bad/")], [])
        self.assertEqual(list(self.target.contents.growing), [])
        # Mended at the source, it comes with the next run.
        self.set_blob(LARGE, LARGE)
        self.assertTrue(self.copied().whole)
        self.assert_same()

    def test_a_damaged_small_blob_and_link(self) -> None:
        self.push("team/app", "latest", b"small")
        self.set_blob(b"small", b"large")
        link = f"{layout.REPOSITORIES}/team/app/_manifests/tags/latest/current/link"
        self.memory.contents.objects[link].data = b"nothing\n"
        found = self.copied()
        self.assertIn(f"{link}: damaged link", self.told.lines)
        self.assertEqual((found.failed, found.held), (3, 1))

    def test_a_target_with_other_bytes(self) -> None:
        self.fill()
        self.copied()
        path = layout.v1_image(B, "layer")
        large = self.target.contents.objects[path]
        blob = next(
            value
            for name, value in self.target.contents.objects.items()
            if name.startswith(layout.BLOBS) and len(value.data) == len(LARGE)
        )
        for value in (large, blob):
            value.data = b"?" + value.data[1:]
        self.assertEqual(self.copied().copied, 0)
        self.assertEqual(self.copied(verify=True).copied, 2)
        self.assert_same()

    def test_sums_of_layers(self) -> None:
        self.push_v1(A)
        self.push_v1(B, A, sums=tarsum)
        for image_id in (A, B):
            # As old servers leave it: a file beside the layer, no record.
            del self.memory.contents.objects[layout.v1_push(image_id)]
            del self.memory.contents.objects[layout.v1_map(image_id)]
        self.assertEqual((self.copied().doubtful, self.told.lines), (0, []))
        for image_id in (A, B):
            path = layout.v1_image(image_id, "layer")
            target = Watched()
            before, self.memory.contents.objects[path].data = (
                self.memory.contents.objects[path].data,
                archive("etc/other"),
            )
            found = self.copied(target)
            self.assertEqual((found.doubtful, found.failed, found.whole), (1, 0, False))
            self.assertEqual(self.told.lines.pop(), f"{path}: copied, but it has none of its recorded checksums")
            self.assert_same(target)
            self.memory.contents.objects[path].data = before

    def test_the_digest_that_was_recorded(self) -> None:
        self.push_v1(A)
        objects = self.memory.contents.objects
        objects[layout.v1_image(A, "_checksum")].data = b"tarsum.dev+sha256:0"
        for path in (layout.v1_push(A), layout.v1_map(A)):
            known = objects.pop(path)
            self.assertEqual(self.copied(Watched()).doubtful, 0)
            objects[path] = known

    def test_what_is_not_whole(self) -> None:
        """Links whose data was collected, tags to nowhere, uploads and V1 pushes under way."""
        self.push("team/app", "latest", b"small")
        other = f"sha256:{'1' * 64}"
        contents = self.memory.contents
        base = f"{layout.REPOSITORIES}/team/app"
        for path in (f"{base}/_layers/sha256/{'1' * 64}/link", f"{base}/_manifests/tags/gone/current/link"):
            self.successResultOf(self.source.put(path, other.encode()))
        self.ask("POST", "/v2/team/app/blobs/uploads/", code=202)
        self.ask("PUT", f"/v1/images/{A}/json", image_json(A), 200)
        for tag, text in (("nowhere", B), ("nothing", "../x"), ("soon", A)):
            self.successResultOf(self.source.put(layout.v1_tag("team", "old", tag), text.encode()))
        found = self.copied()
        self.assertEqual((found.dangling, found.held, found.failed), (1, 4, 0))
        self.assertGreaterEqual(found.unfinished, 1)
        self.assertEqual(len(self.told.lines), 4)
        self.assertEqual((self.target.dangling, list(self.target.contents.growing)), ([], []))
        self.assertEqual(len(contents.growing), 1)
        self.assertEqual(self.target.contents.objects[layout.v1_push(A)].data, contents.objects[layout.v1_push(A)].data)

    def test_a_repository_without_layers(self) -> None:
        """Distribution's collector passes over it where its directory of layers cannot be empty."""
        self.push("team/app", "latest", b"small")
        for path in [path for path in self.memory.contents.objects if "/_layers/" in path]:
            del self.memory.contents.objects[path]
        self.assertTrue(self.copied().whole)
        there = set(self.objects(self.target.contents)) - set(self.objects(self.memory.contents))
        hex_ = sha256(b"{}").partition(":")[2]
        self.assertEqual(there, {f"{layout.REPOSITORIES}/team/app/_layers/sha256/{hex_}/link"})
        second = self.copied(delete=True)
        self.assertEqual((second.copied, second.extra), (0, 0))


class DeletedTests(CopyCase):
    def test_what_only_the_target_has(self) -> None:
        self.fill()
        self.copied()
        self.ask("DELETE", "/v2/team/app/manifests/latest", code=202)
        self.ask("DELETE", f"/v2/team/app/manifests/{sha256(image(b'{}', [b'first']))}", code=202)
        self.ask("DELETE", f"/v2/team/app/blobs/{sha256(b'first')}", code=202)
        self.ask("DELETE", "/v1/repositories/team/old/tags/base", code=200)
        self.successResultOf(self.source.remove(f"{layout.REPOSITORIES}/team/app/deep"))
        told = self.copied()
        self.assertTrue(told.whole)
        self.assertEqual((told.removed, told.copied, len(self.told.lines)), (0, 0, told.extra))
        tag = f"{layout.REPOSITORIES}/team/app/_manifests/tags/latest"
        self.assertIn(f"{tag}: only in the target", self.told.lines)
        removed = self.copied(delete=True)
        self.assertEqual((removed.extra, removed.removed), (told.extra, told.extra))
        self.assertIn(f"{tag}: removed, as it was only in the target", self.told.lines)
        self.assertEqual(self.target.dangling, [])
        self.assert_same()
        self.assertEqual(self.copied().extra, 0)

    def test_what_comes_back_is_not_removed(self) -> None:
        """Pushed after the source was listed: it is asked for once more."""
        self.fill()
        self.copied()

        class Late(MemoryDriver):
            def list(self, prefix: str, cursor: str | None = None, limit: int = 1000) -> Deferred[Page]:
                page = result_of(super().list(prefix, cursor, limit))
                return succeed(Page(tuple(entry for entry in page.entries if entry.name != "latest"), page.cursor))

        self.source = Late(Clock(), contents=self.memory.contents)
        self.assertEqual(self.copied(delete=True).extra, 0)
        self.assert_same()

    def test_killed_before_each_removal(self) -> None:
        self.fill()
        empty = MemoryDriver(Clock())
        for changes in range(1000):
            target = Watched()
            self.copied(target)
            target.dies_at = target.changes + changes
            full, self.source = self.source, empty
            killed = self.copy(target, delete=True)
            self.assertEqual((target.dangling, dangling(target.contents)), ([], []))
            if isinstance(getattr(killed, "result", None), Copied):
                break
            self.failureResultOf(killed, Killed)
            target.dies_at = None
            self.copied(target, delete=True)
            self.assert_nothing(target)
            self.source = full
        self.assert_nothing(target)
        self.assertGreater(changes, 10)

    def assert_nothing(self, target: MemoryDriver) -> None:
        left = set(self.objects(target.contents))
        # What may be the mark of a repository says nothing.
        self.assertEqual([path for path in left if sha256(b"{}").partition(":")[2] not in path], [])


class OutageTests(CopyCase):
    """An engine that fails, now and then or for good."""

    class Failing(Watched):
        errors: list[StorageError | None]
        each: StorageError | None = None

        def _fails(self, path: str) -> StorageError | None:
            if path.startswith(layout.BLOBS):
                return self.errors.pop(0) if self.errors else self.each
            return None

        def put(self, path: str, *rest: Any, **more: Any) -> Deferred[Version]:
            error = self._fails(path)
            return fail(error) if error is not None else super().put(path, *rest, **more)

        def partial(self, path: str, create: bool = False) -> Deferred[IPartial]:
            error = self._fails(layout.BLOBS)
            return fail(error) if error is not None else super().partial(path, create)

    def setUp(self) -> None:
        super().setUp()
        self.fill()
        self.failing = self.Failing()
        self.failing.errors = []

    def test_a_short_one(self) -> None:
        self.failing.errors = [Unavailable("x", "away"), Unavailable("x", "away"), None, Unavailable("x", "away")]
        running = self.copy(self.failing, jobs=1)
        self.assertNoResult(running)
        self.clock.pump([1, 5, 1, 5])
        self.assertTrue(self.successResultOf(running).whole)
        self.assert_same(self.failing)

    def test_a_long_one(self) -> None:
        self.failing.each = Unavailable("x", "away")
        running = self.copy(self.failing, jobs=1)
        self.clock.pump([1, 5] * GIVE_UP)
        error = self.failureResultOf(running, Unavailable).value
        self.assertEqual(error.reason, f"{GIVE_UP} objects in a row could not be copied, the last as: away")
        self.assertEqual(len(self.told.lines), GIVE_UP)
        self.failing.each = None
        self.assertTrue(self.copied(self.failing).whole)
        self.assert_same(self.failing)

    def test_one_object(self) -> None:
        self.failing.errors = [Unavailable("x", "unreadable")] * 3
        running = self.copy(self.failing, jobs=1)
        self.clock.pump([1, 5])
        found = self.successResultOf(running)
        self.assertEqual(found.whole, False)
        self.assertIn(": unreadable", self.told.lines[0])
        self.assertEqual(dangling(self.failing.contents), [])

    def test_a_full_one(self) -> None:
        self.failing.errors = [None, NoSpace("x", "full")]
        self.failureResultOf(self.copy(self.failing, jobs=1), NoSpace)

    def test_all_jobs_have_ended_when_it_fails(self) -> None:
        self.failing.errors = [Unavailable("x", "away"), NoSpace("x", "full")]
        running = self.copy(self.failing, jobs=2)
        self.assertNoResult(running)
        self.clock.pump([1])
        self.failureResultOf(running, NoSpace)
        self.assertEqual(self.clock.getDelayedCalls(), [])
