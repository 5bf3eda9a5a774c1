"""What a run shows while it goes, and what it says at its end."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, perf_counter
from typing import Any, ClassVar, Literal, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from special.derive.outcome import BAD, RESULTS, Outcome, Result
from special.images import LeftOut

Notice = Literal["would open", "would close", "opened", "closed", "held", "foreign", "incomplete"]
NOTICES: dict[Notice, str] = {
    "would open": "{} would be opened",
    "would close": "{} would be closed",
    "opened": "{} opened",
    "closed": "{} closed",
    "held": "{} more restricted than the policy says, as before (--open-restricted opens them)",
    "foreign": "{} with a sizes file of others, left alone (--adopt takes them over)",
    "incomplete": "{} whose masters end early, shown as far as they go (--strict refuses them)",
}
"""What a run says at its end of images that are neither bad nor like all others."""
LEFT_OUT: dict[LeftOut, str] = {
    "spelling": "keys have no identifier unless odd_keys is set",
    "no image": "files passed over, which are no images by their names",
    "no template": "keys passed over, which fit no template of keys",
}
"""What it says of keys that the listing has."""
DOLLARS_PER_GB_MONTH = 0.023
"""What S3 Standard costs in most regions, in 2026."""
NAMED_IMAGES = 5
"""Images that a notice names; `--json` names all."""
MASTER_BYTES_PER_S = 10e6
"""Roughly what a decoder takes of compressed masters; a large JPEG is quicker, a JPEG 2000 slower."""
LINE_EVERY_S = 10.0
"""How often a line is written where there is no terminal."""


@dataclass(slots=True)
class Tally:
    """Everything that a run adds up."""

    results: Counter[Result] = field(default_factory=Counter)
    noticed: Counter[Notice] = field(default_factory=Counter)
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    """Keys of the listing for which there is no identifier, by the reason."""
    examples: dict[Notice | LeftOut, list[str]] = field(default_factory=dict)
    """The first few of each."""
    written: int = 0
    gets: int = 0
    bytes: int = 0
    decode_ms: float = 0.0
    pyramids: int = 0
    """How many pyramids are due."""
    planned_bytes: int = 0
    due_reads: int = 0
    due_puts: int = 0
    expected: int | None = None
    """How many images there are, once that is known."""
    interrupted: bool = False
    """Whether the run was stopped before its end."""
    _start: float = field(default_factory=perf_counter)
    _start_cpu_s: float = field(default_factory=lambda: _cpu_s())

    def add(self, outcome: Outcome) -> None:
        """One image is done."""
        self.results[outcome.result] += 1
        self.written += outcome.written
        self.gets += outcome.gets
        self.bytes += outcome.bytes
        self.decode_ms += outcome.decode_ms
        self.pyramids += outcome.planned_bytes > 0
        self.planned_bytes += outcome.planned_bytes
        self.due_reads += outcome.due_reads
        self.due_puts += outcome.due_puts
        for notice in _notices(outcome):
            self.noticed[notice] += 1
            self._remember(notice, outcome.identifier)

    @property
    def images(self) -> int:
        """How many images are done, well or badly."""
        return sum(self.results.values())

    @property
    def bad(self) -> int:
        """How many need looking at."""
        return sum(self.results[result] for result in BAD)

    @property
    def per_second(self) -> float:
        """Images a second since the start."""
        return self.images / max(perf_counter() - self._start, 1e-9)

    @property
    def left(self) -> int | None:
        """How many images are not done, where that is known."""
        return None if self.expected is None else max(0, self.expected - self.images)

    def counted(self) -> str:
        """The results in words."""
        return ", ".join(f"{self.results[result]:,} {result}" for result in RESULTS if self.results[result]) or "none"

    def leave_out(self, key: str, why: LeftOut) -> None:
        """The listing has a key for which there is no identifier."""
        self.left_out[why] += 1
        self._remember(why, repr(key))

    def _remember(self, what: Notice | LeftOut, name: str) -> None:
        examples = self.examples.setdefault(what, [])
        if len(examples) < NAMED_IMAGES:
            examples.append(name)

    def _named(self, what: Notice | LeftOut, count: int) -> str:
        examples = self.examples.get(what, [])
        return ", ".join(examples) + (", …" if count > len(examples) else "")

    def notices(self, always: Collection[Notice] = ()) -> list[str]:
        """What was opened, closed, left alone or passed over, a line each; those of `always` even if there are none."""
        lines = []
        for notice, text in NOTICES.items():
            count = self.noticed[notice]
            if count or notice in always:
                names = self._named(notice, count)
                lines.append(text.format(f"{count:,} images") + (f": {names}" if names else ""))
        for why, text in LEFT_OUT.items():
            if count := self.left_out[why]:
                lines.append(f"{count:,} {text}: {self._named(why, count)}")
        return lines

    def estimate(self, decoders: int) -> list[str]:
        """What it would cost to make what is due, in sentences; none if nothing is."""
        said = []
        if self.due_puts:
            minutes = self.due_reads / MASTER_BYTES_PER_S / max(1, decoders) / 60
            time = f"{minutes / 60:,.1f} hours" if minutes > 60 else f"{max(1, math.ceil(minutes))} min"
            size = f"{self.due_reads / 1e9:,.1f} GB" if self.due_reads > 1e9 else f"{self.due_reads / 1e6:,.1f} MB"
            said.append(
                f"What is due takes at most {size} of reads and {self.due_puts:,} PUTs, "
                f"and about {time} with {decoders} decoders at {MASTER_BYTES_PER_S / 1e6:.0f} MB/s each."
            )
        if self.pyramids:
            dollars, size = self.planned_bytes / 1e9 * DOLLARS_PER_GB_MONTH, f"{self.planned_bytes / 1e6:,.1f} MB"
            said.append(
                f"{self.pyramids:,} pyramids would take about {size}, some ${dollars:,.2f} a month in S3 Standard."
            )
        return said

    def plain(self) -> dict[str, Any]:
        """The summary as JSON has it."""
        return {
            "images": self.images,
            "interrupted": self.interrupted,
            "left": self.left,
            "results": {result: self.results[result] for result in RESULTS if self.results[result]},
            "left_out": self.left_out["spelling"],
            "no_image": self.left_out["no image"],
            "no_template": self.left_out["no template"],
            "incomplete": self.noticed["incomplete"],
            "written": self.written,
            "gets": self.gets,
            "bytes": self.bytes,
            "decode_ms": round(self.decode_ms, 1),
            "due_reads": self.due_reads,
            "due_puts": self.due_puts,
            "seconds": round(perf_counter() - self._start, 1),
        }

    def summary(self) -> str:
        """What the run did and what it cost. Decoders' CPU time counts once they have ended."""
        images = max(self.images, 1)
        return (
            f"{self.images:,} images: {self.counted()}; {self.written:,} renditions written. "
            f"{perf_counter() - self._start:.1f} s, {self.per_second:.1f} images/s; for each image "
            f"{(_cpu_s() - self._start_cpu_s) * 1000 / images:.1f} ms of CPU, {self.gets / images:.1f} GETs, "
            f"{self.bytes / images:,.0f} bytes."
        )


