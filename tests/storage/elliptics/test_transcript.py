"""A conversation that was recorded with a real server of 2.24.15.18, byte by byte: the client and the test server.

Namespace `DOCKER`, key `a/b`, group 1; numbers and lengths are those of the recording.
"""

import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.server import Server
from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.connection import Refused
from txregistry.storage.elliptics.index import index_table, object_table
from txregistry.storage.elliptics.session import Options, Session
from txregistry.storage.elliptics.session import Routes as Routing

ID = bytes.fromhex("ffe27ee168e663cb")
OBJECT_TABLE = bytes.fromhex("18f1a7de511dde0f")
INDEX_TABLE = bytes.fromhex("8db82874")  # of the index `a`, from byte 32 on


def header(start, group, status, command, flags, transaction, size):
    """The 104 bytes behind an id that starts so, each field as hexadecimal digits in the order they are sent."""
    id_ = bytes.fromhex(start) if isinstance(start, str) else start
    fields = bytes.fromhex(group + "00000000" + status + command + flags + transaction + size)
    assert len(fields) == 40, len(fields)
    return id_.ljust(64, b"\0") + fields


def number(text, size=8):
    """A number as it is written, in the order in which it is sent."""
    return int(text, 16).to_bytes(size, "little").hex()


OWN_ID = wire.identify("DOCKER", "a/b")
A = wire.identify("DOCKER", "a")
HELLO = "02000000 18000000 0f000000 12000000"
ONE, OK, MISSING = "01000000", "00000000", "feffffff"
ADDRESS = bytes.fromhex("02000401 7f000001") + b"\xaa" * 20 + bytes.fromhex("1000 0200")
NODE_ID = bytes.fromhex("e4e7a7e5").ljust(62, b"\x55") + bytes.fromhex("97a1")


def attributes(size, total=0):
    """208 bytes; when it was written is left open, as zeros."""
    time_and_more = bytes(16 + 16 + 8)
    rest = bytes.fromhex(number(hex(total)) + "00" * 8 + "00000000" + "00000000" + "00" * 8 + number(hex(size)))
    return bytes(64) + OWN_ID + time_and_more + rest


def requested(start, command, transaction, size, flags="1"):
    return header(start, ONE, OK, number(command, 4), number(flags), number(transaction), number(size))


def answered(start, command, transaction, size, flags="0", status=OK, group=ONE):
    mark = number(hex(1 << 63 | int(transaction, 16)))
    return header(start, group, status, number(command, 4), number(flags), mark, number(size))


def pair(data):
    return b"\x92\xda\x00\x40" + table(1) + data


def table(shard):
    """Of the index `a`; both shards have the same bytes from 32 on."""
    return index_table(A, shard, 2)


SHAKE = (
    header(HELLO, "00000000", OK, "02000000", number("18"), "00" * 8, "00" * 8),
    answered(bytes.fromhex(HELLO + "00000000 02000000"), "2", "0", "64", flags="10")
    + bytes.fromhex("01000000") + ADDRESS + NODE_ID,
)  # fmt: skip
INFO = bytes(72) + bytes.fromhex(number("32")) + bytes(24)
WRITTEN = requested(OWN_ID, "4", "2", "d2") + attributes(2) + b"hi"
WRITE_DONE = answered(OWN_ID, "4", "2", "a4") + ADDRESS + INFO + b"/srv/blob/data-0.0\0".ljust(28, b"\0")
READ = requested(OWN_ID, "5", "3", "d0") + attributes(2)
READ_DONE = answered(OWN_ID, "5", "3", "d2") + attributes(2, 2) + b"hi"


def update():
    """One index, `a`, with the data `a/b`."""
    start = object_table(OWN_ID)
    request = OWN_ID + bytes.fromhex(ONE) + bytes(4 + 4 + 4 + 4 + 40) + bytes.fromhex(number("1"))
    entry = A + bytes(8 + 16) + bytes.fromhex(number("3"))
    assert (len(request), len(entry)) == (132, 96)
    asked = requested(start, "14", "5", "e7") + request + entry + b"a/b"
    result = bytes(40) + bytes.fromhex(number("1")) + table(1) + bytes(4 + 16)
    done = answered(start, "14", "5", "84", flags="3") + result + answered(start, "14", "5", "0")
    return asked, done


def find():
    """In both shards; the second one has it."""
    parts = b""
    for shard, flags in ((0, "9"), (1, "1")):
        numbers = number(flags, 4) + number(str(shard), 4) + number("2", 4)
        parts += table(shard) + bytes.fromhex(ONE) + bytes(4) + bytes.fromhex(numbers) + bytes(40)
        parts += bytes.fromhex(number("1")) + table(shard) + bytes(32)
    asked = requested(table(0), "16", "6", "1c8") + parts
    body = b"\x91\x93\x01\xda\x00\x40" + OWN_ID + b"\x91" + pair(b"\xa3a/b")
    return asked, answered(table(1), "16", "6", "8f") + body


