"""The loads: many small requests, large transfers, images pushed by several clients, and clients that mean no good."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

from bench.builds import built_load, installed
from bench.connection import MIB, Connection, Failed
from bench.content import (
    MANIFEST,
    NONCE,
    Content,
    blob_path,
    digest_of,
    make_config,
    make_manifest,
    manifest_path,
    push_large,
    push_small,
    remove_blob,
)
from bench.peers import ACCEPT, Server
from bench.processes import Cpu, Meter, owners_of_ports
from bench.table import USER, Values

RATE, PER_REQUEST, P99 = "requests/s", "CPU µs/request", "p99 ms"
MB_RATE, PER_GIB = "MB/s", "CPU s/GiB"
_PUSHED = "bench/pushed"


def cost(unit: str, cpu: Cpu, units: float) -> Values:
    """Processor time for each of so many units, which `unit` names."""
    return {unit: cpu.total / units, unit + USER: cpu.user / units}


def _per_request(cpu: Cpu, requests: float) -> Values:
    return cost(PER_REQUEST, cpu, requests / 1e6)


def small(server: Server, method: str, path: str, connections: int, seconds: float) -> Values:
    """Rate, processor time and latency of one request repeated on so many connections."""
    return _small(server, method, path, connections, seconds)[0]


def _small(
    server: Server, method: str, path: str, connections: int, seconds: float, halfway: Callable[[], None] = lambda: None
) -> tuple[Values, dict[int, int]]:
    """The same, and how many requests each connection made, by its port."""
    command = [built_load(), method, server.address.host, str(server.address.port), path]
    command += [str(connections), str(seconds), f"Accept: {ACCEPT}"]
    with Meter(server.program) as meter:
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds / 2)
        halfway()
        out, errors = load.communicate(timeout=seconds + 60)
    if load.returncode:
        raise Failed(f"load: {errors.strip()}")
    first, *rest = out.splitlines()
    requests, took, _p50, p99, refused, closed = map(float, first.split())
    if refused:
        raise Failed(f"{requests:.0f} answers, {refused:.0f} of them not 200, {closed:.0f} connections closed")
    values = {RATE: requests / took, P99: p99 / 1000}
    if requests:
        values |= _per_request(meter.cpu, requests)
    return values, {int(port): int(count) for port, count in (line.split() for line in rest)}


def small_tls(server: Server, path: str, connections: int, seconds: float) -> Values:
    """The same over TLS, by wrk."""
    command = [installed("wrk"), "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
    command += ["-H", f"Accept: {ACCEPT}", server.address.url + path]
    with Meter(server.program) as meter:
        out = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)s", out)
    if found is None or "Non-2xx" in out or "Socket errors" in out:
        raise Failed(f"wrk: {out[-300:]}")
    requests = float(found.group(1))
    return {RATE: requests / float(found.group(2)), **_per_request(meter.cpu, requests)}


def shares(server: Server, pids: Sequence[int], seconds: float) -> dict[int, int]:
    """How many of the requests of 64 connections each of these processes answered."""
    owners: dict[int, int] = {}

    def look() -> None:
        owners.update(owners_of_ports(pids, server.address.port))

    # Halfway all connections have to be there.
    counts = _small(server, "GET", manifest_path("latest"), 64, max(2.0, seconds), look)[1]
    answered = dict.fromkeys(pids, 0)
    for port, count in counts.items():
        if port in owners:
            answered[owners[port]] += count
    return answered


def each_once(server: Server, paths: Sequence[str]) -> Values:
    """Processor time of a request, each path asked for once, on one connection; half a hundred go before uncounted."""
    connection = Connection(server.address)
    for path in paths[:50]:
        connection.request("GET", path, [("Accept", ACCEPT)]).want(200)
    counted = paths[50:]
    with Meter(server.program) as meter:
        for path in counted:
            connection.request("GET", path, [("Accept", ACCEPT)]).want(200)
    connection.close()
    return {RATE: len(counted) / meter.wall, **_per_request(meter.cpu, len(counted))}


def download(server: Server, content: Content, clients: int, each: int) -> Values:
    """Rate and processor time of the large blob, fetched `each` times by each client."""
    connections = [Connection(server.address) for _ in range(clients)]

    def job(connection: Connection) -> None:
        for _ in range(each):
            connection.discard(blob_path(content.large_digest), content.size)

    for connection in connections:
        connection.request("GET", "/v2/")
    with Meter(server.program) as meter:
        _at_once([lambda c=each: job(c) for each in connections])  # type: ignore[misc] # bound in the loop
    for connection in connections:
        connection.close()
    return _moved(content.size * clients * each, meter)


def upload(server: Server, content: Content, way: str, clients: int) -> Values:
    """Rate and processor time of so many pushes at once, each of a new blob, which is removed again."""
    with open(content.large_file, "rb") as file:
        rest = file.read()[NONCE:]
        nonces = [os.urandom(NONCE) for _ in range(clients)]
        digests = []
        for nonce in nonces:
            hasher = hashlib.sha256(nonce)
            hasher.update(rest)
            digests.append("sha256:" + hasher.hexdigest())
        del rest
        os.sync()
        _touch(max(1024 * MIB, content.size * clients * 3 // 2))
        connections = [Connection(server.address, 300.0) for _ in range(clients)]

        def job(number: int) -> None:
            push_large(server, connections[number], _PUSHED, digests[number], file, content.size, nonces[number], way)

        with Meter(server.program) as meter:
            _at_once([lambda n=number: job(n) for number in range(clients)])  # type: ignore[misc] # as above
    for connection, digest in zip(connections, digests, strict=True):
        reply = connection.request("HEAD", blob_path(digest, _PUSHED)).want(200)
        if int(reply.headers.get("content-length", -1)) != content.size:
            raise Failed("HEAD tells another length than was pushed")
        remove_blob(server, connection, _PUSHED, digest)
        connection.close()
    return _moved(content.size * clients, meter)


def _moved(size: int, meter: Meter) -> Values:
    return {MB_RATE: size / meter.wall / 1e6, **cost(PER_GIB, meter.cpu, size / 2**30)}


def _at_once(jobs: Sequence[Callable[[], None]]) -> None:
    """Run the jobs in threads until all have ended; Failed with the first error."""
    errors: list[Exception] = []

    def body(job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise Failed(f"{type(errors[0]).__name__}: {errors[0]}")


def _touch(size: int) -> None:
    """Make the memory that the file cache takes next be there: the host of a virtual machine gives it at the first
    touch, and that fault would double the processor time of whoever writes.
    """
    with open("/proc/meminfo") as file:
        found = re.search(r"^MemAvailable:\s+(\d+)", file.read(), re.MULTILINE)
    free = int(found.group(1)) << 10 if found else 0
    with mmap.mmap(-1, max(MIB, min(size, free // 2))) as memory:
        for offset in range(0, len(memory), mmap.PAGESIZE):
            memory[offset] = 1


def push_images(server: Server, images: int, clients: int) -> Values:
    """Rate and processor time of small images, pushed by so many processes."""
    fork = multiprocessing.get_context("fork")
    gate, failures = fork.Barrier(clients + 1), fork.SimpleQueue()
    workers = [
        fork.Process(target=_image_client, args=(server, range(number, images, clients), gate, failures))
        for number in range(clients)
    ]
    for worker in workers:
        worker.start()
    gate.wait(60)
    with Meter(server.program) as meter:
        gate.wait(600)
        for worker in workers:
            worker.join()
    if not failures.empty():
        raise Failed(str(failures.get()))
    return {"images/s": images / meter.wall, **cost("CPU ms/image", meter.cpu, images / 1000)}


def _image_client(server: Server, numbers: range, gate: Barrier, failures: SimpleQueue[str]) -> None:
    source = random.Random(os.urandom(16))
    repository = f"bench/many{numbers.start}"
    work = []
    for number in numbers:
        blobs = [*(source.randbytes(10240) for _ in range(3)), make_config(source.random())]
        layers = [(digest_of(blob), len(blob)) for blob in blobs[:3]]
        manifest = make_manifest(blobs[3], layers)
        work.append((f"t{number}", [(digest_of(blob), blob) for blob in blobs], manifest))
    connection = Connection(server.address)
    gate.wait()
    try:
        for tag, contents, manifest in work:
            for digest, data in contents:
                push_small(server, connection, repository, digest, data)
            connection.request("PUT", manifest_path(tag, repository), [("Content-Type", MANIFEST)], manifest).want(201)
    except Exception as error:
        failures.put(f"{type(error).__name__}: {error}")
    gate.wait()


@contextmanager
def hostile(server: Server, path: str, slow: int, readers: int) -> Iterator[None]:
    """While it lasts, `hostile.py` has so many connections to the server."""
    command = [sys.executable, "-m", "bench.hostile", str(server.address.port), path, str(slow), str(readers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise Failed("the hostile clients could not all connect")
        yield
        if process.poll() is not None:
            raise Failed("the hostile clients have ended")
    finally:
        process.kill()
        process.wait()
