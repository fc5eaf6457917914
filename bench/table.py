"""The table: what was measured, what it should be, which rows lost. Pure functions of numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: What `Results` calls the part of a metric that was spent outside the kernel.
USER = " user"
#: Rounds that differ by more than this part of their median are marked.
WIDE = 0.25
#: A row has lost if it is worse by more than this part.
LOST = 0.20

Values = dict[str, float]


@dataclass(frozen=True)
class Target:
    """What a metric should reach: a number, or `factor` times what the server `of` has in the same run."""

    factor: float
    of: str | None = None

    def limit(self, medians: Mapping[str, float]) -> float | None:
        """The number; None if the server was not measured."""
        if self.of is None:
            return self.factor
        return self.factor * medians[self.of] if self.of in medians else None


@dataclass(frozen=True)
class Metric:
    """One number of a measure."""

    unit: str
    higher: bool = False
    floor: Target | None = None
    goal: Target | None = None

    def reaches(self, value: float, limit: float) -> bool:
        """Whether the value is as good as the limit."""
        return value >= limit if self.higher else value <= limit


@dataclass
class Row:
    """A metric of a measure, with each server's values in its rounds, and their parts outside the kernel (`user`)."""

    measure: str
    metric: Metric
    values: dict[str, list[float]] = field(default_factory=dict)
    user: dict[str, list[float]] = field(default_factory=dict)

    def medians(self) -> dict[str, float]:
        """The median of each server."""
        return {name: statistics.median(values) for name, values in self.values.items()}


@dataclass
class Results:
    """All rows of a run, in the order in which they came, and what went wrong."""

    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, measure: str, metrics: Sequence[Metric], name: str, values: Values) -> None:
        """Note one round of one server; values without a metric are left out."""
        for metric in metrics:
            if metric.unit not in values:
                continue
            row = self.row(measure, metric.unit)
            if row is None:
                row = Row(measure, metric)
                self.rows.append(row)
            row.values.setdefault(name, []).append(values[metric.unit])
            if metric.unit + USER in values:
                row.user.setdefault(name, []).append(values[metric.unit + USER])

    def row(self, measure: str, unit: str) -> Row | None:
        """The row of a metric, if there is one."""
        return next((row for row in self.rows if (row.measure, row.metric.unit) == (measure, unit)), None)


def number(value: float) -> str:
    """A number with three digits that count."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def is_wide(values: Sequence[float]) -> bool:
    """Whether rounds differ too much for their median to say much."""
    median = statistics.median(values)
    return bool(median) and (max(values) - min(values)) / abs(median) > WIDE


def verdict(row: Row, ours: str) -> str:
    """`goal`, `floor` or `missed`; empty if it cannot be said, or a goal that has no floor is missed."""
    medians = row.medians()
    if ours not in medians:
        return ""
    for word, target in (("goal", row.metric.goal), ("floor", row.metric.floor)):
        limit = None if target is None else target.limit(medians)
        if limit is not None and row.metric.reaches(medians[ours], limit):
            return word
    return "" if row.metric.floor is None or row.metric.floor.limit(medians) is None else "**missed**"


def ratio(row: Row, ours: str) -> float | None:
    """Ours divided by the server that the floor, or else the goal, is about."""
    medians = row.medians()
    target = row.metric.floor or row.metric.goal
    of = target.of if target else None
    if of is None or ours not in medians or not medians.get(of):
        return None
    return medians[ours] / medians[of]


def markdown(rows: Sequence[Row], labels: Mapping[str, str], ours: Sequence[str]) -> str:
    """The table; `labels` has the servers, in order, and what they are called. The first of ours in a row is judged."""
    heads = ["measure", "unit", *labels.values(), "floor", "goal", "result"]
    lines = [_line(heads), "|---|---|" + "---:|" * len(labels) + "---|---|---|"]
    for row in rows:
        cells = [row.measure, row.metric.unit]
        cells += [_cell(row, name) for name in labels]
        cells += [_target(row, target, labels) for target in (row.metric.floor, row.metric.goal)]
        judged = next((name for name in ours if name in row.values), "")
        word, times = verdict(row, judged), ratio(row, judged)
        told = f"{word} (x{number(times)})".lstrip() if times is not None else word
        lines.append(_line([*cells, told]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(row: Row, name: str) -> str:
    values = row.values.get(name)
    if not values:
        return "-"
    text = number(statistics.median(values)) + ("~" if is_wide(values) else "")
    if name in row.user:
        user = statistics.median(row.user[name])
        text += f" ({number(user)}+{number(max(0.0, statistics.median(values) - user))})"
    return text


def _target(row: Row, target: Target | None, labels: Mapping[str, str]) -> str:
    limit = None if target is None else target.limit(row.medians())
    if target is None or limit is None:
        return ""
    sign = "≥" if row.metric.higher else "≤"
    of = "" if target.of is None else f" ({number(target.factor)} x {labels.get(target.of, target.of)})"
    return f"{sign} {number(limit)}{of}"


def lost(then: Sequence[Row], now: Sequence[Row], ours: str) -> list[str]:
    """A line for each row in which ours is worse than then, by its ratio if it has one, so that machines may differ."""
    found = []
    before = {(row.measure, row.metric.unit): row for row in then}
    for row in now:
        old = before.get((row.measure, row.metric.unit))
        if old is None or ours not in row.values or ours not in old.values:
            continue
        old_ratio, new_ratio = ratio(old, ours), ratio(row, ours)
        if old_ratio is not None and new_ratio is not None:
            first, second, what = old_ratio, new_ratio, "as a ratio"
        else:
            first, second, what = old.medians()[ours], row.medians()[ours], "absolute"
        change = _loss(first, second, higher=row.metric.higher)
        if change > LOST:
            values = f"{number(first)} -> {number(second)} {what}"
            found.append(f"{row.measure}, {row.metric.unit}: worse by {change:.0%} ({values})")
    return found


def _loss(before: float, now: float, *, higher: bool) -> float:
    """By which part it is worse; 0.5 is half as good again. Negative if better."""
    worse, better = (before, now) if higher else (now, before)
    if better <= 0:
        return 0.0 if worse <= 0 else float("inf")
    return worse / better - 1


def to_json(results: Results, about: Sequence[str]) -> dict[str, Any]:
    """All there is to know about a run."""
    return {
        "about": list(about),
        "failures": results.failures,
        "rows": [
            {
                "measure": row.measure,
                "unit": row.metric.unit,
                "higher": row.metric.higher,
                "floor": _pair(row.metric.floor),
                "goal": _pair(row.metric.goal),
                "values": row.values,
                "user": row.user,
            }
            for row in results.rows
        ],
    }


def rows_of_json(document: Mapping[str, Any]) -> list[Row]:
    """The rows that `to_json` wrote."""
    return [
        Row(
            each["measure"],
            Metric(each["unit"], each["higher"], _target_of(each["floor"]), _target_of(each["goal"])),
            each["values"],
            each["user"],
        )
        for each in document["rows"]
    ]


def _pair(target: Target | None) -> list[Any] | None:
    return None if target is None else [target.factor, target.of]


def _target_of(pair: Sequence[Any] | None) -> Target | None:
    return None if pair is None else Target(pair[0], pair[1])
