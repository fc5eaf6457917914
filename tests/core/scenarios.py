"""Requests that change a registry, one of each kind, and what a client tries that comes after one that failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from tests.core.local_store import Ask, push_blob
from tests.web.v2.base import OCI_MANIFEST, image, sha256
from txregistry.model.digest import Digest

#: Three batches, so that a job is under way while the next one fills.
LAYER = os.urandom(1) * 700_000 + bytes(range(256)) * 2400
CONFIG = b"{}"
LARGE = b"large" * 300_000
MANIFEST = image(CONFIG, [b"small"])
REFERRER = image(CONFIG, [], subject={"mediaType": OCI_MANIFEST, "size": len(MANIFEST), "digest": sha256(MANIFEST)})
TYPE = {"Content-Type": OCI_MANIFEST}


@dataclass
class Request:
    """What the client asks, how much of its body it sends, what a client tries that comes after it, and the status
    of one that is taken (or, of `put_wrong`, refused for its own fault)."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    sent: int
    retry: Callable[[Ask], None]
    status: int


def request(
    method: str,
    target: str,
    retry: Callable[[Ask], None],
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    sent: int | None = None,
    status: int = 201,
) -> Request:
    return Request(method, target, headers or {}, body, len(body) if sent is None else sent, retry, status)


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
    return request("POST", "/v2/a/blobs/uploads/", pushes_whole, status=202)


def start_upload_sha512(ask: Ask) -> Request:
    return request("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", pushes_whole, status=202)


def put_whole(ask: Ask) -> Request:
    location = session(ask)
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location), LAYER)


def put_cut(ask: Ask) -> Request:
    location = session(ask)
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location), LAYER, sent=len(LAYER) - 1000)


def put_after_patch(ask: Ask) -> Request:
    """Closed by a digest of another kind than was hashed on the way: the bytes are read again."""
    location = session(ask, LAYER)
    return request("PUT", f"{location}?digest={Digest.of(LAYER, 'sha512')}", resumes(location))


def put_rest(ask: Ask) -> Request:
    location = session(ask, LAYER[:300_000])
    return request("PUT", f"{location}?digest={sha256(LAYER)}", resumes(location), LAYER[300_000:])


def put_wrong(ask: Ask) -> Request:
    location = session(ask)
    return request("PUT", f"{location}?digest={sha256(b'other')}", pushes_whole, LAYER, status=400)


def patch_whole(ask: Ask) -> Request:
    location = session(ask)
    return request("PATCH", location, resumes(location), LAYER, status=202)


def patch_cut(ask: Ask) -> Request:
    location = session(ask, LAYER[:1000])
    return request("PATCH", location, resumes(location), LAYER[1000:], sent=len(LAYER) - 2000, status=202)


def monolithic(ask: Ask) -> Request:
    return request("POST", f"/v2/a/blobs/uploads/?digest={sha256(LAYER)}", pushes_whole, LAYER)


def monolithic_cut(ask: Ask) -> Request:
    return request("POST", f"/v2/a/blobs/uploads/?digest={sha256(LAYER)}", pushes_whole, LAYER, sent=600_000)


def end_session(ask: Ask) -> Request:
    location = session(ask, LAYER)
    return request("DELETE", location, deletes(location), status=204)


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
    return request("DELETE", "/v2/a/manifests/going", deletes("/v2/a/manifests/going"), status=202)


def delete_manifest(ask: Ask) -> Request:
    target = f"/v2/a/manifests/{sha256(image(CONFIG, []))}"
    return request("DELETE", target, deletes(target), status=202)


def delete_blob(ask: Ask) -> Request:
    target = f"/v2/a/blobs/{sha256(b'going')}"
    return request("DELETE", target, deletes(target), status=202)


def pull(ask: Ask) -> Request:
    return request("GET", f"/v2/a/blobs/{sha256(LARGE)}", pushes_whole, status=200)


# -- what is there before and after -------------------------------------------------------------------------------


def fill(ask: Ask) -> None:
    """What the requests above find."""
    for data in (CONFIG, b"small", b"going", LARGE):
        expect(push_blob(ask, "a", data).code, 201)
    going = image(CONFIG, [])
    for tag, manifest in (("kept", MANIFEST), ("moving", MANIFEST), ("going", going), ("also-going", going)):
        expect(ask("PUT", f"/v2/a/manifests/{tag}", TYPE, manifest).code, 201)


def missing(ask: Ask) -> list[str]:
    """What none of the requests touches, and yet is not there as it was."""
    wrong = [sha256(data) for data in (CONFIG, b"small") if ask("GET", f"/v2/a/blobs/{sha256(data)}").body != data]
    wrong += [name for name in ("kept", sha256(MANIFEST)) if ask("GET", f"/v2/a/manifests/{name}").body != MANIFEST]
    if ask("GET", "/v2/a/manifests/moving").body not in (MANIFEST, REFERRER):
        wrong.append("moving")
    tags = ask("GET", "/v2/a/tags/list").json()["tags"]
    return wrong + [tag for tag in tags if ask("GET", f"/v2/a/manifests/{tag}").code != 200]
