"""The part of the driver suite that is about partial objects."""

# mypy: disallow-untyped-calls=False
# trial's assertions have no types.

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence

from txregistry.errors import Busy, LostRace, NotFound, WrongOffset
from txregistry.interfaces import IHidesPartials
from txregistry.testing.suite import LARGE, SuiteHooks


class PartialSuite(SuiteHooks):
    """Tests of `IPartial`, `peek` and `partials`."""

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

    async def test_partials_are_found(self) -> None:
        """The sweep comes to each: by the listings, or because the driver names those that these hide."""
        driver = self.make_driver()
        for path in ("top/a/_uploads/1", "top/a/b/_uploads/2"):
            await (await driver.partial(path, create=True)).close()
        if IHidesPartials.providedBy(driver):
            found = sorted(await IHidesPartials(driver).partials_below("top"))
            self.assertEqual(found, ["top/a/_uploads/1", "top/a/b/_uploads/2"])
            return
        for directory, children in (("top", ["a"]), ("top/a", ["_uploads", "b"]), ("top/a/b/_uploads", ["2"])):
            listed = sorted(entry.name for entry in (await driver.list(directory)).entries if entry.is_directory)
            self.assertEqual(listed, children)

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
