"""Frames, ids and index tables, byte by byte."""

import contextlib
import hashlib
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txregistry.storage.elliptics import index, wire
from txregistry.storage.elliptics.wire import DIALECTS, Attributes, Broken, Header

OLD, OLDER_25, MIDDLE, NEW, LAST = DIALECTS
AB = "ffe27ee168e663cb"


class HeaderTests(SynchronousTestCase):
    def test_lengths(self):
        self.assertEqual([dialect.header.size for dialect in DIALECTS], [104, 104, 108, 120, 120])

    def test_where_the_fields_are(self):
        header = Header(b"\x11" * 64, 0x22222222, -2, 0x33, 0x44, 0x55, 0x66)
        places = {
            OLD: {64: "22222222", 68: "00000000", 72: "feffffff", 76: "33000000", 80: "4400000000000000",
                  88: "5500000000000000", 96: "6600000000000000"},
            MIDDLE: {68: "00" * 8, 76: "feffffff", 80: "33000000", 84: "44" + "00" * 7, 92: "55" + "00" * 7,
                     100: "66" + "00" * 7},
            NEW: {68: "00" * 8, 76: "feffffff", 80: "33000000", 88: "00" * 8, 96: "44" + "00" * 7,
                  104: "55" + "00" * 7, 112: "66" + "00" * 7},
        }  # fmt: skip
        for dialect, fields in places.items():
            data = wire.pack_header(dialect, header)
            self.assertEqual(data[:64], b"\x11" * 64)
            for at, text in fields.items():
                self.assertEqual(data[at : at + len(text) // 2].hex(), text, (dialect.name, at))
            self.assertEqual(wire.unpack_header(dialect, data), header)

    def test_both_marks_of_a_reply(self):
        self.assertTrue(Header(bytes(64), 0, 0, 4, 0, 1 << 63 | 7, 0).is_reply)
        self.assertTrue(Header(bytes(64), 0, 0, 4, 512, 7, 0).is_reply)
        self.assertFalse(Header(bytes(64), 0, 0, 4, 1, 7, 0).is_reply)
        self.assertEqual(Header(bytes(64), 0, 0, 4, 0, 1 << 63 | 7, 0).answers, 7)
        self.assertFalse(Header(bytes(64), 0, 0, 4, 3, 7, 0).is_last)

    def test_handshake(self):
        """As a client of 2.24.15.18 says it."""
        data = wire.hello(OLD)
        self.assertEqual(data[:24].hex(), "02000000180000000f00000012000000" + "00" * 8)
        self.assertEqual(data[24:76].hex(), "00" * 52)
        self.assertEqual(data[76:104].hex(), "02000000" + "18" + "00" * 7 + "00" * 8 + "00" * 8)

    def test_answer_of_2_24(self):
        identity = struct.pack("<4i4xi", 2, 24, 15, 18, 2).ljust(64, b"\0")
        body = bytes.fromhex("01000000" + "02000401" + "7f000001" + "aa" * 20 + "10000200") + bytes(64)
        self.assertEqual(len(body), 0x64)
        peer = wire.read_hello(OLD, Header(identity, 1, 0, 2, 0x10, 1 << 63, 0x64), body)
        self.assertEqual(peer, wire.Peer((2, 24, 15, 18), 2, (1,)))

    def test_answer_of_2_26(self):
        """Groups are named by back-end; the header says 0."""
        identity = struct.pack("<4i4xi", 2, 26, 11, 1, 2).ljust(64, b"\0")
        body = struct.pack("<ii", 1, 1) + bytes(32) + struct.pack("<i", 2)
        body += struct.pack("<iiII", 0, 1, 0, 2) + bytes(128) + struct.pack("<iiII", 1, 2, 0, 1) + bytes(64)
        header = Header(identity, 0, 0, 2, 512, 0, len(body))
        self.assertEqual(wire.read_hello(NEW, header, body).groups, (1, 2))
        for cut in (len(body) - 1, len(body) - 70, 44, 41, 3):
            self.assertRaises(Broken, wire.read_hello, NEW, header, body[:cut])

    def test_address(self):
        """Behind the length that it tells lies what lay there before."""
        v4 = bytes.fromhex("020004017f000001" + "aa" * 20 + "10000200")
        self.assertEqual(wire.unpack_address(v4), ("127.0.0.1", 1025, 2))
        v6 = bytes.fromhex("0a000401" + "00000000" + "00" * 15 + "01" + "aaaaaaaa" + "1c000a00")
        self.assertEqual(wire.unpack_address(v6), ("::1", 1025, 10))
        self.assertIsNone(wire.unpack_address(v4[:-2] + b"\x01\0"))

    def test_neighbours(self):
        """A message for each server with its ids, or one for all without."""
        one, two = (bytes.fromhex(f"0200{port}7f000001" + "aa" * 20 + "10000200") for port in ("0401", "0402"))
        nodes = [("127.0.0.1", 1025, 2), ("127.0.0.1", 1026, 2)]
        start = struct.pack("<i", 1)
        self.assertEqual(wire.read_neighbours(OLD, [start + one + bytes(64), start + two + bytes(128)]), nodes)
        self.assertEqual(wire.read_neighbours(NEW, [struct.pack("<ii", 1, 2) + one + two]), nodes)
        for dialect, body in ((OLD, b"abc"), (OLD, struct.pack("<i", 2) + one), (OLD, struct.pack("<i", -1)),
                              (NEW, struct.pack("<ii", 1, 2) + one), (NEW, start)):  # fmt: skip
            self.assertRaises(Broken, wire.read_neighbours, dialect, [body])

    def test_request(self):
        """The WRITE of two bytes to `a/b` in group 1, as it was seen."""
        id_ = wire.identify("DOCKER", "a/b")
        self.assertTrue(id_.hex().startswith(AB))
        parts = [wire.pack_attributes(Attributes(id_, size=2)), b"hi"]
        data = wire.request(OLD, id_, 1, wire.WRITE, 2, parts)
        self.assertEqual(data[:8].hex(), AB)
        self.assertEqual(data[64:].hex(), "01000000" + "00" * 8 + "04000000" + "01" + "00" * 7 + "02" + "00" * 7
                         + "d2" + "00" * 7)  # fmt: skip


class AttributeTests(SynchronousTestCase):
    def test_where_the_fields_are(self):
        data = wire.pack_attributes(Attributes(b"\x11" * 64, 0x2100, 5, 6, 7.5, 8, b"\x22" * 64))
        self.assertEqual(len(data), 208)
        self.assertEqual(data[:128], b"\x22" * 64 + b"\x11" * 64)
        self.assertEqual(struct.unpack_from("<QQ", data, 144), (7, 500_000_000))
        self.assertEqual(struct.unpack_from("<Q", data, 168), (8,))
        self.assertEqual(struct.unpack_from("<IQQ", data, 188), (0x2100, 5, 6))
        self.assertEqual(wire.unpack_attributes(data), Attributes(b"\x11" * 64, 0x2100, 5, 6, 7.5, 8, b"\x22" * 64))

    def test_too_short(self):
        """An old server with a prepared record announces 160 bytes."""
        self.assertRaises(Broken, wire.unpack_attributes, bytes(160))

    def test_without_a_namespace(self):
        self.assertEqual(wire.identify("", "a/b"), hashlib.sha512(b"a/b").digest())


class IndexTests(SynchronousTestCase):
    def test_tables(self):
        id_ = wire.identify("DOCKER", "a/b")
        self.assertTrue(index.object_table(id_).hex().startswith("18f1a7de511dde0f"))
        first, second = (index.index_table(id_, shard, 2) for shard in (0, 1))
        self.assertEqual((first[:32].hex(), second[:32].hex()), ("00" * 32, "80" + "00" * 31))
        self.assertEqual(first[32:], second[32:])

    def test_lengths(self):
        """One entry with three bytes is 0xe7 long, a search in two shards 0x1c8."""
        old, middle, new = (index.layout_of(version) for version in ((2, 24, 15, 18), (2, 25, 6, 0), (2, 26, 11, 1)))
        self.assertEqual([len(index.update_request(layout, bytes(64), 1, [(bytes(64), b"a/b")]))
                          for layout in (old, middle, new)], [0xE7, 0xE7 + 4, 136 + 124 + 3])  # fmt: skip
        header, body = index.find_request(old, [wire.identify("DOCKER", "docker")], 1, 2)
        self.assertEqual((len(body), header[:4]), (0x1C8, bytes(4)))
        self.assertEqual(struct.unpack_from("<III", body, 72), (9, 0, 2))
        self.assertEqual(struct.unpack_from("<III", body, 0xE4 + 72), (1, 1, 2))

    def test_found(self):
        """An answer as it was seen: one object, one table, three bytes."""
        table = b"\x07" * 64
        answer = b"\x91\x93\x01\xda\x00\x40" + bytes(64) + b"\x91\x92\xda\x00\x40" + table + b"\xa3a/b"
        self.assertEqual(len(answer), 0x8F)
        self.assertEqual(list(index.found(answer, {table})), [b"a/b"])
        self.assertEqual(list(index.found(answer, set())), [])
        self.assertEqual(list(index.found(b"\x90", {table})), [])

    def test_unpack(self):
        for data, value in ((b"\x05", 5), (b"\xff", -1), (b"\xcd\x01\x00", 256), (b"\xd2\xff\xff\xff\xfe", -2),
                            (b"\xdb\x00\x00\x00\x01x", b"x"), (b"\xdc\x00\x02\x01\xa1y", [1, b"y"])):  # fmt: skip
            self.assertEqual(index.unpack(data), value)
        for data in (b"", b"\x92\x01", b"\xda\x00\x05abc", b"\xdd\xff\xff\xff\xff", b"\x91" * 50 + b"\x01", b"\xc1",
                     b"\x01\x01"):  # fmt: skip
            self.assertRaises(Broken, index.unpack, data)

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(st.binary(max_size=200))
    def test_nonsense(self, data):
        """Whatever a server sends, it is a value or Broken."""
        with contextlib.suppress(Broken):
            list(index.found(data, {b"x"}))
        for dialect in DIALECTS:
            header = Header(data.ljust(64, b"\0")[:64], 1, 0, wire.REVERSE_LOOKUP, 0, 0, len(data))
            try:
                wire.read_hello(dialect, header, data)
            except Broken:
                continue
