"""Lists of files and their differences, against the examples that old servers gave."""

from __future__ import annotations

import gzip
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.model.archives import COMPRESSORS, END, member, pax
from txregistry.errors import V1Error
from txregistry.model.v1.files import Differ, FileLister, ListDamaged, read_list, unhidden

FIELDS = {"mtime": 1390000000, "mode": 0o644}


def listing(archive: bytes, step: int = 1 << 20, **options: Any) -> list[Any]:
    lister = FileLister(**options)
    for at in range(0, len(archive), step):
        lister.feed(archive[at : at + step])
    found = json.loads(lister.finish())
    assert isinstance(found, list)
    return found


def entry(name: str, deleted: bool = False, kind: str = "f", size: int = 0) -> list[Any]:
    return [name, kind, deleted, size, 0, 0o644, 0, 0]


def stored(*entries: list[Any]) -> bytes:
    return json.dumps(entries).encode()


def diff(top: bytes, *below: bytes) -> Any:
    differ = Differ(top)
    for layer in below:
        differ.compare(layer)
    return {part: sorted(names) for part, names in json.loads(differ.finish()).items()}


class Listing(SynchronousTestCase):
    def test_whiteouts_and_names(self) -> None:
        members = [
            (b"./", b"", b"5", {"mode": 0o755}),
            (b"./etc/", b"", b"5", {"mode": 0o755}),
            (b"./etc/passwd", b"x" * 18, b"0", {}),
            (b"./.wh.gone", b"x" * 16, b"0", {}),
            (b"./etc/.wh.shadow", b"x" * 22, b"0", {}),
            (b"./.wh..wh.plnk", b"", b"5", {}),
            (b"./.wh..wh.plnk/1.2", b"", b"0", {}),
            (b"./etc/.wh..wh..opq", b"", b"0", {}),
            (b"a", b"x" * 7, b"0", {}),
            (b".", b"", b"5", {"mode": 0o755}),
            (b".wh.top", b"x" * 13, b"0", {}),
            (b"b/.wh.c", b"", b"0", {}),
        ]
        archive = b"".join(
            member(name, content, kind, **{**FIELDS, **more}) for name, content, kind, more in members
        )
        lister = FileLister()
        lister.feed(archive + END)
        time = ", 1390000000, "
        expected = ", ".join([
            f'["/", "d", false, 0{time}493, 0, 0]',
            f'["/etc", "d", false, 0{time}493, 0, 0]',
            f'["/etc/passwd", "f", false, 18{time}420, 0, 0]',
            f'["/gone", "f", true, 16{time}420, 0, 0]',
            f'["/etc/shadow", "f", true, 22{time}420, 0, 0]',
            f'["a", "f", false, 7{time}420, 0, 0]',
            f'["/", "d", false, 0{time}493, 0, 0]',
            f'["top", "f", true, 13{time}420, 0, 0]',
            f'["b/c", "f", true, 0{time}420, 0, 0]',
        ])  # fmt: skip
        self.assertEqual(lister.finish().decode(), f"[{expected}]")

    def test_odd_whiteouts(self) -> None:
        self.assertEqual(unhidden("./.wh.dir/file"), ("/dir/file", True))
        self.assertEqual(unhidden("etc/.wh."), ("etc/.wh.", False))
        self.assertEqual(unhidden("/etc/.wh.x/"), ("/etc/x", True))
        self.assertEqual(unhidden("a.wh.b"), ("a.wh.b", False))
        self.assertEqual(unhidden("/"), ("/", False))

    def test_types(self) -> None:
        kinds = [b"\0", b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"z"]
        found = listing(b"".join(member(b"n", b"", kind) for kind in kinds) + END)
        self.assertEqual([one[1] for one in found], list("fflscbditu"))

    def test_numbers_as_they_are_stored(self) -> None:
        archive = member(b"f", b"abc", mode=0o104755, uid=1000, gid=50, mtime=12)
        self.assertEqual(listing(archive), [["f", "f", False, 3, 12, 0o104755, 1000, 50]])

    def test_times_of_pax_are_floats(self) -> None:
        archive = pax({b"mtime": b"12.5"}) + member() + pax({b"mtime": b"13"}) + member() + member(mtime=14)
        self.assertEqual([repr(one[4]) for one in listing(archive)], ["12.5", "13.0", "14"])
        self.assertEqual(listing(pax({b"mtime": b"9" * 19 + b"." + b"9" * 1000}) + member())[0][4], 1e19)

    def test_names_that_are_not_utf8(self) -> None:
        self.assertEqual(listing(member(b"\xff\xc3\xa4"))[0][0], "\ufffd\u00e4")

    def test_every_compression_in_any_pieces(self) -> None:
        archive = member(b"./a", b"x" * 1000) + member(b"./.wh.b") + END
        expected = listing(archive)
        self.assertEqual([one[0] for one in expected], ["/a", "/b"])
        for compress in COMPRESSORS.values():
            for step in (1, 700):
                self.assertEqual(listing(compress(archive), step), expected)

    def test_duplicates_stay_and_an_empty_archive_is_empty(self) -> None:
        self.assertEqual([one[0] for one in listing(member(b"a") + member(b"a"))], ["a", "a"])
        self.assertEqual(listing(END), [])

    def test_what_is_no_archive(self) -> None:
        whole = member(b"a", b"x" * 600) + member(b"b") + END
        for layer in (
            *(b"", b"x", b"x" * 512, b"PK\3\4" + bytes(2000), gzip.compress(b"no archive" * 100)),
            *(whole[:700], whole[:1700], gzip.compress(whole)[:-1], gzip.compress(b"")[:5]),
        ):
            error = self.assertRaises(V1Error, listing, layer)
            self.assertEqual(error.message, "Layer format not supported")

    def test_a_limit_of_the_list(self) -> None:
        layer = member(b"name") * 100
        size = len(json.dumps(listing(layer)))
        self.assertEqual(len(listing(layer, most=size + 2)), 100)
        error = self.assertRaises(V1Error, listing, layer, most=size - 1)
        self.assertEqual(error.message, "Layer has too many files to list")

    @given(st.binary(max_size=3000), st.integers(1, 2000))
    @settings(deadline=None, derandomize=True, max_examples=100)
    def test_anything_gives_a_list_or_a_refusal(self, layer: bytes, step: int) -> None:
        try:
            self.assertIsInstance(listing(layer, step), list)
        except V1Error as error:
            self.assertEqual(error.message, "Layer format not supported")


