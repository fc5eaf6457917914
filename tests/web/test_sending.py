"""Files on real ports: whole and in parts, cached and cold, behind each other, shrunk, given up, never read."""

import errno
import os
import random
import socket
import threading
from pathlib import Path
from typing import Any

from klein import Klein
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.web.ports import PortTestCase, Reader, Secure, TwistedPlain, TwistedSecure, Unix
from txregistry.errors import Unavailable
from txregistry.interfaces import IReader, ISendsFiles
from txregistry.testing.agent import request_head
from txregistry.web import tls, transport
from txregistry.web.sending import SHORT, send_range
from txregistry.web.site import RegistrySite

SIZE = (5 << 20) + 12345
CONTENT = random.Random(5).randbytes(SIZE)
#: More than the kernel holds for a connection that nobody reads from.
HUGE = 64 << 20
PIECE = 1 << 18


@implementer(IReader, ISendsFiles)
class OpenFile:
    """An open file that counts how often it was closed, and what was read by its `chunks`, in which threads."""

    modified = 0.0

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size
        self.closed = 0
        self.read = 0
        self.threads: set[int] = set()

    def fileno(self) -> int:
        return self.fd

    def chunks(self, start: int, stop: int) -> "FileChunks":
        return FileChunks(self, start, stop)

    def pread(self, size: int, at: int) -> bytes:
        self.threads.add(threading.get_ident())
        data = os.pread(self.fd, size, at)
        self.read += len(data)
        return data

    def close(self) -> None:
        self.closed += 1
        os.close(self.fd)


class FileChunks:
    def __init__(self, file: OpenFile, start: int, stop: int) -> None:
        self.file = file
        self.at = start
        self.stop = stop

    def __aiter__(self) -> "FileChunks":
        return self

    async def __anext__(self) -> bytes:
        if self.at == self.stop:
            raise StopAsyncIteration
        data = await deferToThread(self.file.pread, min(PIECE, self.stop - self.at), self.at)
        if not data:
            raise Unavailable("file", "it is too short")
        self.at += len(data)
        return data

    def close(self) -> None:
        """Nothing is open."""


