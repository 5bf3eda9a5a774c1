"""What all benches share: what a result is, how two sides are compared, and what is asked of them.

Machines are shared and noisy, so a result is a ratio of two sides measured in one run: they take
turns, and the median of each turn's ratio counts. What is not a ratio is exact: GETs and bytes.
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from time import perf_counter

import httpx
import numpy as np
from PIL import Image

from tests.support.live import LiveServer
from tests.support.processes import cpu_s, proportional_bytes

CLIENTS = 8
"""Connections that the load generator keeps busy."""
WARM_UP_S = 1.0
SLACK_DB = 0.5
"""By how much an answer may be worse than a peer's in signal to noise: encoders differ at the same quality."""
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_SCRIPT = """
local asks, turn = {{}}, 0
function init()
  for line in io.lines({asks}) do
    local path, tag = line:match("^(%S+) (.*)$")
    asks[#asks + 1] = wrk.format(nil, path, tag ~= "" and {{["If-None-Match"] = tag}} or nil)
  end
end
function request()
  turn = turn % #asks + 1
  return asks[turn]
end
"""
"""For wrk: sends the requests of a file in turn."""
FLOOR = "the floor"


class Absent(Exception):
    """Something that a bench needs is not installed. Says what, and what installs it."""


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table."""

    job: str
    special: str
    """What special did, with its unit."""
    peer: str
    """What stood beside it, and what that did; empty where the result is exact."""
    ratio: float | None
    """How many times better special was; None where the result is exact."""
    bar: str
    """What `performance.md` asks."""
    reached: bool

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} ×"
        reached = "" if self.bar == FLOOR else "yes" if self.reached else "**no**"
        return f"{self.job} | {self.special} | {self.peer} | {ratio} | {self.bar} | {reached}"


@dataclass(frozen=True, slots=True)
class Bench:
    """The terms of one run."""

    folder: Path
    """Scratch space of this bench alone."""
    cache: Path
    """Where big masters are kept between runs."""
    repeats: int
    """Turns that each side has."""
    seconds: float
    """Length of one turn under load."""

    def faster(self, job: str, at_least: float | None, ours: Side, peer: Side, *, longer: float = 1.0) -> Result:
        """Both sides' rates by turns, as a result: special should reach `at_least` times the peer's.

        None: the peer is the floor, which nothing that does the job can reach.
        What takes long for each request needs turns so many times `longer` to be counted.
        """
        for side in (ours, peer):
            side.measure(WARM_UP_S * longer)
        turns = [
            (ours.measure(self.seconds * longer), peer.measure(self.seconds * longer)) for _ in range(self.repeats)
        ]
        ratio = median(mine.per_s / theirs.per_s for mine, theirs in turns)
        mine, theirs = (_middle(column) for column in zip(*turns, strict=True))
        bar = FLOOR if at_least is None else f"≥ {at_least} ×"
        return Result(job, str(mine), f"{peer.name}: {theirs}", ratio, bar, ratio >= (at_least or 0))

    def sooner(self, job: str, at_least: float, ours: Trial, peer: Trial) -> Result:
        """Both sides' seconds by turns, as a result. A trial sets itself up anew and gives the seconds of its work."""
        turns = [(ours.run(), peer.run()) for _ in range(self.repeats)]
        ratio = median(theirs / mine for mine, theirs in turns)
        mine, theirs = (median(column) for column in zip(*turns, strict=True))
        return Result(
            job,
            f"{mine * 1000:,.0f} ms",
            f"{peer.name}: {theirs * 1000:,.0f} ms",
            ratio,
            f"≥ {at_least} ×",
            ratio >= at_least,
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that takes time."""

    name: str
    run: Callable[[], float]
    """Does it once, and says how many seconds it took."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a load."""

    path: str
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has been started."""

    url: str
    """Without a trailing slash."""
    processes: tuple[int, ...]
    """Identifiers of its processes; their children count as theirs."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a server managed in one turn."""

    per_s: float
    """Requests per second."""
    cpu_ms: float
    """Processor time that its processes took for one request."""
    p50_ms: float
    """Half of the answers were there within this time."""
    p99_ms: float
    """99 of 100 answers were."""
    held_bytes: float
    """Memory of its processes right after the turn; a page that some of them share counts once."""

    def __str__(self) -> str:
        times = f"{self.p50_ms:,.1f}, {self.p99_ms:,.1f} ms"
        return f"{self.per_s:,.0f}/s · {self.cpu_ms:.2f} ms · {times} · {self.held_bytes / 2**20:,.0f} MiB"


def _middle(rates: Iterable[Rate]) -> Rate:
    """The median of each figure, but of memory the most."""
    found = list(rates)
    middle = [median(getattr(rate, it.name) for rate in found) for it in fields(Rate)]
    return Rate(*middle[:-1], max(rate.held_bytes for rate in found))


@dataclass(frozen=True, slots=True)
class Side:
    """A server under load: the same requests over and over."""

    name: str
    server: Running
    asks: Sequence[Ask]
    folder: Path
    """Where the load generator's script goes."""

    def measure(self, seconds: float) -> Rate:
        """One turn. Raises `RuntimeError` if any answer is an error."""
        tool = found("wrk", "apt-get install wrk")
        script, asks = self.folder / "load.lua", self.folder / "load.txt"
        script.write_text(_SCRIPT.format(asks=json.dumps(str(asks))))
        asks.write_text("".join(f"{ask.path} {ask.if_none_match or ''}\n" for ask in self.asks))
        command = [tool, "-t1", f"-c{CLIENTS}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "--latency"]
        command += ["-s", str(script)]
        before_s = self._cpu_s()
        said = subprocess.run([*command, self.server.url], check=True, capture_output=True, text=True).stdout
        spent_s = self._cpu_s() - before_s
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*", said)
        rate, count = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
        latencies = re.findall(r" (?:50|99)%\s+([\d.]+)(us|ms|s|m)\s", said)
        if wrong or not rate or not count or not int(count[1]) or len(latencies) != 2:
            raise RuntimeError(f"{self.name}: {wrong[0] if wrong else said}")
        p50_ms, p99_ms = (float(number) * _MS[unit] for number, unit in latencies)
        held_bytes = sum(map(proportional_bytes, self.server.processes))
        return Rate(float(rate[1]), spent_s / int(count[1]) * 1000, p50_ms, p99_ms, held_bytes)

    def _cpu_s(self) -> float:
        return sum(map(cpu_s, self.server.processes))

    def check(self, status: int = 200) -> list[httpx.Response]:
        """The first requests' answers. Raises `RuntimeError` unless they have that status."""
        answers = []
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            for ask in self.asks[:3]:
                condition = {"if-none-match": ask.if_none_match} if ask.if_none_match else {}
                answers.append(answer := client.get(ask.path, headers=condition))
                if answer.status_code != status:
                    raise RuntimeError(f"{self.name}: {ask.path}: {answer.status_code} {answer.text[:200]}")
        return answers


def pixels(job: str, ours: Side, peer: Side, truth: Image.Image) -> Result:
    """How near the first answers come to the picture that they should show, beside their sizes; nothing is timed.

    Who sends worse pixels may be sooner, and is not better.
    """
    said, nearness = [], []
    for side in (ours, peer):
        (answer, *_) = side.check()
        shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), np.float64)
        nearness.append(10 * math.log10(255**2 / max(1e-9, ((shown - np.asarray(truth, np.float64)) ** 2).mean())))
        said.append(f"{len(answer.content):,} bytes, {nearness[-1]:.1f} dB")
    is_as_good = nearness[0] >= nearness[1] - SLACK_DB
    return Result(job, said[0], f"{peer.name}: {said[1]}", None, f"≥ {peer.name} - {SLACK_DB} dB", is_as_good)


def found(tool: str, install: str) -> str:
    """Where a tool is. Raises `Absent`."""
    path = shutil.which(tool)
    if path is None:
        raise Absent(f"{tool} ({install})")
    return path


def running(server: LiveServer) -> Running:
    """special, as a server under load."""
    return Running(server.url, (server.process.pid,))


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    start = perf_counter()
    work()
    return perf_counter() - start
