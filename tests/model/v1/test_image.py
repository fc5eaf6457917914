"""The checks of a V1 image's JSON, its ancestry, and the states of its push."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.profile import FEW
from txregistry.errors import V1Conflict, V1Error, V1NotFound
from txregistry.model.v1.image import (
    STEPS,
    Event,
    Refusal,
    State,
    build_ancestry,
    check_listed,
    check_parent,
    parse_ancestry,
    parse_image,
    parse_parent,
    state_of,
    step,
)
from txregistry.model.v1.names import ImageId

ID = ImageId("a" * 64)
PARENT = ImageId("b" * 64)


def parse(document, checksum=None):
    return parse_image(json.dumps(document).encode(), ID, checksum)


class ParseTests(SynchronousTestCase):
    def test_accepted(self):
        data = b'{"id":"' + ID.text.encode() + b'", "parent": "' + PARENT.text.encode() + b'"}  '
        image = parse_image(data, ID, "sha256:abc")
        self.assertEqual((image.data, image.image_id, image.parent, image.announced), (data, ID, PARENT, "sha256:abc"))
        nothing: list[object] = [None, "", 0, [], False]
        for parent in nothing:
            self.assertIsNone(parse({"id": ID.text, "parent": parent}).parent)
        self.assertIsNone(parse({"id": ID.text}, "").announced)

    def test_first_thing_wrong(self):
        for data, checksum, message in [
            (b"", "bad", "Invalid JSON"),
            (b"{", None, "Invalid JSON"),
            (b"\xff", None, "Invalid JSON"),
            (b"[" * 100_000, None, "Invalid JSON"),
            (b"{}", "bad", "Invalid JSON"),
            (b"[1]", None, "Invalid JSON"),
            (b'"x"', None, "Invalid JSON"),
            (b'{"a": 1}', "bad", "Missing key `id' in JSON"),
            (b'{"id": "other"}', "bad", "Invalid checksum format"),
            (b'{"id": "other"}', "a:b:c", "Invalid checksum format"),
            (b'{"id": "other"}', "a:b", "JSON data contains invalid id"),
            (b'{"id": null}', None, "JSON data contains invalid id"),
            (b'{"id": ["x"]}', None, "JSON data contains invalid id"),
        ]:
            with self.subTest((data[:20], checksum)):
                self.assertEqual(self.assertRaises(V1Error, parse_image, data, ID, checksum).message, message)

    def test_impossible_parents(self):
        for parent in (7, ["x"], "../x", ".", "a/b", "x\0", ID.text):
            with self.subTest(parent):
                error = self.assertRaises(V1Error, parse, {"id": ID.text, "parent": parent})
                self.assertEqual(error.message, "Image depends on a non existing parent")
                self.assertNotIsInstance(error, V1NotFound)

    def test_checks_that_need_the_store(self):
        image = parse({"id": ID.text, "parent": PARENT.text})
        check_parent(image, True)
        check_parent(parse({"id": ID.text}), False)
        error = self.assertRaises(V1Error, check_parent, image, False)
        self.assertEqual(error.message, "Image depends on a non existing parent")
        check_listed(ID, {ID.text, "x"})
        for listed in (None, [], ["x"]):
            error = self.assertRaises(V1Error, check_listed, ID, listed)
            self.assertEqual(error.message, "This image does not belong to the repository")

    def test_stored_parent(self):
        self.assertEqual(parse_parent(json.dumps({"id": "x", "parent": PARENT.text}).encode()), PARENT)
        for data in (b"", b"{}", b'{"id": "x"}', b'{"parent": ".."}', b'{"parent": 7}'):
            self.assertIsNone(parse_parent(data))

    @FEW
    @given(st.binary(max_size=30), st.none() | st.text(max_size=10))
    def test_never_another_error(self, data, checksum):
        self.assertRaises(V1Error, parse_image, data, ID, checksum)


class AncestryTests(SynchronousTestCase):
    def test_built(self):
        image = parse({"id": ID.text, "parent": PARENT.text})
        self.assertEqual(build_ancestry(image, [PARENT.text, "c"]), f'["{ID}", "{PARENT}", "c"]'.encode())
        self.assertEqual(build_ancestry(image, []), f'["{ID}"]'.encode())
        self.assertRaises(V1Error, build_ancestry, image, [PARENT.text, ID.text])

    def test_read(self):
        self.assertEqual(parse_ancestry(b'[\n    "a", "b"\n]'), ("a", "b"))
        for data in (b"", b"{}", b'"a"', b'["a", 1]', b"\xff", b"[" * 100_000):
            self.assertIsNone(parse_ancestry(data))


class StateTests(SynchronousTestCase):
    def test_table_is_whole(self):
        self.assertEqual(set(STEPS), set(itertools.product(State, Event)))

    def test_states_of_files(self):
        for json_, layer, mark, wanted in [
            (False, False, False, State.NOTHING),
            (False, True, True, State.NOTHING),
            (True, False, True, State.JSON),
            (True, False, False, State.JSON),
            (True, True, True, State.LAYER),
            (True, True, False, State.DONE),
        ]:
            self.assertEqual(state_of(json_, layer, mark), wanted)

    def test_both_pushes(self):
        announced = [Event.PUT_JSON, Event.PUT_LAYER, Event.LAYER_MATCHED]
        afterwards = [Event.PUT_JSON, Event.PUT_LAYER, Event.LAYER_UNCHECKED, Event.CHECKSUM_MATCHED]
        retried = [Event.PUT_JSON, Event.PUT_LAYER, Event.PUT_JSON, *afterwards]
        for events in (announced, afterwards, retried):
            state = State.NOTHING
            for event in events:
                state = step(state, event)
            self.assertEqual(step(state, Event.READ), State.DONE)

    def test_refusals(self):
        for state, event, error, message in [
            (State.NOTHING, Event.READ, V1NotFound, "Image not found"),
            (State.NOTHING, Event.PUT_LAYER, V1NotFound, "Image not found"),
            (State.NOTHING, Event.CHECKSUM_MATCHED, V1NotFound, "Image not found"),
            (State.JSON, Event.READ, V1Error, "Image is being uploaded, retry later"),
            (State.LAYER, Event.READ, V1Error, "Image is being uploaded, retry later"),
            (State.JSON, Event.PUT_CHECKSUM, V1Error, "Checksum not found in Cookie"),
            (State.JSON, Event.LAYER_MISMATCHED, V1Error, "Checksum mismatch, ignoring the layer"),
            (State.LAYER, Event.CHECKSUM_MISMATCHED, V1Error, "Checksum mismatch"),
            (State.DONE, Event.PUT_JSON, V1Conflict, "Image already exists"),
            (State.DONE, Event.PUT_LAYER, V1Conflict, "Image already exists"),
            (State.DONE, Event.CHECKSUM_MATCHED, V1Conflict, "Cannot set this image checksum"),
            (State.DONE, Event.CHECKSUM_LATE, V1Conflict, "Image already exists"),
        ]:
            with self.subTest((state, event)):
                found = self.assertRaises(error, step, state, event)
                self.assertEqual((type(found), found.message), (error, message))

    def test_a_finished_image_never_changes(self):
        for (state, event), outcome in STEPS.items():
            if state is State.DONE:
                self.assertTrue(outcome is State.DONE or isinstance(outcome, Refusal), event)
            if event is Event.READ and state is not State.DONE:
                self.assertIsInstance(outcome, Refusal)