class SendingTestCase(PortTestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.path = self.mktemp()
        Path(self.path).write_bytes(CONTENT)
        self.opened: list[OpenFile] = []
        self.requests: list[Any] = []
        self.parts: list[int] = []
        app = Klein()

        @app.route("/file/<int:start>/<int:stop>", methods=["GET", "HEAD"])
        async def file(request, start, stop):
            self.requests.append(request)
            reader = OpenFile(self.path)
            self.opened.append(reader)
            try:
                request.setHeader("Content-Length", str(stop - start))
                await send_range(request, reader, start, stop)
                return b""
            finally:
                reader.close()

        @app.route("/after")
        def after(request):
            request.setHeader("Content-Length", "5")
            return b"after"

        self.log: list[str] = []
        self.site = RegistrySite(app.resource(), reactor, access_log=self.log.append, **self.limits)
        self.site_on_port(self.site)

    limits: dict[str, Any] = {}

    def huge(self) -> None:
        """Let the file be one that no client has before it has read some."""
        os.truncate(self.path, HUGE)

    def get(self, start: int = 0, stop: int = SIZE, method: str = "GET") -> bytes:
        return request_head(method, f"/file/{start}/{stop}")

    def ask(self, *heads: bytes) -> list[bytes]:
        """The bodies of the answers to requests that are sent together; in a thread."""
        with self.connect() as connection:
            connection.sendall(b"".join(heads))
            reader = Reader(connection)
            return [reader.answer(head=head.startswith(b"HEAD")).body for head in heads]

    def connect_slowly(self) -> socket.socket:
        """A client that has asked for the huge file, and read its first byte; in a thread."""
        connection = self.connect()
        connection.sendall(self.get(stop=HUGE))
        connection.recv(1)
        return connection

    async def check_end(self, count: int = 1) -> None:
        """So many files were opened, and each was closed once; nobody was told of an error."""
        await self.until(lambda: len(self.opened) == count and all(each.closed for each in self.opened))
        await self.until(lambda: not self.site.channels)
        self.assertEqual([each.closed for each in self.opened], [1] * count)
        self.assertEqual([each.getTraceback() for each in self.flushLoggedErrors()], [])


class SendingTests(SendingTestCase):
    """`tcp:`."""

    async def test_whole_and_parts(self) -> None:
        parts = [(0, SIZE), (1, SIZE), (0, SHORT + 1), (SIZE - SHORT - 1, SIZE), (7, 8), (4096, 3 << 20), (9, 9)]
        bodies = await deferToThread(self.ask, *(self.get(*part) for part in parts))
        self.assertEqual(bodies, [CONTENT[start:stop] for start, stop in parts])
        await self.check_end(len(parts))
        self.assertEqual([int(line.split()[9].strip("-") or 0) for line in self.log], [b - a for a, b in parts])

    async def test_nothing_is_read_but_what_is_short(self) -> None:
        self.always_cached()
        bodies = await deferToThread(self.ask, self.get(), self.get(5, SHORT + 5))
        self.assertEqual(bodies, [CONTENT, CONTENT[5 : SHORT + 5]])
        read = [each.read for each in self.opened]
        self.assertEqual(read, [0, SHORT] if self.kind.own else [SIZE, SHORT])

    async def test_head(self) -> None:
        heads = [self.get(method="HEAD"), request_head("GET", "/after")]
        self.assertEqual(await deferToThread(self.ask, *heads), [b"", b"after"])
        await self.check_end()
        self.assertEqual(self.opened[0].read, 0)

    async def test_requests_behind_a_file(self) -> None:
        after = request_head("GET", "/after")
        heads = [self.get(), after, self.get(1), self.get(method="HEAD"), after]
        self.assertEqual(await deferToThread(self.ask, *heads), [CONTENT, b"after", CONTENT[1:], b"", b"after"])
        await self.check_end(3)

    async def test_cold(self) -> None:
        """What is not in the page cache is read in a thread, and the rest goes on as before."""
        file = os.open(self.path, os.O_RDWR)
        os.fsync(file)
        os.posix_fadvise(file, 1 << 20, 2 << 20, os.POSIX_FADV_DONTNEED)
        os.close(file)
        self.assertEqual(await deferToThread(self.ask, self.get()), [CONTENT])
        self.assertNotIn(threading.get_ident(), self.opened[0].threads)

    async def test_sometimes_cold(self) -> None:
        self.always_cached(but_for=[0, 1 << 20, SIZE - PIECE])
        self.assertEqual(await deferToThread(self.ask, self.get(), self.get(3)), [CONTENT, CONTENT[3:]])
        if self.kind.own:
            self.assertGreaterEqual(self.opened[0].read, PIECE)
            self.assertLess(self.opened[0].read, SIZE)
        self.assertNotIn(threading.get_ident(), self.opened[0].threads)

    async def test_nothing_is_known_of_the_cache(self) -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.EOPNOTSUPP, "not supported")

        self.patch(os, "preadv", refuse)
        self.assertEqual(await deferToThread(self.ask, self.get()), [CONTENT])
        self.assertEqual(self.opened[0].read, SIZE)

    async def test_file_system_without_sendfile(self) -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.EINVAL, "invalid")

        self.patch(os, "sendfile", refuse)
        self.assertEqual(await deferToThread(self.ask, self.get()), [CONTENT])

    async def test_other_connections_have_their_turn(self) -> None:
        """No part that is sent in one turn is larger than a turn may take."""
        if not self.kind.own:
            return
        self.always_cached()
        self.huge()
        went = transport.RegistryServer._went

        def record(connection, file, count) -> None:
            self.parts.append(count)
            went(connection, file, count)

        self.patch(transport.RegistryServer, "_went", record)
        slow = await deferToThread(self.connect_slowly)
        self.assertEqual(await deferToThread(self.ask, request_head("GET", "/after")), [b"after"])
        await deferToThread(self.read_all, slow)
        self.assertEqual(sum(self.parts), HUGE)
        self.assertLessEqual(max(self.parts), transport.TURN)
        await self.check_end()

    async def test_many_files_share_a_turn(self) -> None:
        """What each may send is the less the more there are, and what it was when they are gone."""
        if not self.kind.own:
            return
        self.huge()
        slow = [await deferToThread(self.connect_slowly) for _ in range(20)]
        (turn, *_) = {channel.transport._turn() for channel in self.site.channels}
        self.assertEqual((self.port.sending, turn), (20, transport.ALL // 20))
        for connection in slow:
            connection.close()
        await self.check_end(20)
        self.assertEqual(self.port.sending, 0)

    def read_all(self, connection: socket.socket) -> None:
        """Read the huge answer; in a thread."""
        count = 0
        with connection:
            while count < HUGE:
                count += len(connection.recv(1 << 20))

    async def test_shrunk_in_the_middle(self) -> None:
        """The answer is cut, and does not look as if it were whole; the server lives."""
        self.huge()
        connection = await deferToThread(self.connect_slowly)
        os.truncate(self.path, 1 << 20)
        with connection:
            got = await deferToThread(Reader(connection).rest)
        self.assertLess(len(got), HUGE)
        await self.until(lambda: self.opened[0].closed and not self.site.channels)
        self.flushLoggedErrors(Unavailable)
        self.assertEqual(await deferToThread(self.ask, request_head("GET", "/after")), [b"after"])
        self.assertEqual(self.opened[0].closed, 1)

    async def test_shrunk_before(self) -> None:
        os.truncate(self.path, 100_000)

        def client() -> bytes:
            with self.connect() as connection:
                connection.sendall(self.get())
                return Reader(connection).rest()

        got = await deferToThread(client)
        self.assertTrue(got.startswith(b"HTTP/1.1 200"))
        self.assertLess(len(got), SIZE)
        await self.until(lambda: self.opened[0].closed)
        self.flushLoggedErrors(Unavailable)

    async def test_client_leaves(self) -> None:
        self.huge()
        connection = await deferToThread(self.connect_slowly)
        await self.until(lambda: self.requests[0].sentLength > 1000)  # the headers may have come alone
        connection.close()
        await self.check_end()
        code, sent = self.log[0].split()[8:10]
        self.assertEqual(code, "200")
        self.assertGreater(int(sent), 1000)
        self.assertLess(int(sent), HUGE)

    async def test_route_gives_up(self) -> None:
        """The connection is cut, and the file is not used after it was closed."""
        self.huge()
        with await deferToThread(self.connect_slowly) as connection:
            self.requests[0].abandon()
            got = await deferToThread(Reader(connection).rest)
        self.assertLess(len(got), HUGE)
        await self.check_end()

    async def test_all_connections_are_cut(self) -> None:
        self.huge()
        with await deferToThread(self.connect_slowly):
            self.site.cut_connections()
            await self.check_end()

    async def test_client_closes_its_side(self) -> None:
        def client() -> bytes:
            with self.connect() as connection:
                connection.sendall(self.get())
                socket.socket.shutdown(connection, socket.SHUT_WR)
                reader = Reader(connection)
                body = reader.answer().body
                self.assertEqual(connection.recv(1), b"")
                return body

        if self.kind is not TwistedSecure:
            self.assertEqual(await deferToThread(client), CONTENT)
            await self.check_end()

    async def test_http_1_0(self) -> None:
        def client() -> bytes:
            with self.connect() as connection:
                connection.sendall(self.get().replace(b"HTTP/1.1", b"HTTP/1.0"))
                return Reader(connection).rest()

        got = await deferToThread(client)
        self.assertEqual(got[-SIZE:], CONTENT)
        await self.check_end()

    def always_cached(self, but_for: "list[int] | None" = None) -> None:
        """Let all parts of files be found in the page cache; for each of some offsets, but not the first time."""
        missing = list(but_for or [])

        def is_missing(at: int, count: int) -> bool:
            found = [each for each in missing if at <= each < at + count]
            for each in found:
                missing.remove(each)
            return bool(found)

        def read_into(fd: int, view: memoryview, offset: int, *, wait: bool) -> int:
            return 0 if not wait and is_missing(offset, len(view)) else os.preadv(fd, (view,), offset)

        self.patch(transport, "is_cached", lambda _, at, count: not is_missing(at, count))
        self.patch(tls, "read_into", read_into)


class SecureSendingTests(SendingTests):
    """`https:`."""

    kind = Secure


class TwistedSendingTests(SendingTests):
    """TCP without anything of ours below the channel."""

    kind = TwistedPlain


class TwistedSecureSendingTests(SendingTests):
    """TLS without anything of ours below the channel."""

    kind = TwistedSecure


class NeverReadTests(SendingTestCase):
    """`tcp:`; a client that asks, and then reads nothing, is given up."""

    limits = {"timeout": 1.0, "minimum_rate": 1 << 20}

    async def test_file(self) -> None:
        self.huge()
        with await deferToThread(self.connect_slowly):
            await self.check_end()
        self.assertIn('/file/0/67108864 HTTP/1.1" 200', self.log[0])

    async def test_trickle(self) -> None:
        """A byte now and then changes nothing."""
        self.huge()

        def client() -> int:
            read = 0
            with self.connect_slowly() as connection:
                connection.settimeout(0.05)
                while not self.log:
                    try:
                        read += len(connection.recv(100))
                    except TimeoutError:
                        continue
                    except OSError:
                        break
            return read

        self.assertLess(await deferToThread(client), HUGE)
        await self.check_end()


class SecureNeverReadTests(NeverReadTests):
    """`https:`."""

    kind = Secure


class UnixNeverReadTests(NeverReadTests):
    """`unix:`, whose transport does not tell what is taken of its buffer."""

    kind = Unix
