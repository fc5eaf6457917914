"""How fast a layer goes through the registry to S3 and back, against boto3 making the same requests without it.

    python -m bench.s3 [--size MIB] [--rounds N] [--server versitygw|minio]

Run it from the source tree, which PYTHONPATH names; it needs boto3, the server (tests/clients/tools.py builds it) and
three times the size as free disk. MinIO speaks TLS. The server, the registry and the client share the machine.

Each round pushes and pulls a layer through the registry (POST, PATCH and PUT; GET), and lets boto3, as it is without
configuration, do the same: put the segments, three at once, let the server copy them together and remove them; one
streaming GET. A pull is measured twice: with the digest checked, as every client of a registry does, and without, when
boto3 does nothing but drop bytes. Medians of the rounds, which take turns, are printed as one table in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.long.server import Server, ask, begin
from tests.services.s3 import KEY, REGION, SECRET, MinioServer, S3Server
from txregistry.storage.s3.partial import PARALLEL
from txregistry.storage.s3.segments import segment_size

MIB = 1 << 20
REPOSITORY, BUCKET = "bench", "bench"
SERVERS = {"versitygw": S3Server, "minio": MinioServer}
#: What is measured: the method's name, its argument if it has one, and what it is called.
WAYS = (("up", None, "up"), ("down", True, "down, digest checked"), ("down", False, "down, bytes dropped"))


@dataclass
class Runs:
    """The rounds of one way: seconds on the wall, and seconds of processor time of who spoke S3."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def note(self, work: Callable[[], None], cpu: Callable[[], float]) -> None:
        """Do it once more."""
        before, began = cpu(), time.monotonic()
        work()
        self.wall.append(time.monotonic() - began)
        self.cpu.append(cpu() - before)


class Through:
    """A layer through the registry."""

    def __init__(self, server: Server, data: bytes) -> None:
        self._server, self._data = server, data
        self._digest = "sha256:" + hashlib.sha256(data).hexdigest()

    def cpu(self) -> float:
        """Processor time of the registry so far."""
        return sum(self._server.cpu())

    def up(self) -> None:
        """Push it."""
        connection = self._server.connect()
        location = begin(connection, REPOSITORY)
        assert ask(connection, "PATCH", location, self._data)[0] == 202
        assert ask(connection, "PUT", f"{location}?digest={self._digest}")[0] == 201
        connection.close()

    def down(self, checked: bool) -> None:
        """Pull it."""
        connection = self._server.connect()
        connection.request("GET", f"/v2/{REPOSITORY}/blobs/{self._digest}")
        response = connection.getresponse()
        assert response.status == 200
        assert _drained(response, checked) in (self._digest, str(len(self._data)))
        connection.close()


class Alone:
    """The same requests by boto3, with its own defaults."""

    def __init__(self, server: S3Server, data: bytes) -> None:
        self._data = data
        self._digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            verify=server.ca,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=50),
        )

    @staticmethod
    def cpu() -> float:
        """Processor time of this process so far."""
        return time.process_time()

    def up(self) -> None:
        """Put the segments, and let the server make one object of them."""
        client, spans, at = self._client, [], 0
        while at < len(self._data):
            size = segment_size(at)
            spans.append((f"segments/{at}", at, at + size))
            at += size
        with ThreadPoolExecutor(PARALLEL) as threads:

            def put(span: tuple[str, int, int]) -> None:
                client.put_object(Bucket=BUCKET, Key=span[0], Body=self._data[span[1] : span[2]])

            list(threads.map(put, spans))
            target = {"Bucket": BUCKET, "Key": "whole"}
            upload = client.create_multipart_upload(**target)["UploadId"]

            def copy(part: tuple[int, tuple[str, int, int]]) -> dict[str, object]:
                number, (name, _, _) = part
                source = {"Bucket": BUCKET, "Key": name}
                answer = client.upload_part_copy(**target, UploadId=upload, PartNumber=number, CopySource=source)
                return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

            parts = list(threads.map(copy, enumerate(spans, 1)))
            client.complete_multipart_upload(**target, UploadId=upload, MultipartUpload={"Parts": parts})
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name, _, _ in spans]})

    def down(self, checked: bool) -> None:
        """Get the object."""
        body = self._client.get_object(Bucket=BUCKET, Key="whole")["Body"]
        assert _drained(body, checked) in (self._digest, str(len(self._data)))


def _drained(stream: Any, checked: bool) -> str:
    """Read a stream to its end, in pieces; its digest or its size."""
    size, found = 0, hashlib.sha256()
    while piece := stream.read(MIB):
        size += len(piece)
        if checked:
            found.update(piece)
    return f"sha256:{found.hexdigest()}" if checked else str(size)


def measure(server_class: type[S3Server], folder: Path, size: int, rounds: int) -> dict[str, Runs]:
    """The rounds by what was done and who did it; the two take turns."""
    store = server_class(str(folder / "s3"))
    store.make_bucket(BUCKET)
    server = Server(str(folder / "registry"), config=store.config(BUCKET))
    server.start()
    try:
        data = os.urandom(size)
        through, alone = Through(server, data), Alone(store, data)
        runs = {f"{name} {who}": Runs() for _, _, name in WAYS for who in ("through", "alone")}
        for number in range(rounds + 1):
            noted = runs if number else {name: Runs() for name in runs}  # the first is to warm up
            for method, argument, name in WAYS:
                for who, side in (("through", through), ("alone", alone)):
                    call = getattr(side, method)
                    noted[f"{name} {who}"].note(call if argument is None else partial(call, argument), side.cpu)
        sys.stderr.write(f"peak RSS of the registry: {server.peak():.0f} MB\n")
        return runs
    finally:
        server.stop()
        store.stop()


def table(runs: dict[str, Runs], size: int) -> str:
    """The medians, as Markdown."""
    lines = [
        f"| {size >> 20} MiB | txregistry, MiB/s | boto3, MiB/s | ratio | txregistry, CPU s/GiB | boto3, CPU s/GiB |",
        "|---|---|---|---|---|---|",
    ]
    for _, _, way in WAYS:
        through, alone = runs[f"{way} through"], runs[f"{way} alone"]
        ratio = statistics.median(b / a for a, b in zip(through.wall, alone.wall, strict=True))
        rates = [size / MIB / statistics.median(each.wall) for each in (through, alone)]
        cpus = [statistics.median(each.cpu) * (1 << 30) / size for each in (through, alone)]
        lines.append(f"| {way} | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.2f} | {cpus[0]:.2f} | {cpus[1]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure as the arguments say, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="of the layer, in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=sorted(SERVERS), default="versitygw")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        runs = measure(SERVERS[given.server], Path(folder), given.size * MIB, given.rounds)
    sys.stdout.write(table(runs, given.size * MIB) + "\n")


if __name__ == "__main__":
    main()
