"""Where our server spends its time in one measure, as py-spy sees it, as a flame graph."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.builds import Missing
from bench.field import Field
from bench.flame import draw, summary, tree, working
from bench.measures import Measure
from bench.peers import OURS, OURS_2, Server

#: How long a measure is repeated, in seconds, and samples a second.
SECONDS, RATE = 8.0, 400


def profile(field: Field, measure: Measure, path: str) -> None:
    """Repeat a measure of ours, write a flame graph of what the process did, and print the functions that cost most.

    A measure that starts a server for itself is taken once. Missing without py-spy.
    """
    name = OURS if OURS in measure.peers else OURS_2
    raw = f"{path}.raw"
    if measure.own:
        field.watch = lambda server: _recording(server, raw)
        measure.take(field, name)
    else:
        # What only the first request costs is not wanted.
        measure.take(field, name)
        with _recording(field.server(name, tls=measure.tls), raw):
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                measure.take(field, name)
    with open(raw) as file:
        stacks = working(file)
    os.unlink(raw)
    with open(path, "w") as file:
        file.write(draw(tree(stacks), f"{measure.title}: {sum(stacks.values())} samples"))
    sys.stdout.write("\n".join(summary(stacks)) + "\n")


@contextmanager
def _recording(server: Server, path: str) -> Iterator[None]:
    program = shutil.which("py-spy", path=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}")
    if program is None:
        raise Missing("py-spy is not installed: pip install py-spy")
    command = [program, "record", "--pid", str(server.program.pid), "--subprocesses", "--rate", str(RATE)]
    spy = subprocess.Popen(
        [*command, "--format", "raw", "--output", path, "--duration", "600"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1.0)
        yield
    finally:
        # It writes the file when it is interrupted.
        spy.send_signal(signal.SIGINT)
        spy.wait(60)