def _notices(outcome: Outcome) -> Iterator[Notice]:
    match outcome.result, outcome.access:
        case "foreign", _:
            yield "foreign"
        case "due", "opened":
            yield "would open"
        case "due", "closed":
            yield "would close"
        case _, ("opened" | "closed" | "held") as change:
            yield change
    if outcome.incomplete:
        yield "incomplete"


class Display(Protocol):
    """Shows outcomes as they come."""

    def update(self, outcome: Outcome, tally: Tally) -> None:
        """One more image is done, and counted in the tally."""
        ...


@dataclass(slots=True)
class Bar:
    """A bar on a terminal: rate, time left, failures."""

    progress: Progress

    def update(self, outcome: Outcome, tally: Tally) -> None:
        if outcome.result in BAD:
            self.progress.console.print(_line(outcome), markup=False, highlight=False)
        self.progress.update(
            self.progress.task_ids[0],
            completed=tally.images,
            total=tally.expected,
            rate=f"{tally.per_second:.1f}/s",
            bad=f"[red]{tally.bad} bad" if tally.bad else "",
        )

    def finish(self) -> None:
        """All is done: there were as many as were shown, should the count have been slower than the work."""
        self.progress.update(self.progress.task_ids[0], total=self.progress.tasks[0].completed)


@dataclass(slots=True)
class Lines:
    """Plain lines for a log: failures at once, a count every few seconds."""

    console: Console
    clock: Callable[[], float] = monotonic
    quiet: bool = False
    """Whether failures alone are written."""
    _counted_at: float | None = None

    def update(self, outcome: Outcome, tally: Tally) -> None:
        if outcome.result in BAD:
            self._print(_line(outcome))
        if self.quiet:
            return
        now = self.clock()
        if self._counted_at is None:
            self._counted_at = now
        if now - self._counted_at >= LINE_EVERY_S:
            self._counted_at = now
            known = "" if tally.expected is None else f"{tally.images:,} of {tally.expected:,}: "
            self._print(f"{known}{tally.counted()} ({tally.per_second:.1f}/s)")

    def _print(self, said: str) -> None:
        moment = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        self.console.print(f"{moment} {said}", markup=False, highlight=False)


@dataclass(slots=True)
class JsonLines:
    """One JSON object for each image."""

    out: TextIO

    def update(self, outcome: Outcome, tally: Tally) -> None:
        self.out.write(json.dumps(outcome.plain(), ensure_ascii=False) + "\n")
        self.out.flush()


class Report:
    """A table of all outcomes, as CSV: what a spreadsheet opens."""

    COLUMNS: ClassVar = ("time", "identifier", "outcome", "reason", "renditions", "gets", "bytes", "decode_ms")

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._rows = csv.writer(file)
        self._rows.writerow(self.COLUMNS)

    def add(self, outcome: Outcome) -> None:
        """One more row, which is in the file at once."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        named = (moment, outcome.identifier, outcome.result, outcome.reason)
        self._rows.writerow((*named, outcome.written, outcome.gets, outcome.bytes, round(outcome.decode_ms, 1)))
        self._file.flush()


@contextmanager
def bar(console: Console) -> Iterator[Bar]:
    """A bar on a terminal for as long as the run takes."""
    with Progress(
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[bad]}"),
        console=console,
        transient=True,
    ) as progress:
        progress.add_task("images", total=None, rate="", bad="")
        yield Bar(progress)


def _line(outcome: Outcome) -> str:
    return f"{outcome.result}: {outcome.identifier}: {outcome.detail}"


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
