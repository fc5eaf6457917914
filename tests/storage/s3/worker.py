"""A server process in miniature: takes commands, one JSON list on a line, and answers each with a line of JSON.

    arguments: endpoint, bucket, access key and secret key
    ["hold", path, create]          hold a partial object                      -> its offset
    ["write", seed, size]           append so many bytes of that seed          -> the offset after them
    ["checkpoint", state]           -> null
    ["commit", path], ["cancel"], ["close"]                                    -> null
    ["patch", path, seed, size]     hold, write, checkpoint and close          -> the offset after it
    ["clock", seconds]              let so much time pass                      -> null

A storage error is answered with {"error": its class in the contract}.
"""

from __future__ import annotations

import json
import random
import sys

from twisted.internet.task import Clock

from tests.storage.s3.mock import bucket_at
from txregistry import errors
from txregistry.errors import StorageError
from txregistry.interfaces import IPartial
from txregistry.storage.s3.driver import S3Driver
from txregistry.testing.pools import ImmediatePool, result_of

BATCH = 256 * 1024


class Worker:
    """The commands, each a method."""

    def __init__(self, endpoint: str, bucket: str, key: str, secret: str) -> None:
        self._clock = Clock()
        self._clock.advance(1_000_000)
        held = bucket_at(endpoint, bucket, access_key=key, secret_key=secret)
        self._store = S3Driver(held, ImmediatePool(), self._clock)
        self._partial: IPartial | None = None

    def _held(self) -> IPartial:
        assert self._partial is not None, "nothing is held"
        return self._partial

    def do_clock(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def do_hold(self, path: str, create: bool) -> int:
        self._partial = result_of(self._store.partial(path, create))
        return self._partial.offset

    def do_write(self, seed: int, size: int) -> int:
        data = random.Random(seed).randbytes(size)
        partial = self._held()
        for begin in range(0, size, BATCH):
            result_of(partial.write([data[begin : begin + BATCH]], partial.offset))
        return partial.offset

    def do_checkpoint(self, state: str) -> None:
        result_of(self._held().checkpoint(state.encode()))

    def do_commit(self, path: str) -> None:
        result_of(self._held().commit(path))

    def do_cancel(self) -> None:
        result_of(self._held().cancel())

    def do_close(self) -> None:
        result_of(self._held().close())

    def do_patch(self, path: str, seed: int, size: int) -> int:
        self.do_hold(path, False)
        try:
            self.do_write(seed, size)
            self.do_checkpoint(f"after {self._held().offset}")
        finally:
            self.do_close()
        return self._held().offset

    def serve(self) -> None:
        """Until the end of the input."""
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                answer = getattr(self, f"do_{name}")(*arguments)
            except StorageError as error:
                kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
                answer = {"error": kinds[0]}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    Worker(*sys.argv[1:]).serve()
