"""The test server as a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txregistry.storage.elliptics.connection import Lost
from txregistry.storage.elliptics.session import Options, Sessions

ROOT = Path(__file__).parents[3]
PIECE = bytes(range(256)) * 4096


class NodeTests(SynchronousTestCase):
    def test_killed_and_back(self):
        """With all it had, also what lies in its folder; until it ends."""
        folder = self.mktemp()
        os.mkdir(folder)
        command = [sys.executable, "-m", "tests.storage.elliptics.node", "--version", "3.0", "--groups", "1", "2",
                   "--folder", tempfile.mkdtemp(dir=folder)]  # fmt: skip
        command[-1] = os.path.abspath(command[-1])
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        port = int(process.stdout.readline().split()[1])
        sessions = Sessions(Options((("127.0.0.1", port, 2),), timeout=5.0))
        self.addCleanup(sessions.close)
        with sessions.lend() as session:
            for _ in range(4):
                session.write(2, "a", [PIECE], 0x102)
        process.send_signal(signal.SIGUSR1)
        self.until(lambda: not self.reachable(sessions))
        process.send_signal(signal.SIGUSR2)
        self.until(lambda: self.reachable(sessions))
        with sessions.lend() as session:
            got = session.read(2, "a", len(PIECE) - 3, len(PIECE), checked=False)
            self.assertEqual((got.data, got.total), ((PIECE * 2)[len(PIECE) - 3 :][: len(PIECE)], 4 * len(PIECE)))

    def reachable(self, sessions):
        try:
            sessions.connect(2).close()
        except Lost:
            return False
        return True

    def until(self, found):
        for _ in range(2000):
            if found():
                return
            time.sleep(0.01)
        self.fail("that did not come")
