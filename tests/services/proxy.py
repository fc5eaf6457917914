"""A TCP proxy on the loopback interface that cuts connections and holds bytes back when it is told to."""

import contextlib
import socket
import threading
import time


class Proxy:
    """Forwards a free port, `port`, to another one.

    `pause` is for how many seconds each piece of an answer is held back, `silent` whether answers are kept for good.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._cuts: dict[bool, tuple[int, int, int]] = {}  # direction: bytes, times, and bytes left
        self._open: set[socket.socket] = set()
        self.pause = 0.0
        self.silent = False
        self.cuts = 0  # that were made
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, up: bool, after: int, times: int = 1) -> None:
        """Cut a connection after so many bytes more to the server (`up`) or from it, and again after as many more."""
        with self._lock:
            self._cuts[up] = (after, times, after)

    def mend(self) -> None:
        """Do nothing of the kind any more."""
        with self._lock:
            self._cuts.clear()
        self.pause, self.silent = 0.0, False

    def stop(self) -> None:
        """End it and all connections."""
        self._end(self._listener)
        with self._lock:
            ends = list(self._open)
        for end in ends:
            self._end(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for up, source, target in ((True, client, server), (False, server, client)):
                threading.Thread(target=self._forward, args=(up, source, target), daemon=True).start()

    def _forward(self, up: bool, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                allowed = self._allowed(up, len(data))
                if not up:
                    time.sleep(self.pause)
                    while self.silent:
                        time.sleep(0.05)
                target.sendall(data[:allowed])
                if allowed < len(data):
                    break
        for end in (source, target):
            self._end(end)

    def _allowed(self, up: bool, size: int) -> int:
        """How many of so many bytes pass; fewer if the connection is to be cut after them."""
        with self._lock:
            if up not in self._cuts:
                return size
            after, times, left = self._cuts[up]
            if size <= left:
                self._cuts[up] = (after, times, left - size)
                return size
            self.cuts += 1
            self._cuts[up] = (after, times - 1, after)
            if times == 1:
                del self._cuts[up]
            return left

    def _end(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
        with self._lock:
            self._open.discard(end)
