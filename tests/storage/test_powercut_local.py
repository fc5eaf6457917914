"""What the local driver acknowledged is whole in every state that a power cut may leave."""

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.wall import WallClock
from txregistry.errors import NotFound, StorageError
from txregistry.storage.local import LocalDriver
from txregistry.testing.faults import SYNCS, RecordingDisk, count_states, crash_states
from txregistry.testing.pools import ImmediatePool, result_of


class PowerCutTests(SynchronousTestCase):
    def setUp(self):
        self.root = os.path.abspath(self.mktemp())
        # The states are many and small: in memory, where there is a file system for that.
        self.found = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.addCleanup(shutil.rmtree, self.found)

    def start(self, without=None):
        self.disk = RecordingDisk(self.root, without)
        self.driver = LocalDriver(self.root, ImmediatePool(), WallClock(), self.disk)
        self.driver.prepare()

    def put(self, path, data, **conditions):
        self.disk.mark(("trying", path, data))
        result_of(self.driver.put(path, data, **conditions))
        self.disk.mark(("there", path, data))

    def remove(self, path, *below):
        for each in below or (path,):
            self.disk.mark(("trying", each, None))
        result_of(self.driver.remove(path))
        for each in below or (path,):
            self.disk.mark(("there", each, None))

    def upload(self, uuid, path, pieces):
        data = b"".join(pieces)
        partial = result_of(self.driver.partial(f"uploads/{uuid}", create=True))
        for piece in pieces:
            result_of(partial.write([piece], partial.offset))
            result_of(partial.checkpoint(b"%d" % partial.offset))
            self.disk.mark(("session", f"uploads/{uuid}", data))
        self.disk.mark(("trying", path, data))
        result_of(partial.commit(path))
        self.disk.mark(("there", path, data))
        result_of(partial.close())

    def check(self, state):
        """Every path has what was acknowledged last, or what was tried since."""
        state.materialise(self.found)
        driver = LocalDriver(self.found, ImmediatePool(), WallClock())
        allowed = {}
        sessions = {}
        for kind, path, data in state.acknowledged:
            if kind == "there":
                allowed[path] = [data]
            elif kind == "trying":
                allowed.setdefault(path, [None]).append(data)
            else:
                sessions[path] = data
        wrong = []
        found = self.contents(driver, allowed)
        for path, possible in allowed.items():
            if (None if found[path] is NotFound else found[path]) not in possible:
                wrong.append(f"{path} has {found[path]!r}, not one of {possible!r}")
        for path, data in sessions.items():
            wrong += self.check_session(driver, path, data, allowed)
        return wrong

    def check_session(self, driver, path, data, allowed):
        """A session that is found goes on at an offset of its own bytes, and harms nothing that is committed."""
        try:
            partial = result_of(driver.partial(path))
        except NotFound:
            return []
        pieces: list[bytes] = []
        result_of(partial.read(pieces.extend))
        found = b"".join(pieces)
        wrong = []
        if found != data[: partial.offset] or partial.state != (b"%d" % partial.offset if partial.offset else b""):
            wrong.append(f"{path} goes on at {partial.offset} with {found!r} and state {partial.state!r}")
        before = self.contents(driver, allowed)
        result_of(partial.write([b"X" * 100], partial.offset))
        result_of(partial.close())
        if self.contents(driver, allowed) != before:
            wrong.append(f"{path} writes into something committed")
        return wrong

    def contents(self, driver, paths):
        """What each of the paths has, an error included."""
        found = {}
        for path in paths:
            try:
                found[path] = result_of(driver.read(path, 1 << 20))[0]
            except StorageError as error:
                found[path] = type(error)
        return found

    def scenario(self):
        """Puts, overwrites, uploads, a takeover, a move, removals, and what somebody else wrote."""
        self.put("v2/blobs/aa/data", b"one")
        self.put("v2/tags/latest/current/link", b"first")
        self.upload("u1", "v2/blobs/bb/data", [b"0123", b"4567"])
        self.put("v2/tags/latest/current/link", b"second")
        self.put("v2/created", b"once", if_absent=True)
        version = result_of(self.driver.read("v2/created", 10))[1]
        self.put("v2/created", b"twice", if_match=version)
        self.remove("v2/tags/latest", "v2/tags/latest/current/link")
        self.put("v2/tags/latest/current/link", b"third")
        self.remove("v2/blobs/aa/data")
        self.written_by_another()
        self.moved()
        self.taken_over()

    def written_by_another(self):
        """Directories that a session made, and a file that an old server wrote, without any fsync."""
        result_of(result_of(self.driver.partial("v2/repository/_uploads/x", create=True)).close())
        self.put("v2/repository/_layers/link", b"link")
        self.disk.mark(("trying", "v2/old/blob/data", b""))
        self.disk.mark(("trying", "v2/old/blob/data", b"old"))
        for directory in ("v2/old", "v2/old/blob"):
            self.disk.make_directory(f"{self.root}/{directory}")
        fd = self.disk.open(f"{self.root}/v2/old/blob/data", os.O_RDWR | os.O_CREAT)
        self.disk.pwritev(fd, [b"old"], 0)
        self.disk.close(fd)
        result_of(self.driver.settle("v2/old/blob/data"))
        self.disk.mark(("there", "v2/old/blob/data", b"old"))

    def moved(self):
        self.put("v2/from/a", b"moved")
        self.disk.mark(("trying", "v2/from/a", None))
        self.disk.mark(("trying", "v2/to/b", b"moved"))
        result_of(self.driver.move("v2/from/a", "v2/to/b"))
        self.disk.mark(("there", "v2/from/a", None))
        self.disk.mark(("there", "v2/to/b", b"moved"))

    def taken_over(self):
        """What the stalled holder wrote after its checkpoint never gets under a later checkpoint of the other."""
        stalled = result_of(self.driver.partial("uploads/u2", create=True))
        self.disk.mark(("session", "uploads/u2", b"abcdEFGH"))
        result_of(stalled.write([b"abcd"], 0))
        result_of(stalled.checkpoint(b"4"))
        result_of(stalled.write([b"xxxx"], 4))
        os.utime(f"{self.root}/uploads/u2/data", (1, 1))
        taker = result_of(self.driver.partial("uploads/u2"))
        result_of(stalled.close())
        result_of(taker.write([b"EFGH"], 4))
        result_of(taker.checkpoint(b"8"))
        self.disk.mark(("trying", "v2/taken", b"abcdEFGH"))
        result_of(taker.commit("v2/taken"))
        self.disk.mark(("there", "v2/taken", b"abcdEFGH"))

    def test_nothing_acknowledged_is_lost(self):
        self.start()
        self.scenario()
        total, wrong = count_states(self.disk, self.check)
        self.assertEqual(wrong, [])
        self.assertGreater(total, 1000)

    def test_each_fsync_is_needed(self):
        """The same with one kind of fsync left out: somebody notices."""
        for without in SYNCS:
            self.start(without)
            self.scenario()
            found = any(self.check(state) for state in crash_states(self.disk))
            self.assertTrue(found, f"nobody notices a missing fsync: {without}")
            shutil.rmtree(self.root)
