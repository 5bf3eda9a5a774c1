"""B16: how long `special serve` takes until it is ready, and what it holds while nothing is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from statistics import median
from time import perf_counter, sleep

from tests.bench.bench import Bench, Result
from tests.support import live
from tests.support.processes import family, proportional_bytes

READY_S, MOST_BYTES, MOST_PROCESSES = 1.0, 200 << 20, 6
SETTLES_S = 5.0
"""After this its first decoder is ready."""


def run(bench: Bench) -> Iterator[Result]:
    """With the defaults: a process for each core, and what they start by themselves."""
    homes, seconds = count(), []
    for _ in range(bench.repeats):
        home = bench.folder / str(next(homes))
        home.mkdir()
        start = perf_counter()
        with live.special(live.MASTERS, home=home, workers=None) as server:
            seconds.append(perf_counter() - start)
            sleep(SETTLES_S)
            processes = family(server.process.pid)
            held = proportional_bytes(server.process.pid)
    ready_s = median(seconds)
    yield Result("start: ready", f"{ready_s:.2f} s", "", None, f"< {READY_S:.0f} s", ready_s < READY_S)
    yield Result("idle: memory (PSS)", f"{held >> 20} MiB", "", None, f"≤ {MOST_BYTES >> 20} MiB", held <= MOST_BYTES)
    said = f"{len(processes)}"
    yield Result("idle: processes", said, "", None, f"≤ {MOST_PROCESSES}", len(processes) <= MOST_PROCESSES)
