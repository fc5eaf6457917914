"""The client leaves at every point where the server waits: before a job, and between a job and its result.

Whatever it was doing, afterwards no blob has bytes that are not its own, no file is open, nothing acknowledged is
missing, and another worker takes the same request from another client.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from tests.core.local_store import Ask, Store, asking, foreign_blobs, open_files, push_blob
from tests.web.v2.base import OCI_MANIFEST, image, sha256
from txregistry.storage import local
from txregistry.testing.agent import Exchange
from txregistry.testing.pools import ManualPool

#: Three batches, so that a job is under way while the next one fills.
LAYER = os.urandom(1) * 700_000 + bytes(range(256)) * 2400
CONFIG = b"{}"
MANIFEST = image(CONFIG, [b"small"])
REFERRER = image(CONFIG, [], subject={"mediaType": OCI_MANIFEST, "size": len(MANIFEST), "digest": sha256(MANIFEST)})
TYPE = {"Content-Type": OCI_MANIFEST}


@dataclass
class Request:
    """What the client asks, how much of its body it sends, and what a client tries that comes after it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    sent: int
    retry: Callable[[Ask], None]


def request(
    method: str,
    target: str,
    retry: Callable[[Ask], None],
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    sent: int | None = None,
) -> Request:
    return Request(method, target, headers or {}, body, len(body) if sent is None else sent, retry)


def expect(response_code: int, *codes: int) -> None:
    assert response_code in codes, response_code


# -- what a client does that comes after one that left ------------------------------------------------------------


def resumes(location: str) -> Callable[[Ask], None]:
    """Go on with the upload where the session says, or begin anew when there is none any more."""

    def retry(ask: Ask) -> None:
        status = ask("GET", location)
        expect(status.code, 204, 404)
        if status.code == 204:
            told = status.header("Range")
            assert told is not None
            last = int(told.partition("-")[2])
            offset = last + 1 if last else 0
            rest = LAYER[offset:]
            if rest:
                headers = {"Content-Range": f"{offset}-{len(LAYER) - 1}"}
                expect(ask("PATCH", location, headers, rest).code, 202)
            expect(ask("PUT", f"{location}?digest={sha256(LAYER)}").code, 201)
        pushes_whole(ask)

    return retry


def pushes_whole(ask: Ask) -> None:
    expect(push_blob(ask, "a", LAYER).code, 201)
    assert ask("GET", f"/v2/a/blobs/{sha256(LAYER)}").body == LAYER


def puts(reference: str, manifest: bytes) -> Callable[[Ask], None]:
    def retry(ask: Ask) -> None:
        expect(ask("PUT", f"/v2/a/manifests/{reference}", TYPE, manifest).code, 201)
        assert ask("GET", f"/v2/a/manifests/{reference}").body == manifest

    return retry


def mounts(ask: Ask) -> None:
    expect(ask("POST", f"/v2/b/blobs/uploads/?mount={sha256(b'small')}&from=a").code, 201)
    assert ask("GET", f"/v2/b/blobs/{sha256(b'small')}").body == b"small"


def deletes(target: str) -> Callable[[Ask], None]:
    def retry(ask: Ask) -> None:
        expect(ask("DELETE", target).code, 202, 204, 404)
        expect(ask("GET", target).code, 404)

    return retry


# -- what the client does that leaves -----------------------------------------------------------------------------


def session(ask: Ask, begun_with: bytes = b"") -> str:
    location = ask("POST", "/v2/a/blobs/uploads/").header("Location")
    assert location is not None
    if begun_with:
        expect(ask("PATCH", location, body=begun_with).code, 202)
    return location


def start_upload(ask: Ask) -> Request:
    return request("POST", "/v2/a/blobs/uploads/", pushes_whole)


def start_upload_sha512(ask: Ask) -> Request:
    return request("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", pushes_whole)


def put_whole(ask: Ask) -> Request:
    location = session(ask)
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location), LAYER)


def put_cut(ask: Ask) -> Request:
    location = session(ask)
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location), LAYER, sent=len(LAYER) - 1000)


def put_after_patch(ask: Ask) -> Request:
    """Closed by another process than the one that hashed: the bytes are read again."""
    location = session(ask, LAYER)
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location))


def put_rest(ask: Ask) -> Request:
    location = session(ask, LAYER[:300_000])
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location), LAYER[300_000:])


def put_wrong(ask: Ask) -> Request:
    location = session(ask)
    return request("PUT", f"{location}?digest={sha256(b'other')}", pushes_whole, LAYER)


def patch_whole(ask: Ask) -> Request:
    location = session(ask)
    return request("PATCH", location, resumes(location), LAYER)


def patch_cut(ask: Ask) -> Request:
    location = session(ask, LAYER[:1000])
    return request("PATCH", location, resumes(location), LAYER[1000:], sent=len(LAYER) - 2000)


def monolithic(ask: Ask) -> Request:
    return request("POST", f"/v2/a/blobs/uploads/?digest={sha256(LAYER)}", pushes_whole, LAYER)


def monolithic_cut(ask: Ask) -> Request:
    return request("POST", f"/v2/a/blobs/uploads/?digest={sha256(LAYER)}", pushes_whole, LAYER, sent=600_000)


def end_session(ask: Ask) -> Request:
    location = session(ask, LAYER)
    return request("DELETE", location, deletes(location))


def put_manifest(ask: Ask) -> Request:
    return request("PUT", "/v2/a/manifests/new", puts("new", MANIFEST), MANIFEST, TYPE)


def move_tag(ask: Ask) -> Request:
    return request("PUT", "/v2/a/manifests/moving", puts("moving", REFERRER), REFERRER, TYPE)


