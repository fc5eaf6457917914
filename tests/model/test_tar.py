"""The tar reader: what it takes for whole, what it makes of headers, and that batches make no difference."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.archives import END, base256, header, member, padded, pax, record
from tests.model.profile import FEW
from txregistry.model.tar import EXTENSION_LIMIT, Member, TarError, TarReader, TarUnsupported


class Seen:
    """A sink that keeps all it is told."""

    def __init__(self):
        self.members: list[tuple[Member, bytes]] = []
        self._content = bytearray()

    def begin(self, member):
        self._member = member
        self._content.clear()

    def content(self, piece):
        self._content += piece

    def end(self):
        self.members.append((self._member, bytes(self._content)))


def read(*pieces):
    seen = Seen()
    reader = TarReader(seen)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return seen.members


def one(*pieces):
    ((found, _),) = read(*pieces)
    return found


NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)
ARCHIVES = st.lists(
    st.one_of(
        st.builds(member, NAMES, st.binary(max_size=1500)),
        st.builds(lambda name: member(b"link", kind=b"2", linkname=name), NAMES),
        st.builds(lambda n: member(b"@", b"n" * n + b"\0", b"L") + member(b"s", b"content"), st.integers(1, 1200)),
        st.builds(lambda n: pax({b"path": b"p" * n, b"comment": b"c"}) + member(), st.integers(1, 1200)),
    ),
    max_size=5,
).map(b"".join)


class BatchTests(SynchronousTestCase):
    @FEW
    @given(ARCHIVES, st.sampled_from([b"", bytes(512), END, END + b"whatever"]), st.data())
    def test_any_split_is_the_whole(self, archive, end, data):
        archive += end
        cuts = sorted(data.draw(st.lists(st.integers(0, len(archive)), max_size=8)))
        pieces = [archive[a:b] for a, b in zip([0, *cuts], [*cuts, len(archive)], strict=True)]
        self.assertEqual(read(*pieces), read(archive))

    def test_byte_by_byte(self):
        archive = pax({b"path": b"p" * 600}) + member(b"x", b"content") + member(b"y") + END
        self.assertEqual(read(*(archive[n : n + 1] for n in range(len(archive)))), read(archive))

    @FEW
    @given(ARCHIVES, st.data())
    def test_a_cut_is_seen_except_at_headers(self, archive, data):
        if not archive:
            return
        cut = data.draw(st.integers(1, len(archive) - 1))
        whole = read(archive)
        try:
            found = read(archive[:cut])
        except TarError:
            return
        self.assertEqual(cut % 512, 0)
        self.assertEqual(found, whole[: len(found)])

    @FEW
    @given(st.binary(max_size=2000))
    def test_garbage(self, data):
        if data.strip(b"\0"):
            self.assertRaises(TarError, read, data.ljust(512, b"\1"))

    @FEW
    @given(ARCHIVES.filter(bool), st.data())
    def test_a_damaged_header_is_seen(self, archive, data):
        position = data.draw(st.integers(0, 511))
        damaged = bytearray(archive)
        damaged[position] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16]))
        # A change to the sum's own blanks and NULs may leave it as it was.
        if not 154 <= position < 156:
            self.assertRaises(TarError, read, bytes(damaged))


class WholeTests(SynchronousTestCase):
    def test_ends(self):
        for end in (b"", bytes(512), END, END + bytes(8192), END + b"garbage behind the end"):
            with self.subTest(end[:10]):
                self.assertEqual([m.name for m, _ in read(member(b"a", b"x") + end)], [b"a"])
        self.assertEqual(read(), [])
        self.assertEqual(read(b""), [])
        self.assertEqual(read(END), [])

    def test_not_whole(self):
        good = member(b"a", b"content")
        for archive in (
            good[:100],
            good[:512],
            good[:515],
            good[:600],  # padding cut short
            good + good[:300],
            good + bytes(100),
            good + bytes(512) + good,
            good + b"x" * 512,
            good + member(b"@", b"long", b"L"),
            good + pax({b"path": b"x"}),
            good + pax({b"path": b"x"})[:700],
            good + header(b"@", b"L", EXTENSION_LIMIT + 1),
            good + header(b"@", b"x", base256(-1, 12)),
            good + header(b"@", b"0", base256(-1, 12)),
            b"\x1f\x8b\x08" + bytes(600),
        ):
            with self.subTest(len(archive)):
                self.assertRaises(TarError, read, archive)

    def test_a_member_of_a_tebibyte_is_never_there(self):
        self.assertRaises(TarError, read, header(size=base256(2**40, 12)) + bytes(5000))

    def test_sparse(self):
        for archive in (
            header(b"x", b"S", 0),
            pax({b"GNU.sparse.major": b"1"}) + member(),
            pax({b"GNU.sparse.size": b"1099511627776"}, b"g") + member(),
        ):
            self.assertRaises(TarUnsupported, read, archive)


class HeaderTests(SynchronousTestCase):
    def test_plain(self):
        found = one(member(b"etc/x", b"hello", mode=0o100755, uid=1, gid=2, mtime=3, uname=b"u", gname=b"g"))
        self.assertEqual(found, Member(b"etc/x", 0o100755, 1, 2, 5, 3, b"0", b"", b"u", b"g", 0, 0))
        self.assertTrue(found.is_regular)

    def test_numbers(self):
        for field, wanted in [
            (b"0000017\0", 15),
            (b"   17 \0", 15),
            (b"17", 15),
            (b"\0\0\x0017", 15),
            (b"", 0),
            (b"        ", 0),
            (b"17\0999", 15),
            (base256(3_000_000, 8), 3_000_000),
            (base256(-1, 8), -1),
            (base256(-70_000, 8), -70_000),
        ]:
            with self.subTest(field):
                self.assertEqual(one(member(uid=field)).uid, wanted)
        for field in (b"9", b"0x1", b"1 7", b"0o17", b"1_7", b"-1", b"+1", b"\x41"):
            with self.subTest(field):
                self.assertRaises(TarError, read, member(uid=field))
        self.assertEqual(one(member(mtime=base256(2**62, 12))).mtime, 2**62)
        self.assertRaises(TarError, read, member(mtime=base256(2**64, 12)))

    def test_names(self):
        prefix, name = b"p" * 155, b"n" * 100
        for archive, wanted in [
            (member(name, rest=prefix), prefix + b"/" + name),
            (member(name, rest=b"p" * 131 + bytes(24) + bytes(8) + b"tar\0"), b"p" * 131 + b"/" + name),
            (member(name, magic=bytes(8), rest=prefix), name),
            (member(name, magic=b"ustar  \0", rest=b"00000000017\x0000000000017\0"), name),
            (member(name, magic=b"ustar  \0", rest=b"usr/share"), b"usr/share/" + name),
            (member(b"@", b"n" * 300 + b"\0", b"L") + member(b"x"), b"n" * 300),
            (member(b"@", b"n" * 300, b"L") + member(b"x"), b"n" * 300),
            (pax({b"path": b"p" * 300}) + member(b"x"), b"p" * 300),
            (pax({b"path": b""}) + member(b"x"), b"x"),
            (pax({b"path": b"pax"}) + member(b"@", b"gnu\0", b"L") + member(b"x"), b"gnu"),
            (pax({b"path": b"\xff\xfe"}) + member(b"x"), b"\xff\xfe"),
            (member(b"./"), b"./"),
            (member(b"a//", kind=b"5"), b"a//"),
        ]:
            with self.subTest(wanted[:20]):
                self.assertEqual(one(archive).name, wanted)
        self.assertEqual(one(member(b"@", b"l" * 300 + b"\0", b"K") + member(b"x", kind=b"2")).linkname, b"l" * 300)
        self.assertRaises(TarError, read, pax({b"path": b"a\0b"}) + member())

    def test_long_names_are_for_one_member(self):
        archive = member(b"@", b"long\0", b"L") + member(b"a") + member(b"b")
        archive += pax({b"path": b"p"}) + member(b"x") + member(b"c")
        self.assertEqual([m.name for m, _ in read(archive)], [b"long", b"b", b"p", b"c"])

    def test_v7_has_no_owner_names(self):
        found = one(member(magic=bytes(8), uname=b"u", gname=b"g", devmajor=1, devminor=2))
        self.assertEqual((found.uname, found.gname, found.devmajor, found.devminor), (b"", b"", 0, 0))

    def test_old_directories(self):
        self.assertEqual(one(member(b"d/", kind=b"\0")).type, b"5")
        self.assertEqual(one(member(b"f", kind=b"\0")).type, b"\0")
        self.assertEqual(one(pax({b"path": b"d/"}) + member(b"x", kind=b"\0")).type, b"5")

    def test_signed_sums(self):
        self.assertEqual(one(header(b"\xff" * 50, signed=True)).name, b"\xff" * 50)
        self.assertEqual(one(header(b"\xff" * 50)).name, b"\xff" * 50)

    def test_links_have_no_content(self):
        for kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            found = read(header(b"l", kind, 4096) + member(b"f", b"x"))
            self.assertEqual([(m.name, m.size, content) for m, content in found], [(b"l", 4096, b""), (b"f", 1, b"x")])

    def test_other_kinds_have(self):
        for kind in (b"7", b"V", b"Z"):
            self.assertEqual(read(member(b"x", b"data", kind) + member())[0][1], b"data")


class PaxTests(SynchronousTestCase):
    def test_values(self):
        keys = {b"uid": b"3000000", b"gid": b"7", b"uname": b"u\xc3\xa9", b"gname": b"g"}
        keys |= {b"linkpath": b"l", b"size": b"4"}
        ((found, content),) = read(pax({**keys, b"SCHILY.xattr.x": b"\x01\0="}) + header() + padded(b"data"))
        self.assertEqual((found.uid, found.gid, found.uname, found.gname), (3_000_000, 7, b"u\xc3\xa9", b"g"))
        self.assertEqual((found.linkname, found.size, content), (b"l", 4, b"data"))

    def test_times(self):
        for value, wanted in [
            (b"1390255309.75", 1390255309),
            (b"1390255309", 1390255309),
            (b"0.999999999999999999999", 0),
            (b"-1", -1),
            (b"-1.5", -2),
            (b"-1.0", -1),
            (b"5.", 5),
        ]:
            self.assertEqual(one(pax({b"mtime": value}) + member()).mtime, wanted)
        for value in (b"inf", b"nan", b"1e5", b".5", b"x", b"9" * 60_000, b"1.5.5"):
            with self.subTest(value[:10]):
                self.assertRaises(TarError, read, pax({b"mtime": value}) + member())

    def test_numbers(self):
        for value in (b"x", b"1.5", b"9" * 60_000, b"0x1", b" 1"):
            for key in (b"uid", b"gid", b"size"):
                self.assertRaises(TarError, read, pax({key: value}) + member())
        self.assertRaises(TarError, read, pax({b"size": b"-1"}) + member())

    def test_global(self):
        archive = pax({b"uname": b"all", b"gname": b"all"}, b"g") + member()
        archive += pax({b"uname": b"one"}) + member() + member()
        self.assertEqual([m.uname for m, _ in read(archive)], [b"all", b"one", b"all"])
        self.assertEqual([m.gname for m, _ in read(archive)], [b"all"] * 3)

    def test_damaged(self):
        lengths = (b"0 a=b\n", b"2 \n", b"99 a=b\n", b"-6 a=b\n", b" a=b\n", b"999999999 a=b\n")
        for payload in (b"x", b"5 a=\nx", b"6 a=bc", b"6 abc\n", b"\0\0\0", record(b"a", b"b")[:-1], *lengths):
            with self.subTest(payload):
                self.assertRaises(TarError, read, member(b"@", payload, b"x") + member())


class PythonAgreesTests(SynchronousTestCase):
    """`tarfile` writes, in each of its formats, and both read."""

    def test_formats(self):
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
                for name, kind, content in [
                    ("short", tarfile.REGTYPE, b"hello"),
                    ("d/" * 60 + "n" * 80, tarfile.REGTYPE, b"x" * 3000),
                    ("empty", tarfile.REGTYPE, b""),
                    ("directory", tarfile.DIRTYPE, b""),
                    ("link", tarfile.SYMTYPE, b""),
                    ("device", tarfile.CHRTYPE, b""),
                ]:
                    info = tarfile.TarInfo(name)
                    info.type, info.size, info.mtime = kind, len(content), 1390255309
                    info.uid, info.uname, info.linkname = 1234, "us\u00e9r", "target" if kind == tarfile.SYMTYPE else ""
                    archive.addfile(info, io.BytesIO(content))
            buffer.seek(0)
            with tarfile.open(fileobj=buffer) as archive:
                wanted = [
                    (m.name.encode() + b"/" * m.isdir(), m.mode, m.uid, m.size, m.mtime, m.uname, m.linkname)
                    for m in archive.getmembers()
                ]
            found = [
                (m.name, m.mode, m.uid, m.size, m.mtime, m.uname.decode(), m.linkname.decode())
                for m, _ in read(buffer.getvalue())
            ]
            self.assertEqual(found, wanted)
