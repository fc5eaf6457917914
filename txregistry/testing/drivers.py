"""The driver suite: what every storage engine must do, as a mixin for a trial `TestCase`.

    class MyEngineTests(DriverSuite, TestCase):
        def make_driver(self): ...
        def sibling(self, driver): ...
        def stall(self, driver, path): ...

The tests are coroutines: a driver whose Deferreds fire at once runs them without a reactor.
"""

# mypy: disallow-untyped-calls=False
# trial's assertions have no types.

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import gatherResults

from txregistry.concurrency import start
from txregistry.errors import Busy, LostRace, NotFound, StorageError, TooLarge, WrongOffset
from txregistry.interfaces import IReader, IStorageDriver

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base
else:
    _Base = object

T = TypeVar("T")
E = TypeVar("E", bound=StorageError)

#: Three MiB in which no two places look alike.
LARGE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3 << 15))

#: Names that layouts use or that engines tend to treat in their own way.
ODD_NAMES = ["%2F", "a%2Fb", "a+b", "_x", "a b", "tag_1.0", "ü-1", "~", "a:b", "x" * 128, "..a", "-", "data.tmp"]


class DriverSuite(_Base):
    """Tests of `IStorageDriver`; a subclass says how to make one."""

    def make_driver(self) -> IStorageDriver:
        """A driver on a new, empty store."""
        raise AssertionError("a subclass says how")

    def sibling(self, driver: IStorageDriver) -> IStorageDriver:
        """Another driver on the same store, as another process would have."""
        raise AssertionError("a subclass says how")

    async def stall(self, driver: IStorageDriver, path: str) -> None:
        """Let the partial object at `path` look as one whose holder has moved no byte for six seconds."""
        raise AssertionError("a subclass says how")

    async def fill(self, driver: IStorageDriver, prefix: str, names: list[str]) -> None:
        """Put many small objects; a subclass may know a faster way."""
        for name in names:
            await driver.put(f"{prefix}/{name}", b"1")

    async def fails(self, kind: type[E], awaitable: Awaitable[object]) -> E:
        """The error with which something must fail."""
        try:
            result = await awaitable
        except kind as error:
            return error
        raise self.failureException(f"{kind.__name__} expected, not {result!r}")

    async def contents(self, driver: IStorageDriver, path: str) -> bytes:
        """All the bytes of an object, in chunks."""
        reader = await driver.open(path)
        try:
            return await self.range(reader, 0, reader.size)
        finally:
            reader.close()

    async def range(self, reader: IReader, begin: int, end: int) -> bytes:
        """The bytes of a range."""
        pieces = [piece async for piece in reader.chunks(begin, end)]
        for piece in pieces:
            self.assertTrue(0 < len(piece) <= 1 << 20, len(piece))
        return b"".join(pieces)

    async def all_names(self, driver: IStorageDriver, prefix: str, limit: int) -> list[str]:
        """The names of all pages, in the engine's order."""
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await driver.list(prefix, cursor, limit)
            self.assertLessEqual(len(page.entries), limit)
            names += [entry.name for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                return names

    # -- small objects ------------------------------------------------------------------------------------------

    async def test_put_and_read(self) -> None:
        """What was put is read, from another driver too; versions tell equal contents from others."""
        driver = self.make_driver()
        for data in (b"", b"x", LARGE[:70000]):
            version = await driver.put("some/where/object", data)
            self.assertEqual(await driver.read("some/where/object", len(data)), (data, version))
            self.assertEqual(await self.sibling(driver).read("some/where/object", 1 << 20), (data, version))
        self.assertNotEqual(version, await driver.put("some/where/object", b"y"))
        self.assertEqual(version, await driver.put("some/where/object", LARGE[:70000]))

    async def test_odd_names(self) -> None:
        """Names are taken as they are."""
        driver = self.make_driver()
        for name in ODD_NAMES:
            await driver.put(f"odd/{name}/{name}", name.encode())
        self.assertEqual(sorted(await self.all_names(driver, "odd", 5)), sorted(ODD_NAMES))
        for name in ODD_NAMES:
            self.assertEqual((await driver.read(f"odd/{name}/{name}", 1000))[0], name.encode())
            await driver.remove(f"odd/{name}/{name}")
            await self.fails(NotFound, driver.read(f"odd/{name}/{name}", 1000))

    async def test_missing(self) -> None:
        """What is not there is NotFound; a directory has no contents."""
        driver = self.make_driver()
        await driver.put("a/b", b"1")
        for path in ("nothing", "a", "a/c", "a/b/c", "nothing/at/all"):
            await self.fails(NotFound, driver.read(path, 10))
            await self.fails(NotFound, driver.open(path))
        for path in ("nothing", "a/c", "a/b/c"):
            await self.fails(NotFound, driver.stat(path))
            await self.fails(NotFound, driver.remove(path))
            await self.fails(NotFound, driver.move(path, "a/d"))
            await self.fails(NotFound, driver.settle(path))
            await self.fails(NotFound, driver.peek(path))
            await self.fails(NotFound, driver.partial(path))
        self.assertEqual((await driver.read("a/b", 10))[0], b"1")

    async def test_limit(self) -> None:
        """A larger object than the limit is an error, not memory."""
        driver = self.make_driver()
        await driver.put("a", b"12345")
        self.assertEqual((await driver.read("a", 5))[0], b"12345")
        await self.fails(TooLarge, driver.read("a", 4))

    async def test_if_absent(self) -> None:
        """Of many who want to be the first, one is."""
        driver = self.make_driver()
        drivers = [driver, self.sibling(driver)]

        async def attempt(number: int) -> int | None:
            try:
                await drivers[number % 2].put("a/b/first", b"%d" % number, if_absent=True)
            except LostRace:
                return None
            return number

        outcomes = await gatherResults([start(attempt(number)) for number in range(20)])
        winners = [number for number in outcomes if number is not None]
        self.assertEqual(len(winners), 1)
        self.assertEqual((await driver.read("a/b/first", 10))[0], b"%d" % winners[0])

    async def test_if_match(self) -> None:
        """Several who count in one object lose no step."""
        driver = self.make_driver()
        await driver.put("counter", b"0")
        await self.fails(LostRace, driver.put("counter", b"1", if_match=await driver.put("other", b"7")))
        await self.fails(LostRace, driver.put("none", b"1", if_match=await driver.put("other", b"8")))

        async def count(mine: IStorageDriver) -> None:
            done = 0
            while done < 5:
                data, version = await mine.read("counter", 100)
                try:
                    await mine.put("counter", b"%d" % (int(data) + 1), if_match=version)
                except LostRace:
                    continue
                done += 1

        await gatherResults([start(count(mine)) for mine in (driver, self.sibling(driver)) * 3])
        self.assertEqual((await driver.read("counter", 100))[0], b"30")

    # -- large objects ------------------------------------------------------------------------------------------

    async def test_ranges(self) -> None:
        """Ranges come in pieces of at most a MiB; an empty one has none."""
        driver = self.make_driver()
        await driver.put("large", LARGE)
        reader = await driver.open("large")
        self.addCleanup(reader.close)
        self.assertEqual(reader.size, len(LARGE))
        size = len(LARGE)
        ranges = [(0, size), (0, 1), (size - 1, size), (5, 5), (size, size), (1 << 20, (1 << 20) + 1), (77, size - 99)]
        for begin, end in ranges:
            self.assertEqual(await self.range(reader, begin, end), LARGE[begin:end], (begin, end))

    async def test_chunks_closed(self) -> None:
        """A range that was closed ends; closing is harmless at any time."""
        driver = self.make_driver()
        await driver.put("large", LARGE)
        reader = await driver.open("large")
        chunks = reader.chunks(0, reader.size)
        first = await chunks.__anext__()
        self.assertEqual(first, LARGE[: len(first)])
        chunks.close()
        chunks.close()
        with self.assertRaises(StopAsyncIteration):
            await chunks.__anext__()
        reader.close()
        reader.close()

    async def test_replaced_while_open(self) -> None:
        """Whoever has an object open may go on with the old bytes, and never gets a mixture."""
        driver = self.make_driver()
        await driver.put("large", LARGE)
        reader = await driver.open("large")
        self.addCleanup(reader.close)
        chunks = reader.chunks(0, reader.size)
        pieces = [await chunks.__anext__()]
        await driver.put("large", bytes(len(LARGE)))
        pieces += [piece async for piece in chunks]
        self.assertEqual(b"".join(pieces), LARGE)

    # -- names --------------------------------------------------------------------------------------------------

    async def test_list(self) -> None:
        """Thousands of children come in pages, each once."""
        driver = self.make_driver()
        names = [f"v{number}" for number in range(2500)]
        await self.fill(driver, "many", names)
        await driver.put("many/v1-below/x", b"")
        await driver.put("many-others/x", b"")
        found = await self.all_names(driver, "many", 700)
        self.assertEqual(sorted(found), sorted([*names, "v1-below"]))
        self.assertEqual(len((await driver.list("many")).entries), 1000)
        kinds = {entry.name: entry.is_directory for entry in (await driver.list("", None, 1000)).entries}
        self.assertTrue(kinds["many"] and kinds["many-others"])
        (below,) = (await driver.list("many/v1-below")).entries
        self.assertEqual((below.name, below.is_directory), ("x", False))

    async def test_list_of_nothing(self) -> None:
        """A missing directory has no children."""
        driver = self.make_driver()
        page = await driver.list("not/there")
        self.assertEqual((page.entries, page.cursor), ((), None))
        self.assertEqual(list(await driver.partials("not/there")), [])

    async def test_stat(self) -> None:
        """Size and kind."""
        driver = self.make_driver()
        await driver.put("a/b", b"123")
        found = await driver.stat("a/b")
        self.assertEqual((found.size, found.is_directory), (3, False))
        found = await driver.stat("a")
        self.assertEqual((found.size, found.is_directory), (0, True))

    async def test_move(self) -> None:
        """An object gets another path, replacing what was there."""
        driver = self.make_driver()
        await driver.put("a/b", b"new")
        await driver.put("c/d/e", b"old")
        await driver.move("a/b", "c/d/e")
        await driver.move("c/d/e", "f/g")
        self.assertEqual((await driver.read("f/g", 10))[0], b"new")
        await self.fails(NotFound, driver.read("a/b", 10))
        await self.fails(NotFound, driver.read("c/d/e", 10))

    async def test_remove(self) -> None:
        """A directory goes with all below it, and with nothing whose name only begins the same."""
        driver = self.make_driver()
        for path in ("a/b/c/d", "a/b/e", "a/bb/c", "a/b.c"):
            await driver.put(path, path.encode())
        await driver.remove("a/b")
        for path in ("a/b/c/d", "a/b/e", "a/b"):
            await self.fails(NotFound, driver.stat(path))
        await self.fails(NotFound, driver.remove("a/b"))
        self.assertEqual(sorted(await self.all_names(driver, "a", 10)), ["b.c", "bb"])
        await driver.remove("a/bb/c")
        await self.fails(NotFound, driver.read("a/bb/c", 10))
        await driver.put("a/b/e", b"again")
        self.assertEqual((await driver.read("a/b/e", 10))[0], b"again")

    async def test_settle_and_space(self) -> None:
        """What another wrote can be made durable; free space is a number or unknown."""
        driver = self.make_driver()
        await self.sibling(driver).put("a/b/c", b"1")
        await driver.settle("a/b/c")
        await driver.settle("a/b/c")
        free = await driver.free_space()
        self.assertTrue(free is None or free > 0)

    # -- partial objects ----------------------------------------------------------------------------------------

    async def test_partial(self) -> None:
        """It grows, feeds its taps in order, and appears whole; what lay below its path goes with it."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        self.assertEqual((partial.offset, partial.state), (0, b""))
        await driver.put("uploads/one/startedat", b"now")
        hasher = hashlib.sha256()

        def feed(pieces: Sequence[bytes]) -> None:
            for piece in pieces:
                hasher.update(piece)

        batch = [LARGE[at : at + 100] for at in range(0, 1 << 20, 100)]  # more pieces than one call takes
        await partial.write([*batch, b""], 0, feed)
        rest = sum(map(len, batch))
        self.assertEqual(partial.offset, rest)
        await partial.write([LARGE[rest:]], rest, feed)
        await partial.write([], len(LARGE))
        self.assertEqual(hasher.digest(), hashlib.sha256(LARGE).digest())
        seen: list[bytes] = []
        await partial.read(seen.extend)
        self.assertEqual(b"".join(seen), LARGE)
        self.assertEqual(list(await driver.partials("uploads")), ["uploads/one"])
        await self.fails(NotFound, driver.open("blobs/b"))
        await partial.commit("blobs/b")
        await partial.close()
        self.assertEqual(await self.contents(driver, "blobs/b"), LARGE)
        await self.fails(NotFound, driver.peek("uploads/one"))
        await self.fails(NotFound, driver.read("uploads/one/startedat", 10))
        self.assertEqual(list(await driver.partials("uploads")), [])
        await self.fails(NotFound, driver.partial("uploads/one"))

    async def test_partial_empty(self) -> None:
        """Nothing written is an empty object; a commit replaces what is there."""
        driver = self.make_driver()
        await driver.put("target", b"old")
        partial = await driver.partial("uploads/one", create=True)
        await partial.commit("target")
        self.assertEqual(await self.contents(driver, "target"), b"")

    async def test_partial_created_once(self) -> None:
        """A second one of the same name is not made."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await self.fails(LostRace, self.sibling(driver).partial("uploads/one", create=True))
        await partial.close()
        await self.fails(LostRace, driver.partial("uploads/one", create=True))

    async def test_wrong_offset(self) -> None:
        """A write that does not continue is refused, and tells where it would."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await partial.write([b"abc"], 0)
        for at in (0, 2, 4):
            error = await self.fails(WrongOffset, partial.write([b"x"], at))
            self.assertEqual(error.offset, 3)
        await partial.close()

    async def test_reopened(self) -> None:
        """Another driver goes on at the last checkpoint; what came after it is gone."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await partial.write([b"0123"], 0)
        await partial.checkpoint(b"state one")
        self.assertEqual(partial.state, b"state one")
        await partial.write([b"LOST AND LONG"], 4)
        await partial.close()
        await partial.close()
        other = self.sibling(driver)
        info = await other.peek("uploads/one")
        self.assertEqual((info.offset, info.state), (4, b"state one"))
        partial = await other.partial("uploads/one")
        self.assertEqual((partial.offset, partial.state), (4, b"state one"))
        seen: list[bytes] = []
        await partial.read(seen.extend)
        self.assertEqual(b"".join(seen), b"0123")
        await partial.write([b"45"], 4)
        await partial.checkpoint(b"s" * 4096)
        await partial.close()
        partial = await driver.partial("uploads/one")
        self.assertEqual((partial.offset, partial.state), (6, b"s" * 4096))
        await partial.commit("target")
        self.assertEqual(await self.contents(driver, "target"), b"012345")

    async def test_reopened_without_checkpoint(self) -> None:
        """One that was never saved begins again."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await partial.write([b"0123"], 0)
        await partial.close()
        partial = await self.sibling(driver).partial("uploads/one")
        self.assertEqual((partial.offset, partial.state), (0, b""))
        await partial.close()

    async def test_busy(self) -> None:
        """Held is held, also against the same driver; closed is free; looking needs no hold."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await partial.write([b"0123"], 0)
        await partial.checkpoint(b"")
        for mine in (driver, self.sibling(driver)):
            error = await self.fails(Busy, mine.partial("uploads/one"))
            self.assertIn(error.retry_after, range(1, 6))
            self.assertEqual((await mine.peek("uploads/one")).offset, 4)
        await partial.close()
        await (await driver.partial("uploads/one")).close()

    async def test_taken_over(self) -> None:
        """A stalled holder is replaced, at the checkpoint, and can do no more harm."""
        steps: list[Callable[..., Awaitable[None]]] = [
            lambda partial: partial.write([b"FOREIGN"], partial.offset),
            lambda partial: partial.checkpoint(b"foreign"),
            lambda partial: partial.commit("target"),
            lambda partial: partial.cancel(),
        ]
        for number, step in enumerate(steps):
            driver = self.make_driver()
            path = f"uploads/{number}"
            stalled = await driver.partial(path, create=True)
            await stalled.write([b"0123"], 0)
            await stalled.checkpoint(b"saved")
            await stalled.write([b"UNSAVED BYTES"], 4)
            await self.stall(driver, path)
            other = self.sibling(driver)
            taker = await other.partial(path)
            self.assertEqual((taker.offset, taker.state), (4, b"saved"))
            await taker.write([b"45"], 4)
            await self.fails(LostRace, step(stalled))
            await stalled.close()
            await taker.write([b"67"], 6)
            await taker.checkpoint(b"later")
            await self.fails(Busy, driver.partial(path))
            await taker.close()
            taker = await driver.partial(path)
            self.assertEqual((taker.offset, taker.state), (8, b"later"))
            await taker.commit("target")
            self.assertEqual(await self.contents(driver, "target"), b"01234567")

    async def test_finished_by_another(self) -> None:
        """A stalled holder whose session another one finished writes nothing into the committed object."""
        driver = self.make_driver()
        stalled = await driver.partial("uploads/one", create=True)
        await stalled.write([b"0123"], 0)
        await stalled.checkpoint(b"")
        await self.stall(driver, "uploads/one")
        taker = await self.sibling(driver).partial("uploads/one")
        await taker.commit("target")
        await self.fails(LostRace, stalled.write([b"4567"], 4))
        await stalled.close()
        self.assertEqual(await self.contents(driver, "target"), b"0123")
        await self.fails(NotFound, driver.partial("uploads/one"))

    async def test_cancelled(self) -> None:
        """A dropped one is gone with all below it."""
        driver = self.make_driver()
        partial = await driver.partial("uploads/one", create=True)
        await driver.put("uploads/one/startedat", b"now")
        await partial.write([b"0123"], 0)
        await partial.cancel()
        await partial.close()
        await self.fails(NotFound, driver.partial("uploads/one"))
        await self.fails(NotFound, driver.read("uploads/one/startedat", 10))
        await (await driver.partial("uploads/one", create=True)).close()

    async def test_partials(self) -> None:
        """Those directly below a prefix, and nothing else."""
        driver = self.make_driver()
        for path in ("uploads/one", "uploads/two", "others/three"):
            await (await driver.partial(path, create=True)).close()
        await driver.put("uploads/four/startedat", b"")
        self.assertEqual(sorted(await driver.partials("uploads")), ["uploads/one", "uploads/two"])
        await driver.remove("uploads/one")
        self.assertEqual(list(await driver.partials("uploads")), ["uploads/two"])
        await self.fails(NotFound, driver.peek("uploads/one"))
