"""A large store, written straight to the disk in the layout of CNCF distribution, which several servers share.

It is kept in the cache between runs: 100,000 blobs, a repository of 10,000 tags, 10,000 repositories.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile

from bench.content import make_config, make_manifest
from tests.clients.tools import cache_directory

BLOBS, TAGS, REPOSITORIES = 100_000, 10_000, 10_000
TAGGED = "bench/tagged"
_V2 = "docker/registry/v2"
#: Another content needs another number.
_VERSION = 1


def tag_name(number: int) -> str:
    """One of the tags."""
    return f"v{number:05}"


def large_store() -> str:
    """The folder of the store; written now unless the cache has it, which takes about a minute."""
    cache = cache_directory()
    path = os.path.join(cache, f"bench-store-{_VERSION}")
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        work = tempfile.mkdtemp(dir=cache)
        try:
            _write_store(work)
            os.rename(work, path)
        except BaseException:
            shutil.rmtree(work)
            raise
    return path


def _write_store(root: str) -> None:
    for number in range(BLOBS):
        _blob(root, b"blob %d" % number)
    config = make_config()
    layer = b"blob 0"
    _blob(root, config)
    for number in range(TAGS):
        # Each tag names a manifest of its own.
        raw = make_manifest(config, [(f"sha256:{_blob_name(layer)}", len(layer))]) + b"\n" * (number + 1)
        _tag(root, TAGGED, tag_name(number), _blob(root, raw))
    for data in (config, layer):
        _link(f"{root}/{_V2}/repositories/{TAGGED}/_layers/sha256/{_blob_name(data)}", _blob_name(data))
    revision = _blob(root, make_manifest(config, [(f"sha256:{_blob_name(layer)}", len(layer))]))
    for number in range(REPOSITORIES - 1):
        _tag(root, f"bench/r{number // 100:03}/s{number % 100:02}", "latest", revision)


def _blob_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(root: str, data: bytes) -> str:
    name = _blob_name(data)
    folder = f"{root}/{_V2}/blobs/sha256/{name[:2]}/{name}"
    os.makedirs(folder)
    with open(f"{folder}/data", "wb") as file:
        file.write(data)
    return name


def _tag(root: str, repository: str, tag: str, revision: str) -> None:
    base = f"{root}/{_V2}/repositories/{repository}/_manifests"
    _link(f"{base}/revisions/sha256/{revision}", revision)
    _link(f"{base}/tags/{tag}/current", revision)
    _link(f"{base}/tags/{tag}/index/sha256/{revision}", revision)


def _link(folder: str, name: str) -> None:
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/link", "w") as file:
        file.write(f"sha256:{name}")
