"""The state of an upload session, and the chunks that it takes."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import ChunkOutOfOrder, RangeInvalid, SizeInvalid
from txregistry.model.digest import ALGORITHMS, Digest
from txregistry.model.uploads import (
    STATE_LIMIT,
    VERDICTS,
    Begins,
    Length,
    UploadState,
    check_chunk,
    check_received,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=10,
)


class UploadStateTests(SynchronousTestCase):
    @FEW
    @given(st.sampled_from(sorted(ALGORITHMS)), st.sets(st.sampled_from(sorted(ALGORITHMS))), st.binary(max_size=9))
    def test_round_trip(self, algorithm, running, data):
        state = UploadState(algorithm, {name: Digest.of(data, name).hex for name in running}, data or None)
        encoded = state.encode()
        self.assertLessEqual(len(encoded), STATE_LIMIT)
        self.assertEqual(UploadState.decode(encoded), state)

    @FEW
    @given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_garbage_is_not_known(self, data):
        self.assertEqual(UploadState.decode(data), UploadState())

    def test_part_that_can_be_read(self):
        good = Digest.of(b"").hex
        for document, wanted in [
            ({"algorithm": "md5", "digests": {"sha256": good}}, UploadState("sha256", {"sha256": good})),
            ({"algorithm": ["sha512"], "digests": []}, UploadState()),
            ({"algorithm": "sha512", "digests": {"sha512": good, "sha256": 3}}, UploadState("sha512")),
            ({"digests": {"sha256": good.upper()}}, UploadState()),
            ({"hasher": "0g"}, UploadState()),
            ({"hasher": 7}, UploadState()),
            ({"hasher": "0a"}, UploadState(hasher=b"\n")),
            ({"digests": {"sha256": good[:-1] + "\u0661"}}, UploadState()),
        ]:
            self.assertEqual(UploadState.decode(json.dumps(document).encode()), wanted)
        self.assertEqual(UploadState.decode(b"[" * 100_000), UploadState())


class ChunkTests(SynchronousTestCase):
    def test_table_is_whole(self):
        impossible = {(Begins.UNTOLD, Length.DIFFERS)}
        self.assertEqual(set(VERDICTS), set(itertools.product(Begins, Length)) - impossible)

    def test_taken(self):
        for offset, chunk, length in [
            (0, None, None), (5, None, 0), (5, None, 7), (0, (0, 4), 5), (5, (5, 9), 5), (5, (5, 9), None),
        ]:  # fmt: skip
            with self.subTest((offset, chunk, length)):
                check_chunk(offset, chunk, length)

    def test_out_of_order(self):
        for offset, chunk, length in [(0, (1, 2), 2), (5, (0, 4), 5), (5, (6, 9), None), (5, (4, 9), 1)]:
            with self.subTest((offset, chunk, length)):
                error = self.assertRaises(ChunkOutOfOrder, check_chunk, offset, chunk, length)
                self.assertIsInstance(error, RangeInvalid)
                self.assertEqual(error.offset, offset)

    def test_wrong_size(self):
        for chunk, length in [((5, 9), 4), ((5, 9), 6), ((5, 5), 0)]:
            with self.subTest((chunk, length)):
                error = self.assertRaises(SizeInvalid, check_chunk, 5, chunk, length)
                self.assertEqual(error.detail["length"], length)

    def test_received(self):
        check_received(None, 17)
        check_received((5, 9), 5)
        for received in (0, 4, 6):
            self.assertRaises(SizeInvalid, check_received, (5, 9), received)
