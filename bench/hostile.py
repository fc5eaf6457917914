"""`python -m bench.hostile PORT PATH SLOW READERS`: clients that mean no good, until they are killed.

SLOW connections send the head of a request a byte at a time and never end it; READERS ask for PATH and read nothing.
What the server closes is opened again. It says `ready` when all are there.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
from contextlib import suppress

#: Each slow connection sends a byte once in so many seconds, and a reader is looked at as often.
PERIOD = 4.0
_SLICES = 40


def _slow(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 30.0)
    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: bench\r\nX-Slow: ")
    return connection


def _reader(port: int, path: str) -> socket.socket:
    connection = socket.socket()
    # Before the connection is made, for a small window.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30.0)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    return connection


def _is_closed(connection: socket.socket) -> bool:
    """Whether a connection from which nothing is to be read has been ended."""
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def main() -> None:
    """Open them all and keep them busy."""
    port, path, slow, readers = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reading = [_reader(port, path) for _ in range(readers)]
    dribbling = [_slow(port) for _ in range(slow)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    turn = 0
    while True:
        time.sleep(PERIOD / _SLICES)
        turn = (turn + 1) % _SLICES
        for number in range(turn, slow, _SLICES):
            try:
                dribbling[number].send(b"x", socket.MSG_DONTWAIT)
            except OSError:
                with suppress(OSError):
                    dribbling[number].close()
                    dribbling[number] = _slow(port)
        for number in range(turn, readers, _SLICES):
            # A reader has bytes waiting, or was reset.
            if _is_closed(reading[number]):
                with suppress(OSError):
                    reading[number].close()
                    reading[number] = _reader(port, path)


if __name__ == "__main__":
    main()
