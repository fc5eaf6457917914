"""The look at all groups every few seconds: who has everything, and who must be brought up to date; blocking.

What `standing` says is found out here, from records that lie in the groups: that a group is a member, the notes of what
others missed, and the mark of one that goes on without another.
"""

from __future__ import annotations

from collections.abc import Sequence

from txregistry.errors import StorageError
from txregistry.storage.elliptics import mending, wire
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.groups import Failures, Groups, outage
from txregistry.storage.elliptics.tree import OWN, Tree

#: Lies in a group that was compared with the others.
MEMBER = f"{OWN}/member"

#: Below it lies, in a group that went on without another, whether it still does.
AHEAD = f"{OWN}/ahead"

YES, NO = b"1", b"0"


def prepare(tree: Tree) -> None:
    """See that enough groups answer to begin; Unavailable with one line."""
    _watch(tree)
    failures: Failures = {}
    with tree.job() as groups:
        for group in groups.groups:
            try:
                groups.session.connection(group)
            except Lost as error:
                failures[group] = error
        answered = [group for group in groups.groups if group not in failures]
        if len(answered) < groups.quorum or not groups.enough(answered):
            needed = max(groups.needed, groups.quorum)
            raise outage("elliptics", failures, f"{len(answered)} of {needed} groups needed answer")


def beat(tree: Tree) -> int:
    """Look at all groups, and mend those that are back; how many objects were noted for them."""
    done = 0
    lacking = _watch(tree)
    for group in lacking:
        done += mending.mend(tree, group)
        _make_member(tree, group)
    if lacking:
        _watch(tree)
    return done


def _make_member(tree: Tree, group: int) -> None:
    try:
        with tree.job() as groups:
            if _says(groups, group, MEMBER):
                return
        mending.compare(tree, group)
        with tree.job() as groups:
            groups.session.write(group, MEMBER, [YES])
    except (Lost, Refused, StorageError):
        pass  # it is tried again at the next look


def _watch(tree: Tree) -> list[int]:
    """Find out which groups are complete; those that are there and lack something."""
    with tree.job() as groups:
        if len(groups.groups) == 1:
            return []
        there, away = [], []
        for group in groups.groups:
            try:
                groups.session.connection(group)
            except Lost:
                away.append(group)
                tree.standing.missed(group)  # or may have, as far as anybody can tell
            else:
                there.append(group)
        return [group for group in there if not _has_everything(tree, groups, group, there, away)]


def _has_everything(tree: Tree, groups: Groups, group: int, there: Sequence[int], away: Sequence[int]) -> bool:
    """Look whether a group is complete; False if it is known to lack something."""
    standing = tree.standing
    examination = None
    try:
        was_complete = standing.complete(group)
        if not was_complete:
            examination = standing.examine(group)
        others = [other for other in there if other != group]
        if not _says(groups, group, MEMBER) or any(groups.has_notes(group, other) for other in others):
            standing.missed(group)
            return False
        for other in away:
            if not _says(groups, group, f"{AHEAD}/{other}"):
                if not was_complete:
                    return True  # only the other one could tell
                groups.session.write(group, f"{AHEAD}/{other}", [YES])
        for other in others:
            if _says(groups, other, f"{AHEAD}/{group}"):
                groups.session.write(other, f"{AHEAD}/{group}", [NO])
        if examination is not None:
            standing.passed(examination)
            examination = None
    except (Lost, Refused):
        pass  # it went away meanwhile, which the next look sees
    finally:
        if examination is not None:
            examination.witness.close()
    return True


def _says(groups: Groups, group: int, key: str) -> bool:
    try:
        return groups.session.read(group, key, 0, 1).data == YES
    except Refused as error:
        if error.status == wire.ENOENT:
            return False
        raise
