"""The instruments themselves: a disk that fails, and the states after a power cut."""

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from txregistry.testing.faults import FaultyDisk, RecordingDisk, count_states, crash_states


class FaultyDiskTests(SynchronousTestCase):
    def test_fails_when_told(self):
        """The call after so many, among those that are meant, and only once."""
        root = os.path.abspath(self.mktemp())
        disk = FaultyDisk()
        full = OSError(errno.ENOSPC, "full")
        disk.fail("make_directory", full, after=1, only=lambda path: os.path.basename(str(path))[0] == "x")
        disk.make_directory(root)
        disk.make_directory(f"{root}/x1")
        disk.make_directory(f"{root}/y")
        error = self.assertRaises(OSError, disk.make_directory, f"{root}/x2")
        self.assertEqual(error.errno, errno.ENOSPC)
        disk.make_directory(f"{root}/x2")
        self.assertEqual(disk.calls[-1], ("make_directory", f"{root}/x2"))
        self.assertEqual(len(disk.calls), 5)


class CrashStateTests(SynchronousTestCase):
    def setUp(self):
        self.root = os.path.abspath(self.mktemp())
        os.makedirs(f"{self.root}/old")
        with open(f"{self.root}/old/file", "wb") as file:
            file.write(b"old")
        self.disk = RecordingDisk(self.root)

    def write(self, name, data, at=0):
        fd = self.disk.open(f"{self.root}/{name}", os.O_RDWR | os.O_CREAT)
        self.disk.pwritev(fd, [data[:1], data[1:]], at)
        return fd

    def last(self):
        """The trees that may be found at the end of all calls."""
        end = len(self.disk.log)
        return [state.files() for state in crash_states(self.disk) if state.calls == end]

    def all(self):
        return [state.files() for state in crash_states(self.disk)]

    def test_nothing_happened(self):
        self.assertEqual(self.all(), [{"old/file": b"old"}])

    def test_unsynced(self):
        """Name and bytes may be lost, each without the other."""
        self.disk.close(self.write("new", b"12"))
        found = self.all()
        self.assertIn({"old/file": b"old"}, found)
        self.assertIn({"old/file": b"old", "new": b""}, found)
        self.assertIn({"old/file": b"old", "new": b"12"}, found)

    def test_synced(self):
        """An fsync of the file keeps its bytes, one of the directory its name."""
        fd = self.write("new", b"12")
        self.disk.sync_file(fd)
        self.disk.mark("bytes")
        self.assertIn({"old/file": b"old"}, self.last() + self.all())
        self.disk.sync_directory(self.root)
        self.disk.mark("both")
        self.disk.close(fd)
        states = [state for state in crash_states(self.disk) if "both" in state.acknowledged]
        self.assertEqual([state.files() for state in states], [{"old/file": b"old", "new": b"12"}])

    def test_reordered(self):
        """Of two unsynced writes the later may be there without the earlier."""
        fd = self.write("old/file", b"11", 0)
        self.disk.pwritev(fd, [b"22"], 4)
        self.disk.close(fd)
        found = self.all()
        self.assertIn({"old/file": b"old\x0022"}, found)
        self.assertIn({"old/file": b"11d"}, found)
        self.assertIn({"old/file": b"11d\x0022"}, found)

    def test_renamed(self):
        """A rename may leave both names, and one file under them, but never none."""
        self.disk.rename(f"{self.root}/old/file", f"{self.root}/moved")
        found = self.all()
        self.assertEqual(sorted(map(sorted, found)), sorted([["old/file"], ["moved"], ["moved", "old/file"]]), found)
        self.disk.sync_directory(f"{self.root}/old")
        self.disk.mark("gone")
        states = [state.files() for state in crash_states(self.disk) if state.acknowledged]
        self.assertEqual(states, [{"moved": b"old"}])

    def test_directories(self):
        """What lies in a directory is lost with the directory's name."""
        self.disk.make_directory(f"{self.root}/dir")
        fd = self.write("dir/new", b"12")
        self.disk.sync_file(fd)
        self.disk.close(fd)
        self.disk.sync_directory(f"{self.root}/dir")
        self.disk.mark("not yet")
        states = [state.files() for state in crash_states(self.disk) if state.acknowledged]
        self.assertIn({"old/file": b"old"}, states)
        self.disk.sync_directory(self.root)
        self.disk.mark("now")
        states = [state.files() for state in crash_states(self.disk) if "now" in state.acknowledged]
        self.assertEqual(states, [{"old/file": b"old", "dir/new": b"12"}])

    def test_other_calls(self):
        """Links, cuts, copies and removals are followed; what is at the end is what the disk has."""
        fd = self.write("a", b"12345")
        self.disk.truncate(fd, 3)
        other = self.write("b", b"")
        self.disk.copy_range(fd, other, 3, 0)
        self.disk.close(fd)
        self.disk.close(other)
        self.disk.link(f"{self.root}/a", f"{self.root}/c")
        self.disk.unlink(f"{self.root}/a")
        self.disk.make_directory(f"{self.root}/d")
        self.disk.remove_directory(f"{self.root}/d")
        whole = [state for state in crash_states(self.disk) if state.how == "nothing lost"][-1]
        self.assertEqual(whole.files(), {"old/file": b"old", "b": b"123", "c": b"123"})
        self.assertEqual(sorted(os.listdir(self.root)), ["b", "c", "old"])

    def test_left_out(self):
        """Each kind of fsync can be taken out by hand, and no other."""
        for without, expected in ((None, "fcd"), ("file", "cd"), ("directory", "fc"), ("chain", "fd")):
            disk = RecordingDisk(self.root, without)
            noted = ""
            for kind in "cfd":
                before = len(disk.log)
                if kind == "c":
                    disk.make_directory(f"{self.root}/{without}")
                    before += 1
                    disk.sync_directory(self.root)
                elif kind == "f":
                    fd = disk.open(f"{self.root}/{without}/a", os.O_RDWR | os.O_CREAT)
                    before += 1
                    disk.sync_file(fd)
                    disk.close(fd)
                else:
                    disk.sync_directory(f"{self.root}/{without}")
                noted += kind if len(disk.log) > before else ""
            self.assertEqual(sorted(noted), sorted(expected), without)

    def test_materialise(self):
        """A state becomes a tree, in the place of what was there; one file under two names stays one."""
        self.disk.link(f"{self.root}/old/file", f"{self.root}/second")
        self.disk.make_directory(f"{self.root}/empty")
        target = os.path.abspath(self.mktemp())
        os.makedirs(f"{target}/rubbish")
        list(crash_states(self.disk))[-1].materialise(target)
        whole = [state for state in crash_states(self.disk) if state.how == "nothing lost"][-1]
        whole.materialise(target)
        self.assertEqual(sorted(os.listdir(target)), ["empty", "old", "second"])
        self.assertTrue(os.path.samefile(f"{target}/old/file", f"{target}/second"))

    def test_count(self):
        self.disk.close(self.write("new", b"12"))
        total, wrong = count_states(self.disk, lambda state: [] if "new" in state.files() else ["lost"])
        self.assertEqual(total, len(self.all()))
        self.assertTrue(0 < len(wrong) < total)
        self.assertIn("lost", wrong[0])
