"""What crashes leave in `_txregistry/tmp`, and how it goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from txregistry.storage.local_files import PUT, REMOVED
from txregistry.storage.local_tree import Tree


def sweep(tree: Tree, before: float) -> int:
    """Remove temporary files unchanged since `before` that nobody holds, and removed directories; how many.

    A living writer holds the lock of its file, however slow it is. Partial objects are none of these: they go by age,
    which is for those to judge who know what they are for.
    """
    disk = tree.disk
    count = 0
    for name in _names(tree, PUT):
        path = tree.full(f"{PUT}/{name}")
        with contextlib.suppress(OSError):  # held, or gone meanwhile
            if disk.stat(path).st_mtime < before:
                fd = disk.open(path, os.O_RDWR)
                try:
                    disk.lock(fd, wait=False)
                    disk.unlink(path)
                    count += 1
                finally:
                    disk.close(fd)
    for name in _names(tree, REMOVED):
        with contextlib.suppress(OSError):  # whoever removed it is still at it
            tree.clear(tree.full(f"{REMOVED}/{name}"))
            count += 1
    return count


def _names(tree: Tree, directory: str) -> Sequence[str]:
    try:
        return [name for name, _ in tree.disk.scan(tree.full(directory))]
    except FileNotFoundError:
        return ()