REMOVED = requested(OWN_ID, "b", "7", "d0") + attributes(0)
REMOVE_DONE = answered(OWN_ID, "b", "7", "0")
GONE = requested(OWN_ID, "5", "9", "d0") + attributes(2)
GONE_DONE = answered(OWN_ID, "5", "9", "0", status=MISSING)


def timeless(data):
    """A WRITE without the time in its attributes, 104 + 144 bytes from the beginning."""
    return data[:248] + bytes(16) + data[264:]


class RecordingTests(SynchronousTestCase):
    def test_the_bytes_themselves(self):
        """What the recording names, and the lengths it tells."""
        self.assertEqual((OWN_ID[:8], update()[0][:8], find()[0][32:36]), (ID, OBJECT_TABLE, INDEX_TABLE))
        self.assertEqual([len(part) for part in SHAKE], [104, 104 + 0x64])
        lengths = {"written": (WRITTEN, 0xD2), "write done": (WRITE_DONE, 0xA4), "read": (READ, 0xD0),
                   "read done": (READ_DONE, 0xD2), "update": (update()[0], 0xE7), "find": (find()[0], 0x1C8),
                   "found": (find()[1], 0x8F), "update done": (update()[1], 0x84 + 104)}  # fmt: skip
        for name, (data, size) in lengths.items():
            self.assertEqual(len(data), 104 + size, name)

    def test_client(self):
        """Each request is as it was recorded, and the recorded answer is understood."""
        exchanges = [SHAKE, (WRITTEN, WRITE_DONE), (READ, READ_DONE), update(), find(), (REMOVED, REMOVE_DONE),
                     (GONE, GONE_DONE)]  # fmt: skip
        got = []
        listener = socket.create_server(("127.0.0.1", 0))

        def play():
            with listener, listener.accept()[0] as peer:
                for asked, answer in exchanges:
                    data = b""
                    while len(data) < len(asked):
                        piece = peer.recv(len(asked) - len(data))
                        if not piece:
                            return
                        data += piece
                    got.append(data)
                    peer.sendall(answer)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        node = ("127.0.0.1", listener.getsockname()[1], 2)
        session = Session(Routing(Options((node,), timeout=5.0, dialects=wire.DIALECTS[:1])))
        client = session.connection(1)
        self.assertEqual(client.peer, wire.Peer((2, 24, 15, 18), 2, (1,)))

        def next_is(transaction):
            client._number = transaction - 1

        next_is(2)
        session.write(1, "a/b", [b"hi"])
        read = session.read(1, "a/b", 0, 2)
        self.assertEqual((read.data, read.total, read.modified), (b"hi", 2, 0.0))
        next_is(5)
        session.set_indexes(1, "a/b", ["a"], b"a/b")
        self.assertEqual(session.find_indexes(1, ["a"]), [b"a/b"])
        session.remove(1, "a/b")
        next_is(9)
        self.assertEqual(self.assertRaises(Refused, session.read, 1, "a/b", 0, 2).status, -2)
        session.close()
        thread.join(5)
        self.assertNotEqual(got[1][248:264], bytes(16), "the client tells the time")
        got[1] = timeless(got[1])
        for (asked, _), data in zip(exchanges, got, strict=True):
            self.assertEqual(data.hex(), asked.hex())

    def test_server_of_the_tests(self):
        """It answers the recorded requests as was recorded, but for addresses, ids of nodes and names of files."""
        server = Server("2.24").start()
        self.addCleanup(server.stop)
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.settimeout(5)

            def ask(asked, answer):
                peer.sendall(asked)
                data = b""
                while len(data) < len(answer):
                    data += peer.recv(len(answer) - len(data))
                return data

            self.assertEqual(ask(*SHAKE)[:108].hex(), SHAKE[1][:108].hex())
            written = ask(WRITTEN, WRITE_DONE)
            self.assertEqual(written[:104].hex(), WRITE_DONE[:104].hex())
            self.assertEqual(written[136 + 72 : 136 + 80].hex(), number("32"))
            for asked, answer in ((READ, READ_DONE), find_after_update(ask), (REMOVED, REMOVE_DONE), (GONE, GONE_DONE)):
                self.assertEqual(ask(asked, answer).hex(), answer.hex())
            peer.settimeout(0.05)
            self.assertRaises(TimeoutError, peer.recv, 1)


def find_after_update(ask):
    """The search, once the update was answered with as many bytes as in the recording."""
    asked, answer = update()
    done = ask(asked, answer)
    assert (done[:104], done[-104:]) == (answer[:104], answer[-104:])
    return find()
