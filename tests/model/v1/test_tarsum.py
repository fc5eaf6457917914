"""TarSum: the published values, in any compression and any batches, and none for what is no whole archive."""

import gzip
import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.archives import COMPRESSORS, END, header, member, pax
from tests.model.profile import FEW
from tests.model.v1 import vectors
from txregistry.model.decompress import Limits
from txregistry.model.v1 import tarsum
from txregistry.model.v1.tarsum import TarSum


def sums(*batches, json=vectors.JSON, limits=None):
    found = TarSum(json, limits or Limits())
    for batch in batches:
        found.feed(batch)
    return found.finish(), found.diff_id and str(found.diff_id)


class VectorTests(SynchronousTestCase):
    def test_any_compression(self):
        self.assertEqual(sums(vectors.GZIP), (vectors.TARSUM, vectors.DIFF_ID))
        for name, compress in COMPRESSORS.items():
            with self.subTest(name):
                self.assertEqual(sums(compress(vectors.PLAIN)), (vectors.TARSUM, vectors.DIFF_ID))

    def test_pax(self):
        layer = pax({b"mtime": b"1390255309.75", b"SCHILY.xattr.user.t": b"v1"}) + member(b"f", b"hi") + END
        self.assertEqual(sums(layer)[0], vectors.TARSUM_OF_PAX)

    def test_no_members(self):
        for layer in (b"", bytes(512), END, gzip.compress(b""), gzip.compress(END)):
            self.assertEqual(sums(layer)[0], vectors.TARSUM_OF_NOTHING)

    def test_by_hand(self):
        """The rule, written out once more for one file."""
        layer = member(b"a", b"xyz", mode=0o644, uid=5, gid=6, mtime=7, uname=b"u", gname=b"g")
        text = b"namea" b"mode420" b"uid5" b"gid6" b"size3" b"mtime7" b"typeflag0" b"linkname" b"unameu" b"gnameg"
        first = hashlib.sha256(text + b"devmajor0" + b"devminor0" + b"xyz").hexdigest()
        wanted = hashlib.sha256(b"{}" + first.encode()).hexdigest()
        self.assertEqual(sums(layer, json=b"{}")[0], f"tarsum+sha256:{wanted}")


class BatchTests(SynchronousTestCase):
    @FEW
    @given(st.sampled_from(sorted(COMPRESSORS)), st.data())
    def test_any_split(self, name, data):
        layer = COMPRESSORS[name](vectors.PLAIN)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(layer)), max_size=8)))
        batches = [layer[a:b] for a, b in zip([0, *cuts], [*cuts, len(layer)], strict=True)]
        self.assertEqual(sums(*batches), (vectors.TARSUM, vectors.DIFF_ID))

    def test_order_does_not_matter(self):
        members = [member(b"f%d" % n, b"x" * n) for n in range(20)]
        wanted = sums(b"".join(members))[0]
        random.Random(7).shuffle(members)
        self.assertEqual(sums(b"".join(members))[0], wanted)
        self.assertNotEqual(sums(b"".join(members[1:]))[0], wanted)


class NoneTests(SynchronousTestCase):
    def test_no_archive(self):
        good = vectors.PLAIN
        for layer in (
            b"not a tar",
            b"x" * 600,
            b"\1" * 5000,
            good[:1000],
            good[:700] + b"garbage!" + good[708:],
            good[:512] + b"\xff" * 512 + good[1024:],
            gzip.compress(b"not a tar"),
            gzip.compress(good)[:-1],
            gzip.compress(good)[:-8] + bytes(8),
            gzip.compress(good) + b"garbage",
            COMPRESSORS["xz"](good)[:-1],
        ):
            with self.subTest(layer[:10]):
                self.assertEqual(sums(layer, b"more"), (None, None))

    def test_damage_behind_the_first_member(self):
        """A second header that cannot be read does not end the archive."""
        layer = bytearray(member(b"a", b"x") + member(b"b", b"y") + END)
        layer[1024 + 5] ^= 1
        self.assertEqual(sums(bytes(layer)), (None, None))

    def test_sparse_has_a_diff_id(self):
        layer = member(b"a", b"x") + header(b"s", b"S", 0) + END
        wanted = "sha256:" + hashlib.sha256(layer).hexdigest()
        self.assertEqual(sums(layer), (None, wanted))
        self.assertEqual(sums(gzip.compress(layer)), (None, wanted))

    def test_links_with_sizes(self):
        """Only the header counts, with the size as it is stored."""
        self.assertIsNotNone(sums(header(b"l", b"1", 99, linkname=b"x") + END)[0])

    def test_too_many_members(self):
        self.patch(tarsum, "MEMBER_LIMIT", 3)
        layer = member()
        self.assertIsNotNone(sums(layer * 3)[0])
        found, diff_id = sums(layer * 4)
        self.assertIsNone(found)
        self.assertEqual(diff_id, "sha256:" + hashlib.sha256(layer * 4).hexdigest())

    def test_bomb(self):
        layer = COMPRESSORS["bzip2"](bytes(2**22))
        self.assertEqual(sums(layer, limits=Limits(ratio=10, slack=1000)), (None, None))

    def test_compression(self):
        found = TarSum(b"{}")
        self.assertIsNone(found.compression)
        found.feed(vectors.GZIP)
        self.assertEqual(found.compression, "gzip")
        found.feed(b"garbage")
        self.assertIsNone(found.compression)

    @FEW
    @given(st.lists(st.binary(max_size=700), max_size=5))
    def test_never_fails(self, batches):
        found, _ = sums(*batches)
        if any(batch.strip(b"\0") for batch in batches):
            self.assertIsNone(found)
