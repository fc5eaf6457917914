"""What dies with a process on Swift, and is removed later: segments that belong to nothing, and leases."""

from __future__ import annotations

from txregistry.errors import NotFound
from txregistry.storage.segmented.names import below, home
from txregistry.storage.swift.container import Container, Listed
from txregistry.storage.swift.locks import LOCKS
from txregistry.storage.swift.segments import MARK, SEGMENTS


async def sweep(container: Container, before: float) -> int:
    """Remove what nobody uses and is older than `before`, in seconds of the epoch; how many."""
    # In this order: the records of a partial object are there before its segments.
    groups: dict[str, list[Listed]] = {}
    for each in await container.keys(f"{SEGMENTS}/"):
        groups.setdefault(each.key.rpartition("/")[0] + "/", []).append(each)
    held = {each.key.rpartition("records/")[0] for each in await container.keys(below(""))}
    orphans = [
        each.key
        for group, segments in groups.items()
        if not any(each.key == group + MARK for each in segments) and _home(group) not in held
        for each in segments
        if each.modified < before and not await _marked(container, group)
    ]
    orphans += [each.key for each in await container.keys(f"{LOCKS}/") if each.modified < before]
    for key in orphans:
        await container.delete(key)
    return len(orphans)


def _home(group: str) -> str:
    """Where the records are of the partial object whose segments these are."""
    parent, _, name = group.removeprefix(f"{SEGMENTS}/").removesuffix("/").rpartition("/@/")
    return home(f"{parent}/{name}")


async def _marked(container: Container, group: str) -> bool:
    """Whether they belong to an object after all: a listing may be late."""
    try:
        await container.head(group + MARK, newest=True)
    except NotFound:
        return False
    return True
