"""Decompression: every compression, in any batches, whole or refused, within its limits."""

import bz2
import gzip
import lzma
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.archives import COMPRESSORS
from tests.model.profile import FEW
from txregistry.model import decompress
from txregistry.model.decompress import PIECE, DecompressionFailed, Decompressor, Limits

DATA = bytes(range(256)) * 40
MAGICS = [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x5d\0\0\x80\0", b"\x28\xb5\x2f\xfd"]


def plain(*batches, limits=None):
    pieces: list[bytes] = []
    decompressor = Decompressor(lambda piece: pieces.append(bytes(piece)), limits or Limits())
    for batch in batches:
        decompressor.feed(batch)
    decompressor.finish()
    return b"".join(pieces), decompressor.name


class WholeTests(SynchronousTestCase):
    def test_each(self):
        for name, compress in COMPRESSORS.items():
            with self.subTest(name):
                for data in (DATA, b""):
                    if data or name != "plain":
                        self.assertEqual(plain(compress(data)), (data, name))

    def test_zstd_is_tested(self):
        """The test environment has zstd; without it the others would silently not cover it."""
        self.assertIn("zstd", COMPRESSORS)

    @FEW
    @given(st.sampled_from(sorted(COMPRESSORS)), st.binary(max_size=300), st.data())
    def test_any_batches(self, name, data, draw):
        stream = COMPRESSORS[name](data + DATA)
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        batches = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(plain(*batches), (data + DATA, name))

    def test_byte_by_byte(self):
        for name, compress in COMPRESSORS.items():
            stream = compress(DATA)
            self.assertEqual(plain(*(stream[n : n + 1] for n in range(len(stream)))), (DATA, name))

    def test_large_and_repetitive(self):
        data = bytes(5 * PIECE + 17)
        for name, compress in COMPRESSORS.items():
            with self.subTest(name):
                self.assertEqual(plain(compress(data))[0], data)

    def test_repetitions_across_the_end_of_a_piece(self):
        """Deflate may owe the rest of a repetition when a piece is full and its input used up."""
        for extra in range(-300, 300, 7):
            data = b"x" + bytes(PIECE + extra)
            stream = gzip.compress(data)
            self.assertEqual(plain(stream[:-8], stream[-8:])[0], data)

    def test_members(self):
        for name, compress in COMPRESSORS.items():
            if name not in ("plain", "lzma"):
                stream = compress(b"one,") + compress(b"") + compress(b"two")
                with self.subTest(name):
                    self.assertEqual(plain(stream)[0], b"one,two")
                    self.assertEqual(plain(*(stream[n : n + 1] for n in range(len(stream))))[0], b"one,two")

    def test_padding(self):
        self.assertEqual(plain(gzip.compress(b"one") + bytes(600) + gzip.compress(b"two"), bytes(512))[0], b"onetwo")
        self.assertEqual(plain(lzma.compress(b"one") + bytes(8) + lzma.compress(b"two"))[0], b"onetwo")

    def test_zstd_frames_to_skip(self):
        skipped = b"\x5f\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
        stream = COMPRESSORS["zstd"](b"data")
        self.assertEqual(plain(skipped + stream + skipped), (b"data", "zstd"))

    def test_plain(self):
        for data in (b"", b"x", b"\x1f\x8b", b"BZ", b"plain text"):
            self.assertEqual(plain(data), (data, "plain"))


class RefusedTests(SynchronousTestCase):
    def test_cut_short(self):
        for name, compress in COMPRESSORS.items():
            stream = compress(DATA)
            if name != "plain":
                for cut in (7, len(stream) // 2, len(stream) - 1):
                    with self.subTest((name, cut)):
                        self.assertRaises(DecompressionFailed, plain, stream[:cut])
        self.assertRaises(DecompressionFailed, plain, gzip.compress(b"one") + gzip.compress(b"two")[:-1])
        self.assertRaises(DecompressionFailed, plain, b"\x1f\x8b\x08")

    def test_damaged(self):
        for name, compress in COMPRESSORS.items():
            if name not in ("plain", "lzma", "zstd"):  # lzma has no sum, zstd's is optional
                stream = bytearray(compress(DATA))
                for position in (-5, -12, len(stream) // 2):
                    damaged = bytearray(stream)
                    damaged[position] ^= 0x55
                    with self.subTest((name, position)):
                        self.assertRaises(DecompressionFailed, plain, bytes(damaged))

    def test_wrong_gzip_sum(self):
        stream = gzip.compress(DATA)
        self.assertRaises(DecompressionFailed, plain, stream[:-8] + bytes(4) + stream[-4:])
        self.assertRaises(DecompressionFailed, plain, stream[:-4] + bytes(4))

    def test_garbage_behind(self):
        for name in ("gzip", "bzip2", "xz", "zstd", "lzma"):
            for garbage in (b"garbage", b"\1"):
                with self.subTest((name, garbage)):
                    self.assertRaises(DecompressionFailed, plain, COMPRESSORS[name](DATA) + garbage)

    def test_without_zstd(self):
        self.patch(decompress, "_zstd", None)
        self.assertRaises(DecompressionFailed, plain, b"\x28\xb5\x2f\xfd" + bytes(20))

    @FEW
    @given(st.sampled_from(MAGICS), st.binary())
    def test_garbage_behind_the_first_bytes(self, magic, data):
        try:
            plain(magic + data)
        except DecompressionFailed:
            return


class LimitTests(SynchronousTestCase):
    def test_output(self):
        limits = Limits(output=1000)
        for compress in COMPRESSORS.values():
            self.assertEqual(len(plain(compress(bytes(1000)), limits=limits)[0]), 1000)
            self.assertRaises(DecompressionFailed, plain, compress(bytes(1001)), limits=limits)

    def test_ratio(self):
        """A bomb is noticed long before it has gone off."""
        given_on: list[int] = []
        limits = Limits(ratio=1100, slack=PIECE)
        for bomb in (bz2.compress(bytes(2**24)), lzma.compress(bytes(2**24)), COMPRESSORS["zstd"](bytes(2**25))):
            given_on.clear()
            decompressor = Decompressor(lambda piece: given_on.append(len(piece)), limits)
            self.assertRaises(DecompressionFailed, decompressor.feed, bomb)
            self.assertLessEqual(sum(given_on), limits.slack + limits.ratio * len(bomb))
        data = bytes(2**24)
        self.assertEqual(plain(gzip.compress(data), limits=limits)[0], data)

    def test_pieces_are_small(self):
        sizes: list[int] = []
        stream = zlib.compressobj(wbits=31)
        decompressor = Decompressor(lambda piece: sizes.append(len(piece)))
        decompressor.feed(stream.compress(bytes(2**22)) + stream.flush())
        decompressor.finish()
        self.assertEqual(sum(sizes), 2**22)
        self.assertLessEqual(max(sizes), PIECE)

    def test_memory(self):
        data = DATA * 3
        stream = lzma.compress(data, preset=9)
        self.assertEqual(plain(stream)[0], data)
        self.assertRaises(DecompressionFailed, plain, stream, limits=Limits(memory=2**20))
