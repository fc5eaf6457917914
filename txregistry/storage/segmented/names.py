"""Where partial objects lie: a partial object at `a/b` has all its records below `_txregistry/partials/a/@/b/`.

The `@` keeps a parent's partial objects apart from its children's, as no part of a path is an `@`.
"""

from __future__ import annotations

PARTIALS = "_txregistry/partials"


def home(path: str) -> str:
    """What the keys of a partial object begin with."""
    parent, _, name = path.rpartition("/")
    return f"{beside(parent)}{name}/"


def beside(parent: str) -> str:
    """What the keys of the partial objects directly below a path begin with, before their names."""
    return f"{below(parent)}@/"


def below(prefix: str) -> str:
    """What the keys of the partial objects at any depth below a path begin with; of all, for an empty one."""
    return f"{PARTIALS}/{prefix}/" if prefix else f"{PARTIALS}/"


def path_of(key: str) -> str | None:
    """The path of the partial object that a key belongs to; None if to none."""
    parent, mark, rest = key.removeprefix(PARTIALS).rpartition("/@/")
    name, inside, _ = rest.partition("/")
    return f"{parent}/{name}"[1:] if mark and inside else None
