"""What is measured of each server, with what it should be: one entry of `MEASURES` for each measure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import loads
from bench.connection import Connection, Failed
from bench.content import blob_path, manifest_path
from bench.field import Field
from bench.loads import MB_RATE, P99, PER_GIB, PER_REQUEST, RATE
from bench.peers import DISTRIBUTION_2, DISTRIBUTION_3, NGINX, OLAREG, OURS, OURS_2, UNSYNCED
from bench.processes import family
from bench.store import REPOSITORIES, TAGGED, TAGS, large_store, tag_name
from bench.table import Metric, Target, Values

READERS = (OURS, OURS_2, DISTRIBUTION_3, OLAREG, NGINX, DISTRIBUTION_2)
WRITERS = (OURS, OURS_2, DISTRIBUTION_3, OLAREG)
#: Those that read the large store.
SHARERS = (OURS, DISTRIBUTION_3, DISTRIBUTION_2)
#: At least so many rounds, where a number varies much.
MANY = 5

_RATE = Metric(RATE, True, Target(3, DISTRIBUTION_3), Target(1, OLAREG))
_PER_REQUEST = Metric(PER_REQUEST, False, Target(1 / 5, DISTRIBUTION_3), Target(0.5, OLAREG))
_P99 = Metric(P99, False, Target(1 / 3, DISTRIBUTION_3), Target(1, OLAREG))


@dataclass(frozen=True)
class Measure:
    """`take` measures one server, named, once."""

    key: str
    title: str
    peers: tuple[str, ...]
    metrics: tuple[Metric, ...]
    take: Callable[[Field, str], Values]
    rounds: int = 0
    #: Whether it starts a server for itself.
    own: bool = False
    tls: bool = False


def _hot(key: str, title: str, method: str, path: Callable[[Field], str]) -> list[Measure]:
    def take(field: Field, name: str, connections: int) -> Values:
        return loads.small(field.server(name), method, path(field), connections, field.options.seconds)

    return [
        Measure(f"{key}-32", f"{title}, 32 connections", READERS, (_RATE, _PER_REQUEST, Metric(P99)),
                partial(take, connections=32)),
        Measure(f"{key}-256", f"{title}, 256 connections", READERS, (_RATE, _PER_REQUEST, _P99),
                partial(take, connections=256), MANY),
    ]  # fmt: skip


def _workers(field: Field, name: str) -> Values:
    server = field.server(name)
    workers = family(server.program.pid)[1:]
    counts = loads.shares(server, workers, field.options.seconds)
    total = sum(counts.values())
    if not total:
        raise Failed("no request was seen at a worker")
    field.notes.append(f"Requests of each worker: {', '.join(map(str, counts.values()))}.")
    return {"% of the requests, the lesser": 100 * min(counts.values()) / total}


def _first(field: Field, name: str) -> Values:
    path = manifest_path(tag_name(0), TAGGED)
    with field.fresh(name, store=large_store(), probe=True) as server:
        began = time.monotonic()
        if not server.answers(path):
            raise Failed("the first answer is not 200")
        took = time.monotonic() - began
        return {"ms": took * 1e3, "ms from its exec": (took + server.started) * 1e3}


def _listing(field: Field, name: str, path: str, kind: str, count: int) -> Values:
    """How long a whole list takes, following `Link`; the median of three."""
    with field.fresh(name, store=large_store(), probe=True) as server:
        connection, times = Connection(server.address), []
        for _ in range(3):
            began, have, at = time.monotonic(), 0, path
            while at:
                reply = connection.request("GET", at).want(200)
                have += len(json.loads(reply.body)[kind])
                link = re.match(r"<([^>]*)>", reply.headers.get("link", ""))
                at = link.group(1) if link else ""
            times.append(time.monotonic() - began)
            if have != count:
                raise Failed(f"{have} names instead of {count}")
        return {"ms": sorted(times)[1] * 1e3}


def _misses(field: Field, name: str, reference: Callable[[int], str]) -> Values:
    with field.fresh(name, store=large_store(), probe=True) as server:
        return loads.each_once(server, [manifest_path(reference(number), TAGGED) for number in range(2050)])


def _idle(field: Field, name: str) -> Values:
    count = field.options.idle
    with field.fresh(name) as server:
        for _ in range(200):
            server.answers("/v2/")
        before = server.program.memory("RssAnon")
        connections = [Connection(server.address) for _ in range(count)]
        try:
            for connection in connections:
                connection.request("GET", "/v2/").want(200)
            time.sleep(0.5)
            return {"KiB/connection": (server.program.memory("RssAnon") - before) * 1024 / count}
        finally:
            for connection in connections:
                connection.close()


def _ready(field: Field, name: str) -> Values:
    with field.fresh(name) as server:
        return {**loads.cost("CPU s", server.ready, 1), "ms": server.started * 1e3}


def _hostile(field: Field, name: str) -> Values:
    """p99 of a client that pulls, quiet and while many connections mean no good."""
    options, path = field.options, manifest_path("latest")
    with field.fresh(name, store=field.server(name).store, probe=True) as server:
        quiet = loads.small(server, "GET", path, 8, options.seconds)
        with loads.hostile(server, blob_path(field.content.large_digest), options.slow, options.readers):
            busy = loads.small(server, "GET", path, 8, options.seconds)
    return {"p99 / quiet p99": busy[P99] / quiet[P99], P99: busy[P99], RATE: busy[RATE]}


def _download(field: Field, name: str, clients: int) -> Values:
    return loads.download(field.server(name), field.content, clients, 4 if clients == 1 else 1)


def _download_tls(field: Field, name: str) -> Values:
    return loads.download(field.server(name, tls=True), field.content, 1, 4)


def _hot_tls(field: Field, name: str) -> Values:
    return loads.small_tls(field.server(name, tls=True), manifest_path("latest"), 32, field.options.seconds)


def _upload(field: Field, name: str, way: str, clients: int) -> Values:
    return loads.upload(field.server(name), field.content, way, clients)


def _images(field: Field, name: str) -> Values:
    return loads.push_images(field.server(name), field.options.images, 8)


def _per_gib(of: str, floor: float, goal: float) -> Metric:
    return Metric(PER_GIB, False, Target(floor, of), Target(goal, of))


def _time(unit: str = "ms") -> Metric:
    return Metric(unit, False, Target(1, DISTRIBUTION_3), Target(0.5, DISTRIBUTION_3))


_MISS = (Metric(PER_REQUEST, False, Target(1, DISTRIBUTION_3), Target(0.6, DISTRIBUTION_3)), Metric(RATE, True))

MEASURES = (
    Measure(
        "ready", "start until ready", (OURS, DISTRIBUTION_3, OLAREG, NGINX),
        (Metric("CPU s", False, Target(0.6), Target(0.35)), Metric("ms")), _ready, MANY, own=True,
    ),
    Measure(
        "idle", "memory of an idle connection", (OURS, DISTRIBUTION_3, OLAREG, NGINX),
        (Metric("KiB/connection", False, Target(6), Target(3)),), _idle, 1, own=True,
    ),
    *_hot("tag", "GET manifest by tag", "GET", lambda _field: manifest_path("latest")),
    *_hot("digest", "GET manifest by digest", "GET", lambda field: manifest_path(field.content.latest_digest)),
    *_hot("head", "HEAD blob", "HEAD", lambda field: blob_path(field.content.small_digest)),
    *_hot("small", "GET 4 KiB blob", "GET", lambda field: blob_path(field.content.small_digest)),
    Measure(
        "workers", "GET manifest by tag, 64 connections", (OURS_2,),
        (Metric("% of the requests, the lesser", True, Target(25), Target(40)),), _workers,
    ),
    *(
        Measure(
            f"get-{clients}", f"GET 256 MiB, {clients} at once", READERS,
            (_per_gib(NGINX, 1.3, 0.8), Metric(MB_RATE, True)), partial(_download, clients=clients),
        )
        for clients in (1, 8)
    ),
    Measure(
        "get-tls", "GET 256 MiB over TLS", (OURS, DISTRIBUTION_3, OLAREG, NGINX),
        (Metric(MB_RATE, True, Target(0.9, NGINX), Target(1.05, NGINX)), _per_gib(DISTRIBUTION_3, 1.0, 0.8)),
        _download_tls, tls=True,
    ),
    Measure(
        "tag-tls", "GET manifest by tag over TLS, 32 connections", (OURS, DISTRIBUTION_3, OLAREG, NGINX),
        (Metric(RATE, True, Target(4, DISTRIBUTION_3), Target(8, DISTRIBUTION_3)), Metric(PER_REQUEST)), _hot_tls,
        tls=True,
    ),
    *(
        Measure(
            f"{way}-{clients}", f"{title} 256 MiB, {clients} at once", WRITERS,
            (_per_gib(DISTRIBUTION_3, 1.0, 0.75), Metric(MB_RATE, True)),
            partial(_upload, way=way, clients=clients),
        )
        for way, title in (("put", "PUT"), ("patch", "PATCH of 16 MiB each,"), ("stream", "streamed PATCH,"))
        for clients in (1, 4)
    ),
    Measure(
        "images", "200 small images, 8 clients", (OURS, OURS_2, UNSYNCED, DISTRIBUTION_3, OLAREG, DISTRIBUTION_2),
        (
            Metric("images/s", True, Target(3, DISTRIBUTION_3), Target(4, DISTRIBUTION_3)),
            Metric("CPU ms/image", False, None, Target(1 / 4, DISTRIBUTION_3)),
        ),
        _images,
    ),
    Measure("miss-tag", "first request of a manifest by tag", SHARERS, _MISS, partial(_misses, reference=tag_name),
            own=True),
    Measure("first", "first answer on a store of 100,000 blobs", SHARERS, (_time(), Metric("ms from its exec")), _first,
            own=True),
    Measure(
        "tags", "list of 10,000 tags", SHARERS, (_time(),),
        partial(_listing, path=f"/v2/{TAGGED}/tags/list", kind="tags", count=TAGS), own=True,
    ),
    Measure(
        "catalog", "catalogue of 10,000 repositories", (OURS, DISTRIBUTION_3), (_time(),),
        partial(_listing, path=f"/v2/_catalog?n={REPOSITORIES}", kind="repositories", count=REPOSITORIES), own=True,
    ),
    Measure(
        "hostile", "p99 beside 10,000 slow heads and 1,000 readers that never read",
        (OURS, OURS_2, DISTRIBUTION_3, OLAREG, NGINX),
        (Metric("p99 / quiet p99", False, None, None), Metric(P99), Metric(RATE, True)), _hostile,
        own=True,
    ),
)  # fmt: skip

#: Taken at the end of a run, from what ran all the time.
PEAK = ("peak memory", Metric("MiB", False, Target(1 / 2, DISTRIBUTION_3), Target(1 / 3.4, DISTRIBUTION_3)))
LAG = ("longest turn of the reactor", Metric("ms", False, None, Target(20)))