class Lists(SynchronousTestCase):
    def test_what_old_servers_wrote(self) -> None:
        text = (
            b' [["/", "d", false, 0, 1.5, 493, 0, 0],\n ["/etc/.wh.x", "f", false, 2, 1, 420, 0, 0]'
            b' , ["/.wh.", "f", true, 0, 1, 2, 3, 4]] '
        )
        self.assertEqual(
            [tuple(one) for one in read_list(text)],
            [
                ("/", False, '["d", false, 0, 1.5, 493, 0, 0]'),
                ("/etc/x", True, '["f", true, 2, 1, 420, 0, 0]'),
                ("/.wh.", True, '["f", true, 0, 1, 2, 3, 4]'),
            ],
        )
        self.assertEqual(list(read_list(b"[]")), [])

    def test_what_is_no_list(self) -> None:
        good = b'["/", "d", false, 0, 1, 493, 0, 0]'
        for text in (
            *(b"", b"{}", b"[", b"[" + good, b"[" + good + b",", b"[" + good + b" " + good + b"]", b"null", b"\xff"),
            *(b'[["/", "d"]]', b"[[1, 2, 3, 4, 5, 6, 7, 8]]", b"[1]", b"[" * 100_000),
        ):
            with self.assertRaises(ListDamaged):
                list(read_list(text))


class Differences(SynchronousTestCase):
    def test_each_kind(self) -> None:
        top = stored(entry("/gone", True), entry("/new"), entry("/old", size=5), entry("/back"), entry("/below"))
        near = stored(entry("/old"), entry("/back", True))
        far = stored(entry("/back"), entry("/below"), entry("/gone"), entry("/other"))
        self.assertEqual(
            diff(top, near, far), {"deleted": ["/gone"], "changed": ["/below", "/old"], "created": ["/back", "/new"]}
        )

    def test_form(self) -> None:
        differ = Differ(stored(["/b", "f", True, 1, 0, 420, 0, 0], ["/ä", "f", False, 2, 1.5, 420, 1, 2]))
        differ.compare(b"[]")
        self.assertEqual(
            differ.finish(),
            b'{"deleted": {"/b": ["f", true, 1, 0, 420, 0, 0]}, "changed": {},'
            b' "created": {"/\\u00e4": ["f", false, 2, 1.5, 420, 1, 2]}}',
        )

    def test_of_a_base_image_all_is_created(self) -> None:
        self.assertEqual(
            diff(stored(entry("/a", True), entry("/b"))), {"deleted": [], "changed": [], "created": ["/a", "/b"]}
        )

    def test_the_last_of_two_entries_counts(self) -> None:
        differ = Differ(stored(entry("/a", size=1), entry("/a", size=2)))
        differ.compare(stored(entry("/a", True), entry("/a")))
        self.assertEqual(json.loads(differ.finish())["changed"]["/a"][2], 2)
        self.assertTrue(differ.decided)

    def test_whiteouts_at_every_depth_and_both_forms_of_names(self) -> None:
        top = [member(name) for name in (b"etc/.wh.passwd", b"etc/hosts", b".wh.tmp")]
        below = [member(name) for name in (b"./etc/passwd", b"./etc/hosts", b"./tmp/")]
        lists = [json.dumps(listing(b"".join(layer) + END)).encode() for layer in (top, below)]
        self.assertEqual(
            diff(*lists), {"deleted": ["etc/passwd", "tmp"], "changed": ["etc/hosts"], "created": []}
        )

    def test_a_damaged_list_leaves_nothing_half_done(self) -> None:
        differ = Differ(stored(entry("/a"), entry("/b")))
        with self.assertRaises(ListDamaged):
            differ.compare(stored(entry("/a"))[:-1])
        differ.compare(stored(entry("/b")))
        self.assertEqual(json.loads(differ.finish())["changed"].keys(), {"/b"})

    names = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=6)

    @given(names, st.lists(names, max_size=3))
    @settings(deadline=None, derandomize=True, max_examples=150)
    def test_as_old_servers_reckoned(self, top: Any, below: Any) -> None:
        layers = [{f"/{name}": deleted for name, deleted in layer} for layer in [top, *below]]
        waiting = layers[0]
        expected: dict[str, list[str]] = {"deleted": [], "changed": [], "created": []}
        for layer in layers[1:]:
            for name, deleted in list(waiting.items()):
                if deleted:
                    expected["deleted"].append(name)
                elif name in layer:
                    expected["created" if layer[name] else "changed"].append(name)
                else:
                    continue
                del waiting[name]
        expected["created"] += waiting
        lists = [stored(*(entry(f"/{name}", deleted) for name, deleted in layer)) for layer in [top, *below]]
        self.assertEqual(diff(*lists), {part: sorted(names) for part, names in expected.items()})
