"""What every server holds, and how it is pushed: the way of a client, over the OCI distribution API."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from typing import BinaryIO

from bench.connection import MIB, Connection, Failed, location, with_digest
from bench.peers import ACCEPT, Server

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCTETS = ("Content-Type", "application/octet-stream")
REPOSITORY = "bench/image"
#: A pushed blob begins with so many random bytes, and so is one that the server has not seen.
NONCE = 64
#: How much one PATCH carries.
PIECE = 16 * MIB


def digest_of(data: bytes) -> str:
    """The sha256 digest of some bytes, as `sha256:HEX`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_path(digest: str, repository: str = REPOSITORY) -> str:
    """Where a blob is."""
    return f"/v2/{repository}/blobs/{digest}"


def manifest_path(reference: str, repository: str = REPOSITORY) -> str:
    """Where a manifest is, by tag or by digest."""
    return f"/v2/{repository}/manifests/{reference}"


def make_manifest(config: bytes, layers: list[tuple[str, int]]) -> bytes:
    """An image manifest with these layers, each digest and size."""
    kind = "application/vnd.oci.image"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": digest_of(config), "size": len(config)},
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": digest, "size": size} for digest, size in layers
            ],
        }
    ).encode()


def make_config(number: float = 0) -> bytes:
    """The configuration of an image; numbers make different ones."""
    rootfs = {"type": "layers", "diff_ids": list[str]()}
    return json.dumps({"architecture": "amd64", "os": "linux", "n": number, "rootfs": rootfs}).encode()


class Content:
    """Two images: one of three small layers, one with a 4 KiB blob and a large one, which lies in `folder`."""

    def __init__(self, folder: str, large_mib: int) -> None:
        source = random.Random(20140120)
        self.size = large_mib * MIB
        self.large_file = os.path.join(folder, "large")
        self.small = source.randbytes(4096)
        layers = [source.randbytes(10240) for _ in range(3)]
        config = make_config()
        hasher = hashlib.sha256()
        with open(self.large_file, "wb") as file:
            for _ in range(large_mib):
                piece = source.randbytes(MIB)
                hasher.update(piece)
                file.write(piece)
        self.large_digest = "sha256:" + hasher.hexdigest()
        self.small_digest = digest_of(self.small)
        self.latest = make_manifest(config, [(digest_of(layer), len(layer)) for layer in layers])
        self.latest_digest = digest_of(self.latest)
        self._large = make_manifest(config, [(self.small_digest, 4096), (self.large_digest, self.size)])
        self._blobs = {digest_of(data): data for data in (config, *layers, self.small)}

    def push(self, server: Server) -> None:
        """Push it all, and see that the very bytes come back."""
        connection = Connection(server.address)
        for digest, data in self._blobs.items():
            push_small(server, connection, REPOSITORY, digest, data)
        with open(self.large_file, "rb") as file:
            push_large(server, connection, REPOSITORY, self.large_digest, file, self.size)
        for tag, raw in (("latest", self.latest), ("large", self._large)):
            connection.request("PUT", manifest_path(tag), [("Content-Type", MANIFEST)], raw).want(201)
        connection.close()
        self.check(server)

    def check(self, server: Server) -> None:
        """Failed unless the server has it byte for byte."""
        connection = Connection(server.address)
        for path, digest in (
            (manifest_path("latest"), self.latest_digest),
            (manifest_path(self.latest_digest), self.latest_digest),
            (blob_path(self.small_digest), self.small_digest),
            (blob_path(self.large_digest), self.large_digest),
        ):
            if digest_of(connection.request("GET", path, [("Accept", ACCEPT)]).want(200).body) != digest:
                raise Failed(f"{path}: other bytes came back")
        connection.close()

    def lay_out(self, root: str) -> None:
        """Write it as files whose paths are those of the API, for a server of files."""
        base = os.path.join(root, "v2", REPOSITORY)
        os.makedirs(os.path.join(base, "blobs"))
        os.mkdir(os.path.join(base, "manifests"))
        shutil.copyfile(self.large_file, os.path.join(base, "blobs", self.large_digest))
        manifests = {"latest": self.latest, self.latest_digest: self.latest, "large": self._large}
        for kind, files in (("blobs", self._blobs), ("manifests", manifests)):
            for name, data in files.items():
                with open(os.path.join(base, kind, name), "wb") as file:
                    file.write(data)


def push_small(server: Server, connection: Connection, repository: str, digest: str, data: bytes) -> None:
    """HEAD, POST, PATCH and PUT, as docker does for each blob that is not there."""
    connection.request("HEAD", blob_path(digest, repository)).want(404)
    begun = connection.request("POST", f"/v2/{repository}/blobs/uploads/").want(202)
    written = connection.request("PATCH", location(server.address, begun), [OCTETS], data).want(202, 204)
    connection.request("PUT", with_digest(location(server.address, written), digest), [OCTETS]).want(201)


def push_large(
    server: Server,
    connection: Connection,
    repository: str,
    digest: str,
    file: BinaryIO,
    size: int,
    nonce: bytes = b"",
    way: str = "put",
) -> None:
    """Push `nonce` and then what follows in the file, `size` bytes in all.

    `way` is `put` (POST and PUT), `patch` (POST, PATCH pieces, PUT) or `stream` (POST, one chunked PATCH, PUT).
    """
    where = location(server.address, connection.request("POST", f"/v2/{repository}/blobs/uploads/").want(202))
    connection.socket.setblocking(True)

    def send(offset: int, count: int) -> None:
        if offset < len(nonce):
            head = nonce[offset : offset + count]
            connection.socket.sendall(head)
            offset, count = offset + len(head), count - len(head)
        while count:
            sent = os.sendfile(connection.socket.fileno(), file.fileno(), offset, count)
            offset, count = offset + sent, count - sent

    if way == "put":
        connection.send_head("PUT", with_digest(where, digest), [OCTETS, ("Content-Length", size)])
        send(0, size)
        connection.answer("PUT").want(201)
        return
    if way == "patch":
        for offset in range(0, size, PIECE):
            count = min(PIECE, size - offset)
            ranges = ("Content-Range", f"{offset}-{offset + count - 1}")
            connection.send_head("PATCH", where, [OCTETS, ("Content-Length", count), ranges])
            send(offset, count)
            where = location(server.address, connection.answer("PATCH").want(202, 204))
    else:
        connection.send_head("PATCH", where, [OCTETS, ("Transfer-Encoding", "chunked")])
        for offset in range(0, size, MIB):
            count = min(MIB, size - offset)
            connection.socket.sendall(b"%x\r\n" % count)
            send(offset, count)
            connection.socket.sendall(b"\r\n")
        connection.socket.sendall(b"0\r\n\r\n")
        where = location(server.address, connection.answer("PATCH").want(202, 204))
    connection.request("PUT", with_digest(where, digest), [OCTETS]).want(201)


def remove_blob(server: Server, connection: Connection, repository: str, digest: str) -> None:
    """Delete a blob over the API, and its bytes beneath the server, which would keep them until it collects garbage."""
    connection.request("DELETE", blob_path(digest, repository))
    name = digest.partition(":")[2]
    for path in (
        f"{server.store}/docker/registry/v2/blobs/sha256/{name[:2]}/{name}",
        f"{server.store}/{repository}/blobs/sha256/{name}",
    ):
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)
