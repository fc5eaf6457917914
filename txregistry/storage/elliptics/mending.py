"""What is done in the background: removing garbage, and bringing groups up to date that were down; blocking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from txregistry.errors import StorageError
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.groups import Groups
from txregistry.storage.elliptics.stored import POINTER, Pointer, Segment
from txregistry.storage.elliptics.tree import BYTES, GARBAGE, PIECE, RECORD, Tree, new_data_key


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


def mend(tree: Tree) -> int:
    """Bring groups that are back up to date with what they missed; the number of objects that were noted."""
    done = 0
    with tree.job() as groups:
        for missing in groups.groups:
            for group in groups.groups:
                try:
                    groups.session.connection(missing)
                    keys, length = groups.missed(missing, group)
                    left = [key for key in sorted(keys) if not _mend(tree, groups, missing, key)]
                    if keys and not left:
                        groups.forget(missing, group, length)
                except (Lost, Refused, StorageError):
                    continue  # the notes stay for another time
                done += len(keys)
    return done


def _mend(tree: Tree, groups: Groups, missing: int, key: str) -> bool:
    """Mend one object in a group; whether nothing is left to do."""
    seen = groups.sure(key, key)
    if seen.newest.kind == POINTER:
        pointer = Pointer.decode(seen.newest.data)
        if any(missing not in segment.groups for segment in pointer.segments):
            segments = tuple(_copied(tree, groups, missing, segment) for segment in pointer.segments)
            new = replace(pointer, segments=segments)
            groups.swap(key, key, seen, POINTER, new.encode())
            tree.discard(groups, pointer.keys - new.keys)
    return not seen.failures


def _copied(tree: Tree, groups: Groups, missing: int, segment: Segment) -> Segment:
    """A segment that the group has as well, under a key of its own: of an old one it may have a part."""
    if missing in segment.groups:
        return segment
    having: Sequence[int] = groups.groups
    key = new_data_key()
    for at in range(0, segment.size, PIECE):
        size = min(PIECE, segment.size - at)
        having, _ = groups.append(key, [groups.piece(segment.key, key, at, size, segment.groups)], having)
    if missing not in having or len(having) < len(segment.groups):
        tree.discard(groups, {key})
        raise Lost(f"group {missing} could not be brought up to date")
    return Segment(key, segment.size, tuple(having))
