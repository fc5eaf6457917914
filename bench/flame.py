"""Samples of stacks as a flame graph: the wider a box, the more of the time it was on the stack. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

#: Threads that wait: for a job, and for the network. py-spy cannot always tell that they do.
WAITING = ("_worker (concurrent/futures/thread.py", "Probe.poll (bench/server.py", "EPollReactor.doPoll (")
_WIDTH, _HEIGHT = 1600, 17
#: Boxes narrower than this are not drawn, text needs so much for each letter, in pixels.
_LEAST, _LETTER = 0.4, 6.6
_COLOURS = ("#f4a259", "#f6bd60", "#e98a5d", "#f7cd8b")


@dataclass
class Frame:
    """A function on the stack, with how many samples had it there, and what it called."""

    samples: int = 0
    callees: dict[str, Frame] = field(default_factory=dict)


def working(lines: Iterable[str]) -> dict[tuple[str, ...], int]:
    """The stacks of lines `outer;inner COUNT`, without those that only wait."""
    stacks = Counter[tuple[str, ...]]()
    for line in lines:
        names, _, count = line.rstrip().rpartition(" ")
        stack = tuple(names.split(";"))
        if not stack[-1].startswith(WAITING):
            stacks[stack] += int(count)
    return stacks


def tree(stacks: dict[tuple[str, ...], int]) -> Frame:
    """The stacks grown together from the outside."""
    root = Frame()
    for stack, count in stacks.items():
        root.samples += count
        frame = root
        for name in stack:
            frame = frame.callees.setdefault(name, Frame())
            frame.samples += count
    return root


def draw(root: Frame, title: str) -> str:
    """The graph as SVG, outer functions on top; a box tells its name and share when it is pointed at."""
    boxes: list[str] = []
    deepest = _draw_callees(root, 0.0, 1, _WIDTH / max(1, root.samples), root.samples, boxes)
    height = (deepest + 2) * _HEIGHT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        ' font-family="monospace" font-size="11">'
    )
    return "\n".join((head, f'<text x="4" y="13">{escape(title)}</text>', *boxes, "</svg>")) + "\n"


def _draw_callees(frame: Frame, left: float, depth: int, scale: float, total: int, boxes: list[str]) -> int:
    """Draw what a frame called, from `left` on; how deep that was."""
    deepest = depth
    for name, callee in sorted(frame.callees.items()):
        width = callee.samples * scale
        if width >= _LEAST:
            y, shown = depth * _HEIGHT, int(width / _LETTER)
            text = name if len(name) <= shown else name[: shown - 1] + "…" if shown > 3 else ""
            boxes.append(
                f'<g><title>{escape(name)}: {callee.samples / total:.1%}</title><rect x="{left:.1f}" y="{y}"'
                f' width="{width:.1f}" height="{_HEIGHT - 1}" fill="{_COLOURS[sum(name.encode()) % len(_COLOURS)]}"/>'
                f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(text)}</text></g>'
            )
            deepest = max(deepest, _draw_callees(callee, left, depth + 1, scale, total, boxes))
        left += width
    return deepest


def summary(stacks: dict[tuple[str, ...], int], most: int = 20) -> list[str]:
    """The functions that were at the end of most stacks, and those that were on most, each with its share."""
    total = sum(stacks.values())
    inner, anywhere = Counter[str](), Counter[str]()
    for stack, count in stacks.items():
        names = [name.rpartition(":")[0] for name in stack]
        inner[names[-1]] += count
        for name in dict.fromkeys(names):
            anywhere[name] += count
    return [
        f"{what}  {count / total:6.1%}  {name})"
        for what, counts in (("itself", inner), ("in all", anywhere))
        for name, count in counts.most_common(most)
    ]
