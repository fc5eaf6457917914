"""What is done in the background: removing garbage, and bringing groups up to date that were down; blocking."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from txregistry.errors import StorageError, Unavailable
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.directories import FILE, LOGS, PARTIAL
from txregistry.storage.elliptics.groups import Groups, Seen
from txregistry.storage.elliptics.stored import POINTER, Pointer, Segment
from txregistry.storage.elliptics.tree import (
    BYTES,
    GARBAGE,
    PARTIALS,
    PIECE,
    RECORD,
    Tree,
    new_data_key,
)

#: After how many objects that could not be mended the rest is left for later.
PATIENCE = 8


def sweep(tree: Tree, before: float) -> int:
    """Remove the garbage that is older than `before`, in seconds of the epoch; how many keys."""
    done = 0
    with tree.job() as groups:
        for kind in (BYTES, RECORD):
            for key, stamp in tree.directories.names(groups, GARBAGE, kind).items():
                if stamp < before * 1e9 and _drop(groups, kind, key):
                    tree.directories.note(groups, GARBAGE, kind, key, False)
                    done += 1
    return done


def _drop(groups: Groups, kind: str, key: str) -> bool:
    """Remove a key in all groups; False if one did not answer, and so may bring it back."""
    if kind == RECORD:
        seen = groups.look(key)
        if seen.failures:
            return False
        if seen.newest.is_live:
            return True  # its path was used again
    try:
        for group in groups.groups:
            groups.session.remove(group, key)
    except (Lost, Refused):
        return False
    return True


def mend(tree: Tree, missing: int) -> int:
    """Bring a group up to date with what others have noted for it; how many objects were."""
    done = 0
    with tree.job() as groups:
        others = [group for group in groups.groups if group != missing]
    for other in others:
        try:
            with tree.job() as groups:
                keys, proof = groups.missed(missing, other)
            # Each registry mends, in an order of its own: what another one has done already costs a look.
            failed = 0
            for key in _shuffled(keys):
                failed += not _mended(tree, missing, key)
                if failed > PATIENCE:
                    break
            if failed or not keys:
                continue
            with tree.job() as groups:
                groups.forget(missing, other, proof)
        except (Lost, Refused, StorageError):
            continue  # the notes stay for another time
        done += len(keys)
    return done


def _shuffled(keys: set[str]) -> list[str]:
    found = sorted(keys)
    random.shuffle(found)
    return found


def compare(tree: Tree, missing: int) -> None:
    """Let a group have all that others have, whether it was noted or not: its disk may be new. Unavailable."""
    with tree.job() as groups:
        _demand(tree.directories.bring_up(groups, GARBAGE), missing)
    for key in _keys_below(tree, missing, ""):
        _demand(_mended(tree, missing, key), missing)


def _demand(done: bool, missing: int) -> None:
    if not done:
        raise Unavailable("", f"group {missing} could not be brought up to date")


def _keys_below(tree: Tree, missing: int, directory: str) -> Iterator[str]:
    """The keys of all records below a directory, whose names the group has by then."""
    with tree.job() as groups:
        _demand(tree.directories.bring_up(groups, directory), missing)
        tree.directories.adopt(groups, directory, missing)
        living = tree.directories.living(groups, directory)
    for kind, name in sorted(living):
        path = f"{directory}/{name}" if directory else name
        if kind == FILE:
            yield path
            continue
        if kind == PARTIAL:
            yield f"{PARTIALS}/{path}"
        yield from _keys_below(tree, missing, path)


def _mended(tree: Tree, missing: int, key: str) -> bool:
    """Mend one object in a group; whether nothing is left to do. A job of its own, as there may be many."""
    if tree.closing:
        return False
    try:
        with tree.job() as groups:
            if key.startswith(f"{LOGS}/"):
                return tree.directories.bring_up(groups, key.removeprefix(f"{LOGS}/"))
            seen = groups.sure(key, key)
            if seen.failures or not _has_bytes(tree, groups, missing, key, seen):
                return False
            return groups.look_in(missing, key).stamp >= seen.newest.stamp
    except (Lost, Refused, StorageError):
        return False


def _has_bytes(tree: Tree, groups: Groups, missing: int, key: str, seen: Seen) -> bool:
    """Let a group have the bytes of a large object as well; whether it has them."""
    newest = seen.newest
    if newest.kind == POINTER:
        pointer = Pointer.decode(newest.data)
        if all(_has(groups, missing, segment) for segment in pointer.segments):
            return True
        segments = tuple(_copied(tree, groups, missing, segment) for segment in pointer.segments)
        new = replace(pointer, segments=segments)
        old = pointer.keys - new.keys
    elif newest.is_whole or seen.by_group[missing].total == newest.total:
        return True
    else:  # the original's, which a copy under the same key would be taken for before it is whole
        segments = tree.copied(groups, key, tree.opened(key, newest))
        new, old = Pointer(segments, ""), set()
    groups.swap(key, key, seen, POINTER, new.encode())
    tree.discard(groups, old)
    return all(missing in segment.groups for segment in segments)


def _has(groups: Groups, missing: int, segment: Segment) -> bool:
    return missing in segment.groups and groups.size(missing, segment.key) >= segment.size


def _copied(tree: Tree, groups: Groups, missing: int, segment: Segment) -> Segment:
    """A segment that the group has as well, under a key of its own: of an old one it may have a part."""
    if _has(groups, missing, segment):
        return segment
    having: Sequence[int] = groups.groups
    sources = [group for group in segment.groups if group != missing]
    key = new_data_key()
    for at in range(0, segment.size, PIECE):
        if tree.closing:
            break
        size = min(PIECE, segment.size - at)
        having, _ = groups.append(key, [groups.piece(segment.key, key, at, size, sources)], having)
    if tree.closing or missing not in having or len(having) < len(sources):
        tree.discard(groups, {key})
        raise Lost(f"group {missing} could not be brought up to date")
    return Segment(key, segment.size, tuple(having))
