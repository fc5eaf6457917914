"""The same port and connections over TLS, by the standard library's `ssl` on the connection's own socket.

Twisted's TLS encrypts into a buffer in memory, from which another copy goes to the socket; OpenSSL that has the socket
itself needs half of the CPU.
"""

# Twisted's transports have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import ssl
from typing import Any, cast

from cryptography.x509 import Certificate, load_der_x509_certificate
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from txregistry.web.transport import File, Lost, RegistryPort, RegistryServer

#: Seconds from a client's first byte to the end of the handshake.
HANDSHAKE_TIMEOUT = 15.0
#: The most bytes that one record carries. OpenSSL gives them all at once, so that it never keeps any of which no poll
#: of the socket tells.
RECORD = 1 << 14
#: A record of less is taken for the last that is here, which is often so: asking in vain costs more than a turn does.
SHORT = 1 << 10
#: Bytes of a file in one call of OpenSSL. They are read once more for each time that the socket was full.
SLICE = 1 << 17
#: What the socket says when it has nothing to read: the first while it is TLS, the other when that has ended.
_NOTHING_YET = (ssl.SSLWantReadError, BlockingIOError)


@implementer(ISSLTransport)
class TLSServer(RegistryServer):
    """A connection over TLS.

    TLS begins with the client's first byte. Once this side is half-closed, what the client still sends is handed over
    as it comes, encrypted: it is good for nothing but being counted.
    """

    socket: Any  # an SSLSocket, after the first byte
    server: TLSPort

    _secure = False
    _handshake_deadline: IDelayedCall | None = None
    #: A read has to wait until something can be sent, for a message of TLS itself.
    _read_needs_writing = False
    #: Bytes of a file that OpenSSL has begun to send: it must be given them again, and no others.
    _begun = 0
    #: The client has said that it sends nothing more.
    _heard_all = False

    def getPeerCertificate(self) -> Certificate | None:
        """The client's certificate, if it has shown one."""
        found = self.socket.getpeercert(binary_form=True) if self._secure else None
        return None if found is None else load_der_x509_certificate(found)

    # -- the handshake -----------------------------------------------------------------------------------------

    def _shake_hands(self) -> Lost:
        """Go on with the handshake."""
        try:
            if self._handshake_deadline is None:
                self._begin()
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self._read_when_writable()
            return None
        except OSError:
            return CONNECTION_LOST
        self._secure = True
        self._end_deadline()
        return None

    def _begin(self) -> None:
        clock = cast(Any, self.reactor)
        self._handshake_deadline = clock.callLater(HANDSHAKE_TIMEOUT, self.abortConnection)
        # Should this fail, it closes the descriptor, which the reactor must not know any more.
        self.stopReading()
        self.socket = self.server.context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.fileno = self.socket.fileno
        self.startReading()

    def _end_deadline(self) -> None:
        if self._handshake_deadline is not None and self._handshake_deadline.active():
            self._handshake_deadline.cancel()

    # -- bytes -------------------------------------------------------------------------------------------------

    def _receive(self) -> Lost:
        """Read what is there, up to the size of the port's buffer."""
        if not self._secure:
            lost = self._shake_hands()
            if lost is not None or not self._secure:
                return lost
        buffer = self.server.buffer
        size, lost = 0, None
        while size <= len(buffer) - RECORD:
            try:
                count = self.socket.recv_into(buffer[size:])
            except _NOTHING_YET:
                break
            except ssl.SSLWantWriteError:
                self._read_when_writable()
                break
            except OSError:
                lost = CONNECTION_LOST
                break
            if not count:
                lost = CONNECTION_DONE
                break
            size += count
            if count < SHORT:
                break
        if size:
            self.protocol.dataReceived(bytes(buffer[:size]))
        return lost if self.connected else None

    def _read_when_writable(self) -> None:
        self._read_needs_writing = True
        self.reactor.addWriter(self)

    def doWrite(self) -> Lost:  # type: ignore[override]  # as in RegistryServer
        """Send what fits; read on, if that had to wait for it."""
        if self._read_needs_writing:
            self._read_needs_writing = False
            lost = self.doRead()
            if lost is not None or not self.connected or self._read_needs_writing:
                return lost
        return super().doWrite()

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        """See FileDescriptor."""
        if not data:
            return 0
        if not self._secure:
            # Nothing of ours is written before a request has come. If it is, it is not sent in clear.
            return CONNECTION_LOST
        try:
            return cast(int, self.socket.send(memoryview(data)[: self.SEND_LIMIT]))
        except ssl.SSLWantWriteError:
            return 0
        except OSError:
            return CONNECTION_LOST

    def _send_file_part(self, file: File) -> Lost:
        """Encrypt and send what fits of a file's next part."""
        end = min(file.stop, file.at + self._turn())
        while file.at < end:
            view = self.server.buffer[: self._begun or min(SLICE, end - file.at)]
            count = read_into(file.fd, view, file.at, wait=bool(self._begun))
            if count < self._begun:
                return CONNECTION_LOST
            if not count:
                break
            try:
                self.socket.send(view[:count])
            except ssl.SSLWantWriteError:
                self._begun = count
                self.startWriting()
                return None
            except OSError:
                return CONNECTION_LOST
            self._begun = 0
            self._went(file, count)
        if file.at < end or file.at == file.stop:
            self._end_file(file)
        else:
            self.startWriting()
        return None

    # -- the end -----------------------------------------------------------------------------------------------

    def readConnectionLost(self, reason: Failure) -> None:
        """See IHalfCloseableDescriptor."""
        self._heard_all = True
        super().readConnectionLost(reason)

    def startReading(self) -> None:
        """Read, which finds the end again if that has come: TLS has its own, of which no poll of the socket tells."""
        if self._heard_all:
            cast(Any, self.reactor).callLater(0, self._hear_end)
        else:
            super().startReading()

    def _hear_end(self) -> None:
        if self.connected and not self.disconnecting:
            self.readConnectionLost(Failure(CONNECTION_DONE))

    def _said_goodbye(self) -> bool:
        """Tell the client that nothing more will come; whether that is done."""
        if self._secure:
            try:
                self.socket.unwrap()
            except ssl.SSLWantWriteError:
                return False
            except (OSError, ValueError):
                # It is sent, but the client has not said the same yet; or there is nobody left to tell.
                pass
        return True

    def _postLoseConnection(self) -> Lost:
        if self._said_goodbye():
            return CONNECTION_DONE
        self.startWriting()
        return None

    def _closeWriteConnection(self) -> None:
        if self._said_goodbye():
            super()._closeWriteConnection()  # the socket is no TLS from then on
        else:
            self.startWriting()

    def connectionLost(self, reason: Failure) -> None:
        """See Server."""
        self._end_deadline()
        super().connectionLost(reason)


def read_into(fd: int, view: memoryview, offset: int, *, wait: bool) -> int:
    """Fill `view` from a file as far as that can be done; without `wait`, from the page cache alone."""
    try:
        return os.preadv(fd, (view,), offset, 0 if wait else os.RWF_NOWAIT)
    except OSError:
        return 0


class TLSPort(RegistryPort):
    """A port of such connections; `context` is to be set before it listens, and may be replaced for those to come."""

    transport = TLSServer
    context: ssl.SSLContext

    def __init__(
        self,
        port: int,
        factory: IProtocolFactory,
        backlog: int = 50,
        interface: str = "",
        reactor: Any = None,
    ) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        #: Of all its connections: none keeps anything in it from one call to the next.
        self.buffer = memoryview(bytearray(1 << 18))
