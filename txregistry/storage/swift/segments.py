"""Where the segments of large objects are, how large each is, and the memory that those not sent yet may take."""

from __future__ import annotations

import json
import uuid
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from txregistry.errors import LostRace, NotFound, Unavailable
from txregistry.storage.segmented.memory import Unsent
from txregistry.storage.segmented.sizes import size_at
from txregistry.storage.swift.container import Container

SEGMENTS = "_txregistry/segments"
_MIB = 1024 * 1024
#: The smallest segment but the last, and the largest, in bytes.
SMALLEST, LARGEST = 8 * _MIB, 32 * _MIB
#: The most entries of a manifest. A longer one is a manifest of manifests.
ENTRIES = 1000
#: Says that the segments beside it belong to objects; it holds the paths of those.
MARK = "owners"
#: What the names of the manifests begin with that are parts of another one.
_INNER = "manifest-"


def segment_size(begin: int) -> int:
    """The size of the segment that begins at this offset, in bytes."""
    return min(LARGEST, size_at(begin, SMALLEST))


def group_of(path: str) -> str:
    """What the keys of the segments of a partial object begin with; they stay there when it is committed.

    The `@` keeps those of a parent apart from those of its children.
    """
    parent, _, name = path.rpartition("/")
    return f"{SEGMENTS}/{parent}/@/{name}/"


async def owners(container: Container, group: str) -> list[str]:
    """The paths of the objects that consist, or are about to consist, of segments of a group: most often one."""
    try:
        return [str(path) for path in json.loads((await container.get(group + MARK, newest=True))[0])]
    except NotFound:
        return []
    except ValueError as error:
        raise Unavailable(group + MARK, "it is damaged") from error


async def _own(container: Container, group: str, paths: Iterable[str]) -> None:
    """Say whose the segments of a group are; what nothing is said of is swept away."""
    wanted = sorted(set(paths))
    if wanted:
        await container.put(group + MARK, json.dumps(wanted).encode())
    else:
        await container.delete(group + MARK)


async def used(container: Container, group: str) -> set[str]:
    """The keys of a group that are part of an object."""
    found: set[str] = set()
    waiting = await owners(container, group)
    while waiting:
        key = waiting.pop()
        try:
            seen = await container.head(key, newest=True)
            names = (await container.manifest(key))[1] if seen.is_large and seen.group == group else []
        except NotFound:
            names = []
        ours = {name for name in names if name.startswith(group)} - found
        found |= ours
        waiting += [name for name in ours if name.startswith(f"{group}{_INNER}")]
    if found:
        found.add(group + MARK)
    return found


async def assemble(container: Container, path: str, segments: list[tuple[str, int]], group: str) -> set[str]:
    """Make a large object of segments; the keys of the group that are needed from now on.

    LostRace when a segment is gone.
    """
    replaced = await _group_at(container, path)
    # Others are there if another holder stalled in a commit to another path.
    before = await owners(container, group)
    kept = {group + MARK, *(name for name, _ in segments)}
    if any(other != path for other in before):
        kept |= await used(container, group)
    await _own(container, group, [*before, path])
    level = 0
    while len(segments) > ENTRIES:
        level += 1
        above = []
        for at in range(0, len(segments), ENTRIES):
            some = segments[at : at + ENTRIES]
            name = f"{group}{_INNER}{uuid.uuid4().hex}"
            await container.put_manifest(name, some, group)
            above.append((name, sum(size for _, size in some)))
        kept.update(name for name, _ in above)
        segments = above
    await container.put_manifest(path, segments, group)
    await _forsake(container, replaced, path, group)
    return kept


async def put_over(container: Container, path: str, data: bytes) -> None:
    """Write an object that is not large where a large one may be."""
    replaced = await _group_at(container, path)
    await container.put(path, data)
    await _forsake(container, replaced, path, None)


async def move_object(container: Container, source: str, target: str) -> None:
    """Give an object another path; the segments of a large one stay where they are. NotFound."""
    seen, replaced = await container.head(source, newest=True), await _group_at(container, target)
    before: list[str] = []
    if not seen.is_large:
        await container.copy(source, target)
    elif seen.group is None:
        await container.copy_manifest(source, target, None)
    else:
        before = await owners(container, seen.group)
        await _own(container, seen.group, [*before, source, target])
        await container.copy_manifest(source, target, seen.group)
    await _forsake(container, replaced, target, seen.group)
    await container.delete(source)
    if seen.is_large and seen.group is not None:
        await _own(container, seen.group, {*before, target} - {source})


async def remove_object(container: Container, key: str) -> bool:
    """Remove an object, and its segments unless they are also another one's; whether it was there."""
    try:
        seen = await container.head(key)
    except NotFound:
        return False
    group = seen.group if seen.is_large else None
    if group is None:
        await container.delete(key, with_segments=seen.is_large)
        return True
    # Two have the same segments after a move that was cut short, for one.
    others = [path for path in await owners(container, group) if path != key]
    others = [path for path in others if await _group_at(container, path) == group]
    if others:
        await container.delete(key)
        await _own(container, group, others)
    else:
        await container.delete(key, with_segments=True)
        for each in await container.keys(group):
            await container.delete(each.key)
    return True


async def see_whole(container: Container, path: str, group: str) -> None:
    """Remove a large object of which whoever took it over has removed a segment meanwhile."""
    if await _group_at(container, path) != group:
        return
    try:
        await container.copy_manifest(path, path, group)  # the server looks for all of them
    except NotFound:
        return
    except LostRace:
        await container.delete(path)


async def _group_at(container: Container, path: str) -> str | None:
    """Where the segments are of the large object of ours that is there, if one is."""
    try:
        seen = await container.head(path, newest=True)
    except NotFound:
        return None
    return seen.group if seen.is_large else None


async def _forsake(container: Container, replaced: str | None, path: str, group: str | None) -> None:
    """Leave the segments of an object that was replaced to the sweep: somebody may still be reading them."""
    if replaced is not None and replaced != group:
        await _own(container, replaced, [other for other in await owners(container, replaced) if other != path])


class Spills(Protocol):
    """What has unsent bytes in memory."""

    def spill(self) -> Coroutine[Any, Any, int]:
        """Send them, unless it is at work itself; how many bytes it still has. Never fails."""
        ...


class Memory(Unsent[Spills]):
    """The unsent bytes of all partial objects of a process."""

    async def relieve(self, but: Spills) -> None:
        """Let others send theirs until enough is free."""
        for holder in self.others(but):
            if not self.exceeded:
                return
            self.left(holder, await holder.spill())