def put_referrer(ask: Ask) -> Request:
    digest = sha256(REFERRER)
    return request("PUT", f"/v2/a/manifests/{digest}", puts(digest, REFERRER), REFERRER, TYPE)


def mount(ask: Ask) -> Request:
    return request("POST", f"/v2/b/blobs/uploads/?mount={sha256(b'small')}&from=a", mounts)


def delete_tag(ask: Ask) -> Request:
    return request("DELETE", "/v2/a/manifests/going", deletes("/v2/a/manifests/going"))


def delete_manifest(ask: Ask) -> Request:
    target = f"/v2/a/manifests/{sha256(image(CONFIG, []))}"
    return request("DELETE", target, deletes(target))


def delete_blob(ask: Ask) -> Request:
    target = f"/v2/a/blobs/{sha256(b'going')}"
    return request("DELETE", target, deletes(target))


def pull(ask: Ask) -> Request:
    return request("GET", f"/v2/a/blobs/{sha256(b'large' * 300_000)}", pushes_whole)


class ClientLeaves(SynchronousTestCase):
    """Each test takes one kind of request through all positions at which its client may leave."""

    def setUp(self) -> None:
        # All reads by the pool, as on a network file system: then each of them is a position too.
        self.patch(local, "is_local", lambda _path: False)
        self.template = os.path.abspath(self.mktemp())
        ask = asking(Store("fresh", self.template))
        for data in (CONFIG, b"small", b"going", b"large" * 300_000):
            expect(push_blob(ask, "a", data).code, 201)
        going = image(CONFIG, [])
        for tag, manifest in (("kept", MANIFEST), ("moving", MANIFEST), ("going", going), ("also-going", going)):
            expect(ask("PUT", f"/v2/a/manifests/{tag}", TYPE, manifest).code, 201)

    def positions(self, scenario: Callable[[Ask], Request]) -> int:
        """Run the scenario again and again, each time leaving one position later; how many there were."""
        position = 0
        while self.leave_at(scenario, position):
            position += 1
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        return position

    def leave_at(self, scenario: Callable[[Ask], Request], position: int) -> bool:
        """Leave at this position; whether the request was still under way."""
        root = os.path.abspath(self.mktemp())
        shutil.copytree(self.template, root)
        asked = scenario(asking(Store("fresh", root)))
        pool = ManualPool()
        store = Store("left", root, pool)
        exchange = store.agent.start(asked.method, asked.target, asked.headers, length=len(asked.body))
        exchange.send(asked.body[: asked.sent])
        waits = self.waits(store, pool, exchange)
        under_way = all(next(waits, None) is not None for _ in range(position + 1))
        waits.close()
        exchange.lose()
        for _ in range(3):
            pool.flush()
            store.clock.advance(1)
        with self.subTest(scenario=scenario.__name__, position=position):
            self.look(root, asked)
        shutil.rmtree(root)
        return under_way

    def waits(self, store: Store, pool: ManualPool, exchange: Exchange) -> Iterator[str]:
        """Stop wherever the server waits, until the response is there or it waits for the client alone."""
        quiet = 0
        yield "the request has arrived"
        while not exchange.response.called and quiet < 3:
            if not pool.waiting:
                quiet += 1
                store.clock.advance(1)
                continue
            quiet = 0
            pool.work()
            yield "the job has run"
            pool.deliver()
            yield "its result is known"

    def look(self, root: str, asked: Request) -> None:
        self.assertEqual(open_files(root), [])
        self.assertEqual(foreign_blobs(root), [])
        self.assertEqual(os.listdir(f"{root}/_txregistry/tmp/put"), [])
        ask = asking(Store("fresh", root))
        self.look_for_the_rest(ask)
        asked.retry(ask)
        self.look_for_the_rest(ask)
        self.assertEqual(foreign_blobs(root), [])
        self.assertEqual(open_files(root), [])

    def look_for_the_rest(self, ask: Ask) -> None:
        for data in (CONFIG, b"small"):
            self.assertEqual(ask("GET", f"/v2/a/blobs/{sha256(data)}").body, data)
        for reference in ("kept", sha256(MANIFEST)):
            self.assertEqual(ask("GET", f"/v2/a/manifests/{reference}").body, MANIFEST)
        self.assertIn(ask("GET", "/v2/a/manifests/moving").body, (MANIFEST, REFERRER))
        for tag in ask("GET", "/v2/a/tags/list").json()["tags"]:
            self.assertEqual(ask("GET", f"/v2/a/manifests/{tag}").code, 200, tag)

    def try_all(self, least: int, *scenarios: Callable[[Ask], Request]) -> None:
        tried = {scenario.__name__: self.positions(scenario) for scenario in scenarios}
        total = sum(tried.values())
        print(f"clients that left: {total} positions ({', '.join(f'{n} {c}' for n, c in tried.items())}), foreign bytes 0")
        self.assertGreater(total, least, tried)

    def test_a_blob_in_one_put(self) -> None:
        self.try_all(50, put_whole, put_cut, put_wrong)

    def test_a_blob_in_patches_and_a_put(self) -> None:
        self.try_all(70, patch_whole, patch_cut, put_rest, put_after_patch)

    def test_a_blob_in_one_post(self) -> None:
        self.try_all(40, monolithic, monolithic_cut)

    def test_the_beginning_and_the_end_of_a_session(self) -> None:
        self.try_all(15, start_upload, start_upload_sha512, end_session)

    def test_a_manifest(self) -> None:
        self.try_all(65, put_manifest, move_tag, put_referrer)

    def test_a_mount(self) -> None:
        self.try_all(7, mount)

    def test_deletes(self) -> None:
        self.try_all(35, delete_tag, delete_manifest, delete_blob)

    def test_a_pull(self) -> None:
        self.try_all(5, pull)
