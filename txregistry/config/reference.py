"""The tables of `docs/configuration.md`, made from the schema: `python -m txregistry.config.reference FILE`."""

from __future__ import annotations

import sys

from txregistry.config.check import shown
from txregistry.config.keys import Block, Key
from txregistry.config.schema import IGNORED, SECTIONS

BEGIN = "<!-- keys: made by python -m txregistry.config.reference -->\n"
END = "<!-- end of keys -->\n"


def tables() -> str:
    """One Markdown table for each section of the schema, and the keys without effect."""
    parts = []
    for section in SECTIONS:
        rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for key in section.keys:
            rows += _rows(key)
        parts.append(f"### {section.title}\n\n" + "\n".join(rows) + "\n")
    ignored = "\n".join(f"| `{name}` | {reason} |" for name, reason in IGNORED.items())
    parts.append(f"### Read and ignored, with a warning\n\n| key | why |\n| --- | --- |\n{ignored}\n")
    return "\n".join(parts)


def _rows(key: Key, above: str = "") -> list[str]:
    default = "" if key.default is None else f"`{shown(key.default)}`"
    also = f" Also spelled {', '.join(f'`{alias}`' for alias in key.aliases)}." if key.aliases else ""
    needed = f" Needed by {', '.join(key.needed_by)}." if key.needed_by else ""
    kind = "a block" if isinstance(key.kind, Block) else key.kind.allowed
    row = f"| `{above}{key.name}` | {kind} | {default} | {key.meaning}{needed}{also} |"
    inner = key.kind.keys if isinstance(key.kind, Block) else ()
    return [row, *(line for sub in inner for line in _rows(sub, f"{above}{key.name}."))]


def renew(text: str) -> str:
    """The document with its tables made anew between the two marks; ValueError if it lacks them."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        renewed = renew(file.read())
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(renewed)
