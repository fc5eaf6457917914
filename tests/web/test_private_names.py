"""What the channel and the transports use or override of Twisted's unpublished names: still there, and the same."""

import ast
import inspect
import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel, Request

from txregistry.web import body, channel, pace, request, sending, site, tls, transport
from txregistry.web.tls import TLSServer
from txregistry.workers import sharing

#: Attributes that begin with an underscore and are not ours, by module.
IN_TRANSPORT = {"_tempDataLen"}
IN_TLS = {"_closeWriteConnection", "_postLoseConnection"}
IN_SHARING = {"_fromListeningDescriptor"}
IN_CHANNEL = {
    "_buffer",
    "_command",
    "_networkProducer",
    "_path",
    "_receivedHeaderCount",
    "_receivedHeaderSize",
    "_respondToBadRequestAndDisconnect",
    "_send100Continue",
    "_version",
    "_waitingForTransport",
}


def private_names(tree: ast.AST) -> set[str]:
    """Every `x._name` and `def _name`."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def parse(thing) -> ast.AST:
    return ast.parse(inspect.getsource(thing))


CLASSES = (HTTPChannel, LineReceiver, Server, FileDescriptor)
TWISTEDS = set().union(*(private_names(parse(inspect.getmodule(cls))) for cls in CLASSES))


class Recorder(Request):
    """Answers when the test says so."""

    made: "list[Recorder]" = []

    def process(self) -> None:
        self.made.append(self)


class PrivateNameTests(SynchronousTestCase):
    def setUp(self) -> None:
        Recorder.made = []
        self.channel = HTTPChannel()
        self.channel.requestFactory = Recorder
        self.channel.timeOut = None
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def test_lists_are_complete(self) -> None:
        for module, used in (
            (channel, IN_CHANNEL), (transport, IN_TRANSPORT), (tls, IN_TLS), (sharing, IN_SHARING),
        ):  # fmt: skip
            self.assertEqual(private_names(parse(module)) & TWISTEDS, used, module.__name__)

    def test_no_other_module_uses_any(self) -> None:
        for module in (body, pace, request, sending, site):
            self.assertEqual(private_names(parse(module)) & TWISTEDS, set(), module.__name__)

    def test_our_own_names_are_not_twisteds(self) -> None:
        """What is added to a class of Twisted's changes nothing of it."""
        for module, of, used in ((transport, Server, IN_TRANSPORT), (tls, Server, IN_TLS)):
            ours = private_names(parse(module))
            self.assertEqual(ours & set(dir(of)) - used, set(), module.__name__)

    def test_buffer(self) -> None:
        """Bytes of a line that is not complete."""
        self.channel.dataReceived(b"GET /")
        self.assertEqual(self.channel._buffer, b"GET /")
        self.channel.dataReceived(b" HTTP/1.1\r\n")
        self.assertEqual(self.channel._buffer, b"")

    def test_request_line(self) -> None:
        """There from the first line to the last byte of the body, together with the request."""
        self.assertFalse(hasattr(self.channel, "_command"))
        self.channel.dataReceived(b"PUT /a HTTP/1.0\r\nContent-Length: 1\r\n\r\n")
        self.assertEqual(len(self.channel.requests), 1)
        line = (self.channel._command, self.channel._path, self.channel._version)
        self.assertEqual(line, (b"PUT", b"/a", b"HTTP/1.0"))
        self.channel.dataReceived(b"1")
        self.assertFalse(hasattr(self.channel, "_command"))

    def test_head_counters(self) -> None:
        """Sizes without line ends, headers counted when the next line comes; reset with the request."""
        self.channel.dataReceived(b"PUT /a HTTP/1.1\r\nA: b\r\nContent-Length: 0\r\n")
        self.assertEqual((self.channel._receivedHeaderSize, self.channel._receivedHeaderCount), (36, 1))
        self.channel.dataReceived(b"\r\n")
        self.assertEqual((self.channel._receivedHeaderSize, self.channel._receivedHeaderCount), (0, 0))

    def test_bad_request_hook(self) -> None:
        """Called for a malformed head and for a malformed chunk."""
        for sent in (b"nonsense\r\n", b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            calls: list[str] = []
            self.setUp()
            self.patch(self.channel, "_respondToBadRequestAndDisconnect", lambda calls=calls: calls.append("bad"))
            self.channel.dataReceived(sent)
            self.assertEqual(calls, ["bad"])

    def test_100_continue_hook(self) -> None:
        """Called once the request knows its length; sends the interim answer."""
        lengths: list[object] = []
        self.patch(Recorder, "gotLength", lambda _, length: lengths.append(length))
        send = self.channel._send100Continue
        self.patch(self.channel, "_send100Continue", lambda: lengths.append("continue"))
        self.channel.dataReceived(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual(lengths, [3, "continue"])
        send()
        self.assertEqual(self.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")

    def test_network_producer(self) -> None:
        """The transport itself, as a producer of the client's bytes."""
        producer: Any = self.channel._networkProducer
        producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        producer.unregisterProducer()
        self.assertIsNone(self.transport.producer)

    def test_waiting_for_transport(self) -> None:
        self.assertFalse(self.channel._waitingForTransport)
        self.channel.pauseProducing()
        self.assertTrue(self.channel._waitingForTransport)
        self.channel.resumeProducing()
        self.assertFalse(self.channel._waitingForTransport)

    def test_order_of_calls(self) -> None:
        """A request hears of its length, of its content, of its end; the channel of both of these first."""
        calls: list[str] = []

        class Watched(HTTPChannel):
            def allHeadersReceived(self) -> None:
                super().allHeadersReceived()
                calls.append("headers")

            def allContentReceived(self) -> None:
                calls.append("content")
                super().allContentReceived()

        self.patch(Recorder, "handleContentChunk", lambda _, data: calls.append(data.decode()))
        self.patch(Recorder, "requestReceived", lambda *_: calls.append("received"))
        watched = Watched()
        watched.requestFactory = Recorder
        watched.timeOut = None
        watched.makeConnection(StringTransport())
        watched.dataReceived(b"PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
        watched.dataReceived(b"cd")
        self.assertEqual(calls, ["headers", "ab", "cd", "content", "received"])


class Connected(Server):
    """A connection whose bytes go nowhere."""

    def writeSomeData(self, data: bytes) -> int:
        self.sent = bytes(data)
        return len(data)


class TransportNameTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(theirs.close)
        self.reactor = MemoryReactor()
        self.connection = Connected(self.ours, Protocol(), ("127.0.0.1", 1), None, 1, self.reactor)  # type: ignore[arg-type]  # no port

    def test_length_of_what_was_written(self) -> None:
        """Bytes that were written and not looked at yet; the others are in `dataBuffer`, which is public."""
        self.connection.write(b"abc")
        self.assertEqual((self.connection._tempDataLen, self.connection.dataBuffer), (3, b""))
        self.connection.doWrite()
        self.assertEqual((self.connection._tempDataLen, self.connection.dataBuffer), (0, b""))
        self.patch(self.connection, "writeSomeData", lambda _: 1)
        self.connection.write(b"abc")
        self.connection.doWrite()
        self.assertEqual((self.connection._tempDataLen, self.connection.dataBuffer), (0, b"abc"))

    def test_end_of_a_connection(self) -> None:
        """What is called when all was sent; again, if it returns None and asks to be told when it can write."""
        calls: list[bool] = []
        self.connection.write(b"abc")
        self.connection.loseConnection()
        self.patch(self.connection, "_postLoseConnection", lambda: CONNECTION_DONE if calls else calls.append(True))
        self.assertIsNone(self.connection.doWrite())
        self.assertEqual((self.connection.sent, calls), (b"abc", [True]))
        self.assertIs(self.connection.doWrite(), CONNECTION_DONE)

    def test_end_of_one_side(self) -> None:
        """The same for a connection that is closed on this side."""
        calls: list[int] = []
        self.patch(self.connection, "_closeWriteConnection", lambda: calls.append(1))
        self.connection.write(b"abc")
        self.connection.loseWriteConnection()
        self.assertIsNone(self.connection.doWrite())
        self.assertIsNone(self.connection.doWrite())
        self.assertEqual(calls, [1, 1])
        self.connection.write(b"more")
        self.assertEqual(self.connection._tempDataLen, 0)

    def test_adopted_descriptor(self) -> None:
        """A port over somebody else's socket, of the class that is asked."""
        with socket.create_server(("127.0.0.1", 0)) as opened:

            class Ours(Port):
                """A class of ours."""

            port = Ours._fromListeningDescriptor(self.reactor, opened.fileno(), socket.AF_INET, Factory())
            port.startListening()
            self.assertIsInstance(port, Ours)
            self.assertEqual(port.getHost().port, opened.getsockname()[1])
            port.connectionLost(None)

    def test_overridden_names_are_called(self) -> None:
        for name in IN_TLS:
            self.assertIsNot(getattr(TLSServer, name), getattr(Server, name))
