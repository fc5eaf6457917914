"""The benchmark: `python -m bench --help`; docs/performance.md says what it measures and how."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from bench.builds import Missing
from bench.connection import Failed
from bench.field import Field, Options
from bench.measures import LAG, MEASURES, PEAK, Measure
from bench.peers import OURS, OURS_2, PEERS
from bench.processes import Meter
from bench.profile import profile
from bench.table import Results, lost, markdown, number, rows_of_json, to_json

_ABOUT_OURS = (
    "CPU is user+system in brackets; servers and load share the machine; ~ marks rounds that differ by more than 25 %."
)
_ZOT = (
    "zot cannot be built from its module. Its figures in an earlier run with distribution 3.1.2, as ratios to that:"
    " GET manifest by tag, 32 connections: rate x2.73, CPU x0.32; HEAD blob: CPU x0.97; GET 4 KiB blob: CPU x0.10;"
    " GET 256 MiB, 8 at once: CPU x0.88; PUT, 4 at once: CPU x1.08; streamed, 1 at once: CPU x0.79;"
    " 200 images: rate x2.75, CPU x0.39; peak memory x0.30; start until ready: time x1.2."
)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    keys = " ".join(measure.key for measure in MEASURES)
    parser.add_argument("--only", metavar="KEY,KEY", help=f"measures, or what their keys begin with: {keys}")
    parser.add_argument("--peers", metavar="NAME,NAME", help=f"servers: {' '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each measure (2); some have five at least")
    parser.add_argument("--short", action="store_true", help="one round of a second each, to see that all works")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each load of small requests (2)")
    parser.add_argument("--large-mib", type=int, default=256, help="size of the large blob (256)")
    parser.add_argument("--out", metavar="FILE", help="write the table there, too")
    parser.add_argument("--json", metavar="FILE", help="write every value there")
    parser.add_argument("--compare", metavar="FILE", help="print rows that lost more than 20 %% since that JSON")
    parser.add_argument("--profile", metavar="FILE", help="no table: a flame graph (SVG) of ours in the first measure")
    parser.add_argument("--tmp", metavar="FOLDER", help="where servers store; needs 20 GiB on a disk")
    return parser.parse_args(arguments)


def chosen(keys: str | None) -> list[Measure]:
    """The measures whose keys begin with one of these; SystemExit if one begins none."""
    if keys is None:
        return list(MEASURES)
    wanted = keys.split(",")
    for each in wanted:
        if not any(measure.key.startswith(each) for measure in MEASURES):
            raise SystemExit(f"no measure begins with {each!r}")
    return [measure for measure in MEASURES if measure.key.startswith(tuple(wanted))]


def take(field: Field, measures: Sequence[Measure], peers: Sequence[str], rounds: int, many: bool) -> Results:
    """Take all measures, each in rounds in which the servers take turns."""
    results, missing = Results(), set[str]()
    for measure in measures:
        for number_ in range(max(rounds, measure.rounds) if many else rounds):
            for name in measure.peers:
                if name not in peers or name in missing:
                    continue
                try:
                    with field.during(measure.title, name):
                        values = measure.take(field, name)
                except Missing as error:
                    missing.add(name)
                    results.failures.append(f"{name}: {error}")
                except (Failed, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
                    what = f"{type(error).__name__}: {error}"
                    results.failures.append(f"{measure.title}, {name}, round {number_ + 1}: {what}")
                else:
                    results.add(measure.title, measure.metrics, name, values)
        _tell(results, measure)
    # Of a part of the measures it would say little.
    if len(measures) == len(MEASURES):
        for name, peak in field.peaks().items():
            results.add(PEAK[0], [PEAK[1]], name, {PEAK[1].unit: peak})
    lags = field.lags()
    if lags:
        results.add(LAG[0], [LAG[1]], OURS, {LAG[1].unit: max(lags.values()) * 1e3})
        worst = sorted(lags.items(), key=lambda each: -each[1])[:8]
        told = "; ".join(f"{each} {number(lag * 1e3)}" for each, lag in worst)
        field.notes.append(f"Longest turns of the reactor, ms: {told}.")
    return results


def _tell(results: Results, measure: Measure) -> None:
    """Say what was measured last, for whoever waits."""
    for metric in measure.metrics:
        row = results.row(measure.title, metric.unit)
        if row is not None:
            said = "  ".join(f"{name} {number(value)}" for name, value in row.medians().items())
            sys.stderr.write(f"{measure.key:10} {metric.unit:18} {said}\n")
    sys.stderr.flush()


def _about(began: float, options: Options) -> list[str]:
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    count = os.cpu_count() or 1
    foreign = Meter.foreign / (Meter.measured * count) if Meter.measured else 0.0
    return [
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(began))} UTC, {time.time() - began:.0f} s; {count} CPUs"
        f" ({found.group(1) if found else 'unknown'}), Linux {os.uname().release}; load average now"
        f" {os.getloadavg()[0]:.1f}; other processes took {foreign:.0%} of the machine during the measures.",
        f"Medians of {options.rounds} rounds or more, {options.seconds:g} s for each load. {_ABOUT_OURS}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    given = _arguments(arguments)
    measures = chosen(given.only)
    peers = given.peers.split(",") if given.peers else list(PEERS)
    if unknown := set(peers) - set(PEERS):
        raise SystemExit(f"no servers: {', '.join(sorted(unknown))}")
    options = Options(
        rounds=1 if given.short else given.rounds,
        seconds=1.0 if given.short else given.seconds,
        large_mib=given.large_mib,
    )
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="txregistry-bench-", dir=given.tmp) as folder:
        field = Field(folder, options)
        try:
            if given.profile:
                profile(field, measures[0], given.profile)
                return
            results = take(field, measures, peers, options.rounds, many=not given.short)
        finally:
            field.stop()
    about = [*_about(began, options), *field.notes, _ZOT]
    shown = {name: PEERS[name].label for name in PEERS if any(name in row.values for row in results.rows)}
    text = "\n\n".join((markdown(results.rows, shown, (OURS, OURS_2)), "\n".join(f"- {line}" for line in about)))
    if results.failures:
        text += "\n\nNot measured:\n\n" + "\n".join(f"- {line}" for line in results.failures)
    sys.stdout.write(text + "\n")
    if given.out:
        with open(given.out, "w") as file:
            file.write(text + "\n")
    if given.json:
        with open(given.json, "w") as file:
            json.dump(to_json(results, about), file, indent=1)
            file.write("\n")
    if given.compare:
        with open(given.compare) as file:
            lines = lost(rows_of_json(json.load(file)), results.rows, OURS)
        sys.stdout.write("\n".join(["", "Lost more than 20 %:", *(lines or ["nothing"])]) + "\n")


if __name__ == "__main__":
    main()
