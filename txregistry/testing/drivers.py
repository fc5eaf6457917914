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

from twisted.internet.defer import gatherResults

from txregistry.concurrency import start
from txregistry.errors import LostRace, NotFound, TooLarge
from txregistry.interfaces import IStorageDriver
from txregistry.testing.partials import PartialSuite
from txregistry.testing.suite import LARGE

#: Names that layouts use or that engines tend to treat in their own way.
ODD_NAMES = ["%2F", "a%2Fb", "a+b", "_x", "a b", "tag_1.0", "ü-1", "~", "a:b", "x" * 128, "..a", "-", "data.tmp"]


class DriverSuite(PartialSuite):
    """Tests of `IStorageDriver`; a subclass says how to make one."""

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
