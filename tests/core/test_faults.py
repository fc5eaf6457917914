"""The disk is full, broken or read-only, at every single call: the client is told, and nothing is half done.

By default a sample of the calls is tried; TXREGISTRY_LONG=1 in the environment asks for all.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.core import scenarios
from tests.core.local_store import LONG, Ask, Store, asking, foreign_blobs, memory_folder, open_files
from txregistry.errors import Unavailable
from txregistry.storage import local_files
from txregistry.storage.disk import Disk
from txregistry.testing.pools import ManualPool

Scenario = Callable[[Ask], scenarios.Request]

#: Calls that take space, and those that change anything at all. An `open` counts if it may create.
GROWING = frozenset(["open", "pwritev", "make_directory", "link", "rename", "copy_range", "sync_file"])
CHANGING = GROWING | {"truncate", "touch", "remove_directory", "unlink", "sync_directory"}
#: All that may fail. A `close` that fails has closed nevertheless, and `free` is asked before anything is done.
ALL = frozenset(name for name in vars(Disk) if not name.startswith("_")) - {"close", "pread_cached"}

WRITES: tuple[Scenario, ...] = (
    scenarios.start_upload,
    scenarios.start_upload_sha512,
    scenarios.put_whole,
    scenarios.put_after_patch,
    scenarios.put_rest,
    scenarios.put_wrong,
    scenarios.patch_whole,
    scenarios.monolithic,
    scenarios.end_session,
    scenarios.put_manifest,
    scenarios.move_tag,
    scenarios.put_referrer,
    scenarios.mount,
    scenarios.delete_tag,
    scenarios.delete_manifest,
    scenarios.delete_blob,
)


class BrokenDisk(Disk):
    """A disk whose calls fail from some call on, all of them or just that one; `failed` counts."""

    def __init__(self) -> None:
        self.failed = 0
        self._error = self._left = 0
        self._names: frozenset[str] = frozenset()
        self._once = False

    def break_after(self, calls: int, error: int, names: frozenset[str], once: bool = False) -> None:
        """Let calls of these names fail with `error`, after so many that do not."""
        self._left, self._error, self._names, self._once = calls, error, names, once

    def repair(self) -> None:
        """Let every call work again."""
        self._error = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name not in vars(Disk):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._error and name in self._names and not self._only_reads(name, args):
                if self._left:
                    self._left -= 1
                else:
                    self.failed += 1
                    error = self._error
                    if self._once:
                        self._error = 0
                    raise OSError(error, os.strerror(error))
            return found(*args, **kwargs)

        return call

    def _only_reads(self, name: str, args: tuple[Any, ...]) -> bool:
        return name == "open" and "stat" not in self._names and not args[1] & os.O_CREAT


class FaultsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(local_files, "is_local", lambda _path: False)
        self.folder = memory_folder(self)
        self.template = f"{self.folder}/template"
        scenarios.fill(asking(Store("fresh", self.template)))

    def fail_at(
        self, scenario: Scenario, after: int, error: int, names: frozenset[str], once: bool, answers: set[int]
    ) -> int | None:
        """Let one request fail, and look at what it leaves behind; its status, None when nothing failed."""
        root = f"{self.folder}/store"
        shutil.copytree(self.template, root)
        asked = scenario(asking(Store("fresh", root)))
        disk = BrokenDisk()
        ask = asking(Store("broken", root, disk=disk))
        disk.break_after(after, error, names, once)
        response = ask(asked.method, asked.target, asked.headers, asked.body)
        disk.repair()
        with self.subTest(scenario=scenario.__name__, after=after, error=errno.errorcode[error]):
            if disk.failed:
                self.assertIn(response.code, answers | {asked.status}, response.body)
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertEqual(open_files(root), [])
            self.assertEqual(foreign_blobs(root), [])
            self.assertEqual(scenarios.missing(ask), [])
            asked.retry(ask)
            fresh = asking(Store("fresh", root))
            self.assertEqual(scenarios.missing(fresh), [])
            asked.retry(fresh)
            self.assertEqual(foreign_blobs(root), [])
        shutil.rmtree(root)
        return response.code if disk.failed else None

    def fail_everywhere(self, error: int, names: frozenset[str], once: bool, answer: int, stride: int) -> int:
        """Each request, failing at each `stride`th of its calls; how often one was told so."""
        told = tried = 0
        for number, scenario in enumerate(WRITES):
            after = number % stride
            while (code := self.fail_at(scenario, after, error, names, once, {answer})) is not None:
                after += stride
                tried += 1
                told += code == answer
        kind = errno.errorcode[error]
        print(f"{kind}: {tried} failed calls in {len(WRITES)} kinds of requests, {told} answered {answer}, 0 lost")
        return told

    def test_a_full_disk_is_507_and_takes_all_again_when_there_is_room(self) -> None:
        told = self.fail_everywhere(errno.ENOSPC, GROWING, False, 507, 1 if LONG else 4)
        self.assertGreater(told, 80 if LONG else 60)

    def test_a_failing_call_is_503_and_nothing_is_half_done(self) -> None:
        told = self.fail_everywhere(errno.EIO, ALL, True, 503, 1 if LONG else 11)
        self.assertGreater(told, 200 if LONG else 60)

    def test_a_write_that_fails_as_the_client_leaves_does_no_harm(self) -> None:
        asked = scenarios.put_whole(asking(Store("fresh", self.template)))
        disk, pool = BrokenDisk(), ManualPool()
        store = Store("broken", self.template, pool, disk)
        exchange = store.agent.start(asked.method, asked.target, length=len(asked.body) + 1)
        exchange.send(asked.body[:600_000])
        disk.break_after(0, errno.ENOSPC, frozenset(["pwritev"]))
        while not disk.failed:
            pool.work()
            if not disk.failed:
                pool.deliver()
        exchange.lose()
        pool.flush()
        disk.repair()
        for failure in self.flushLoggedErrors():  # Klein logs what a route raises after its client has left
            failure.trap(Unavailable)
        self.assertEqual(open_files(self.template), [])
        asked.retry(asking(Store("fresh", self.template)))
        self.assertEqual(scenarios.missing(asking(Store("fresh", self.template))), [])

    def test_a_broken_disk_is_503(self) -> None:
        for scenario in WRITES:
            self.assertEqual(self.fail_at(scenario, 0, errno.EIO, ALL, False, {503}), 503)

    def test_a_read_only_file_system_is_405_and_still_serves(self) -> None:
        for scenario in WRITES:
            self.assertEqual(self.fail_at(scenario, 0, errno.EROFS, CHANGING, False, {405}), 405)
        disk = BrokenDisk()
        ask = asking(Store("broken", self.template, disk=disk))
        disk.break_after(0, errno.EROFS, CHANGING)
        self.assertEqual(scenarios.missing(ask), [])
        print(f"EROFS: {len(WRITES)} kinds of requests answered 405, reads served")
