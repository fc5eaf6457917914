"""The listening port and its connections: large reads, answers in the turn that read their request, and files.

Twisted's own transports would do all but `send_file`, and all that stands above works on them too; a `ssl:` or `unix:`
endpoint has them. What is here saves system calls and copies: an answer that is written while its request is being read
leaves at once, without asking the reactor when it may, and a file goes from the page cache to the socket in the kernel.
"""

# Twisted's transports have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.tcp import Port, Server
from twisted.python.failure import Failure

from txregistry.web.pace import Pace

#: Bytes of files that are sent before it is the turn of those who want something small: by one connection, by all in
#: about one turn of the reactor, and by each of however many.
TURN, ALL, LEAST = 1 << 20, 1 << 24, 1 << 18
#: What `sendfile` says of a file that it cannot send, or not read.
_NOT_SENDABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO, errno.EOVERFLOW)

#: Where the kernel's `struct tcp_info` has `tcpi_bytes_acked`, since Linux 4.1.
_ACKNOWLEDGED = slice(120, 128)

#: What doRead and doWrite return: why the connection has ended, or None.
Lost = ConnectionDone | ConnectionLost | None


@dataclass(slots=True)
class File:
    """A part of a file that is being sent: from offset `at`, which grows, up to `stop`; see `send_file`."""

    fd: int
    at: int
    stop: int
    went: Callable[[int], object]
    done: Deferred[None]


class RegistryServer(Server):
    """A TCP connection.

    It reads 256 KiB at a time, four times what Twisted's does: a tenth less CPU for an upload. It sends a MiB at a
    time, eight times as much: a quarter less for what comes from the storage in chunks.
    """

    bufferSize = 1 << 18
    SEND_LIMIT = 1 << 20

    server: Any  # a RegistryPort

    _reading = False
    _wanted = False
    _file: File | None = None
    _pace: Pace | None = None

    # -- one turn ----------------------------------------------------------------------------------------------

    def startWriting(self) -> None:
        """Ask to be told when bytes can be sent; while bytes are being read, they are sent at their end."""
        if self._reading:
            self._wanted = True
        else:
            super().startWriting()

    def doRead(self) -> Lost:  # type: ignore[override]  # Twisted's annotation is that of an empty place-holder
        """Read, and send what is written meanwhile."""
        self._reading, self._wanted = True, False
        try:
            lost = self._receive()
        finally:
            self._reading = False
        if self._wanted and self.connected:
            if lost is None:
                lost = self.doWrite()
            if self.connected and self._has_unsent():
                super().startWriting()
        return lost

    def _receive(self) -> Lost:
        return super().doRead()

    def doWrite(self) -> Lost:  # type: ignore[override]  # likewise
        """Send what fits: what was written, then the file."""
        lost: Lost = None
        if self._file is None or self._tempDataLen or self.dataBuffer:
            lost = super().doWrite()
        if lost is None and self._file is not None and not self._tempDataLen and not self.dataBuffer:
            lost = self._send_file_part(self._file)
        if lost is None and self.connected:
            self._mind_pace()
        return lost

    def _has_unsent(self) -> bool:
        """Whether the client has to take something before this connection can go on, or end."""
        return bool(self._tempDataLen or self.dataBuffer or self._file is not None or self.disconnecting)

    def _mind_pace(self) -> None:
        """Watch how fast the client takes what is still here."""
        if not self._has_unsent():
            if self._pace is not None:
                self._pace.rest()
            return
        if self._pace is None:
            make = getattr(self.server.factory, "pace", None)
            if make is None:
                return
            self._pace = make(self._taken, self.abortConnection)
        self._pace.wait()

    def _taken(self) -> int:
        """How many bytes the client has acknowledged, in all.

        What it has taken of the megabytes in the kernel's buffer shows nowhere else before a third of them is gone.
        """
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
        if len(info) < _ACKNOWLEDGED.stop:
            # A kernel that does not tell: nobody is too slow.
            return int(cast(Any, self.reactor).seconds()) << 40
        return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)

    # -- files -------------------------------------------------------------------------------------------------

    def send_file(self, fd: int, start: int, stop: int, went: Callable[[int], object]) -> Deferred[None]:
        """Send a part of a file behind what was written; nothing is written before it fires.

        `went` is called with the number of bytes whenever some were sent. It may fire before `stop` is come to: where
        the file is not in the page cache, or ends, or cannot be sent in this way, so that the caller reads on as for
        any other connection. When the client leaves it fails with `CancelledError`. From then on, and when it is
        cancelled, which cuts the connection, nobody uses `fd`.
        """
        if not self.connected or self.disconnecting:
            return fail(CancelledError())
        assert self._file is None, "one file at a time"
        done: Deferred[None] = Deferred(self._give_up_file)
        self._file = File(fd, start, stop, went, done)
        self.server.sending += 1
        self.startWriting()
        return done

    def _give_up_file(self, _done: Deferred[None]) -> None:
        self._file = None
        self.server.sending -= 1
        self.abortConnection()

    def _turn(self) -> int:
        """How many bytes of its file this connection may send now."""
        senders: int = self.server.sending
        return min(TURN, max(LEAST, ALL // senders))

    def _send_file_part(self, file: File) -> Lost:
        """Send what fits of a file's next part.

        The socket is left as it is: with TCP_NOTSENT_LOWAT, or corked, a GiB costs more than twice the CPU.
        """
        count = min(file.stop - file.at, self._turn())
        if not is_cached(file.fd, file.at, count):
            self._end_file(file)
            return None
        try:
            sent = os.sendfile(self.fileno(), file.fd, file.at, count)
        except BlockingIOError:
            self.startWriting()
            return None
        except OSError as error:
            if error.errno not in _NOT_SENDABLE:
                return CONNECTION_LOST
            sent = 0
        self._went(file, sent)
        if not sent or file.at == file.stop:
            self._end_file(file)
        else:
            self.startWriting()
        return None

    def _went(self, file: File, count: int) -> None:
        file.at += count
        file.went(count)

    def _end_file(self, file: File) -> None:
        self._file = None
        self.server.sending -= 1
        self.stopWriting()
        file.done.callback(None)

    # -- the end -----------------------------------------------------------------------------------------------

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self._wanted = False
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Tell the protocol, and then whoever sends a file and was not told by that."""
        if self._pace is not None:
            self._pace.end()
            self._pace = None
        super().connectionLost(reason)
        if self._file is not None:
            self._file.done.cancel()


_one_byte = bytearray(1)


def is_cached(fd: int, offset: int, count: int) -> bool:
    """Whether a part of a file can be read without waiting, as far as its first and its last byte tell.

    The kernel reads files ahead in long stretches, so that what is between them is hardly ever missing; if it is, one
    read of the disk is waited for. Where the file system cannot tell, it is not.
    """
    try:
        for at in (offset, offset + count - 1):
            if not os.preadv(fd, (_one_byte,), at, os.RWF_NOWAIT):
                return False
    except OSError:
        return False
    return True


class RegistryPort(Port):
    """A TCP port of such connections: `RegistryPort(port, factory, backlog, interface, reactor).startListening()`.

    A factory that has a method `pace`, see `RegistrySite.pace`, gives up those that do not take what is sent to them.
    """

    transport: Any = RegistryServer
    #: How many of its connections are sending a file.
    sending = 0
