"""What each back-end was seen to do, row by row: the test server does it, and the client takes it as it should."""

import struct
from hashlib import sha512

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.server import LOOKUP, Server
from txregistry.storage.elliptics import wire
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.session import Options, Session
from txregistry.storage.elliptics.session import Routes as Routing

APPEND, PREPARE, COMMIT, NOCSUM, PLAIN, SWAP = 0x2, 0x10, 0x20, 0x100, 0x200, 0x2000
OLD, KEY = b"abcdefgh", "k"
ID = wire.identify("DOCKER", KEY)
NEVER, OUT_OF_STEP = "no answer", "less announced than sent"


class Node:
    """A server of one back-end and a client, which can send what ours never does."""

    def __init__(self, test, version, filesystem):
        self.server = Server(version, filesystem=filesystem).start()
        test.addCleanup(self.server.stop)
        dialects = tuple(dialect for dialect in wire.DIALECTS if dialect.name == version)
        self.session = Session(Routing(Options((self.server.node,), timeout=0.2, dialects=dialects)))
        test.addCleanup(self.session.close)

    def call(self, command, data=b"", flags=0, offset=0, size=None, parent=bytes(64)):
        """The status if it is a failure, else the bodies of the answers."""
        self.session.begin()
        attributes = wire.Attributes(ID, flags, offset, len(data) if size is None else size, 7.5, 0, parent)
        parts = [] if command == LOOKUP else [wire.pack_attributes(attributes), data]
        try:
            return self.session.connection(1).call(ID, 1, command, parts)
        except Refused as refused:
            return refused.status
        except Lost:
            return NEVER

    def write(self, data, flags=0, offset=0, parent=bytes(64)):
        answer = self.call(wire.WRITE, data, flags, offset, parent=parent)
        return answer if isinstance(answer, int) else 0

    def read(self, offset=0, size=0, flags=0):
        answer = self.call(wire.READ, b"", flags, offset, size)
        if not isinstance(answer, list):
            return answer
        return answer[0][208:] if len(answer[0]) >= 208 else OUT_OF_STEP

    def swap(self, data, old):
        return self.write(data, SWAP, 0, sha512(old).digest())


def shorter(node):
    return node.write(OLD), node.write(b"XX"), node.read()


def in_the_middle(node):
    return node.write(OLD), node.write(b"XX", 0, 2), node.read()


def plain(node):
    return node.write(OLD), node.write(b"XX", PLAIN, 2), node.read()


def append_to_nothing(node):
    return node.write(b"XX", APPEND), node.read()


def nothing_to_nothing(node):
    return node.write(b""), node.read()


def nothing_to_old(node):
    return node.write(OLD), node.write(b""), node.read()


def read_at_the_end(node):
    return node.write(OLD), node.read(8, 1), node.read(9, 1)


def read_across_the_end(node):
    return node.write(OLD), node.read(6, 99)


def missing(node):
    return node.read(), node.call(LOOKUP)


def look_up(node):
    node.write(OLD)
    found = node.call(LOOKUP)
    return struct.unpack_from("<Q", found[0], 32 + (72 if node.server.length < 120 else 80)) if found != -22 else found


def remove_nothing(node):
    answer = node.call(wire.DEL)
    return answer or 0


def when(node):
    node.write(OLD)
    return wire.unpack_attributes(node.call(wire.READ, size=1)[0]).seconds


def prepared(node):
    return node.write(OLD, PREPARE | PLAIN), node.read(), node.write(OLD, COMMIT | PLAIN), node.read()


def swaps(node):
    return node.swap(b"1", b"none"), node.swap(b"2", b"stale"), node.read(), node.swap(b"3", b"1"), node.read()


def without_checksum(node):
    return node.write(OLD, NOCSUM), node.read(), node.write(b"X", APPEND), node.read()


def without_attributes(node):
    try:
        return node.session.connection(1).call(ID, 1, wire.READ)
    except Refused as refused:
        return refused.status


#: The row, what is done, and what comes of it: eblob of 2.24, the filesystem of 2.24, eblob of 2.26 and of 3.0.
ROWS = (
    ("shorter WRITE at offset 0 over an object", shorter, (0, 0, b"XX"), (0, 0, b"XX"), (0, 0, b"XX")),
    ("WRITE at offset 2", in_the_middle, (0, 0, b"abXX"), (0, 0, b"abXXefgh"), (0, 0, b"abXX")),
    ("PLAIN_WRITE without prepare", plain, (0, 0, -84), (0, 0, b"abXXefgh"), (0, 0, -84)),
    ("APPEND to a missing key", append_to_nothing, (0, b"XX"), (0, b"XX"), (0, b"XX")),
    ("WRITE of 0 bytes, new key", nothing_to_nothing, (-2, -2), (-22, -2), (-2, -2)),
    ("WRITE of 0 bytes, old key", nothing_to_old, (0, 0, OLD), (0, -22, -2), (0, 0, OLD)),
    ("READ at or past the end", read_at_the_end, (0, -7, -7), (0, NEVER, NEVER), (0, -7, -7)),
    ("READ crossing the end", read_across_the_end, (0, b"gh"), (0, b"gh"), (0, b"gh")),
    ("READ, LOOKUP of a missing key", missing, (-2, -2), (-2, -2), (-2, -2)),
    ("LOOKUP of an object", look_up, (8,), -22, (8,)),
    ("DEL of a missing key", remove_nothing, -2, 0, -2),
    ("timestamps", when, 7.5, 0.0, 7.5),
    ("READ of a prepared record", prepared, (0, OUT_OF_STEP, 0, OLD), (0, OLD, 0, OLD), (0, -2, 0, OLD)),
    ("COMPARE_AND_SWAP: missing, stale, right", swaps, (0, -77, b"1", 0, b"3"), (0, -77, b"1", 0, b"3"),
     (0, -77, b"1", 0, b"3")),
    ("a record written with NOCSUM", without_checksum, (0, OLD, 0, OLD + b"X"), (0, OLD, 0, OLD + b"X"),
     (0, OLD, 0, OLD + b"X")),
    ("READ without attributes", without_attributes, -22, -22, -22),
)  # fmt: skip


class RowTests(SynchronousTestCase):
    def rows(self, version, filesystem, column):
        for name, done, *expected in ROWS:
            self.assertEqual(done(Node(self, version, filesystem)), expected[column], name)

    def test_eblob(self):
        self.rows("2.24", False, 0)

    def test_filesystem(self):
        self.rows("2.24", True, 1)

    def test_eblob_of_2_26(self):
        self.rows("2.26", False, 2)

    def test_eblob_of_3_0(self):
        self.rows("3.0", False, 2)
