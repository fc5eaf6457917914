"""The server of these tests as a process: `python -m tests.storage.elliptics.node --port 1025 --groups 1`.

It says `ready PORT` on standard output when it listens. SIGUSR1 kills the node in it, with all connections, and SIGUSR2
brings that back with all it had; SIGTERM and SIGINT end the process, and nothing is left. Layers lie in memory, or with
`--folder` in files there without names.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile

from tests.storage.elliptics.server import VERSIONS, Server, Store


class OnDisk:
    """Bytes in a file, of which as much is read as is asked for."""

    def __init__(self, folder: str, data: bytes) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it goes with the object
        self._size = 0
        self += data

    def __len__(self) -> int:
        return self._size

    def __iadd__(self, data: bytes) -> OnDisk:
        self._size += os.pwrite(self._file.fileno(), data, self._size)
        return self

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._file.fileno(), stop - start, start)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--groups", type=int, nargs="+", default=[1], help="of 2.26 and 3.0 there may be several")
    parser.add_argument("--version", choices=sorted(VERSIONS), default="2.24")
    parser.add_argument("--filesystem", action="store_true", help="as the filesystem back-end, instead of eblob")
    parser.add_argument("--folder", help="where layers lie; absent, in memory")
    options = parser.parse_args(arguments)
    wishes = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, wishes)
    stores = {group: Store() for group in options.groups}
    server = Server(options.version, stores, options.filesystem, options.port)
    if options.folder is not None:
        server.large = lambda data: OnDisk(options.folder, data)
    server.start()
    print(f"ready {server.port}", flush=True)
    while (wish := signal.sigwait(wishes)) in (signal.SIGUSR1, signal.SIGUSR2):
        if wish == signal.SIGUSR2 and not server.is_up:
            server.start()
        elif wish == signal.SIGUSR1:
            server.stop()
    server.stop()


if __name__ == "__main__":
    main()
