"""What a run adds up: differences by kind, latencies, pixels, reads, and the examples that a report shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from special.compare.differences import DIFFERENCES, Comparison, Difference, DifferenceKind
from special.compare.reads import Reads
from special.compare.sample import REQUEST_KINDS, RequestKind
from special.compare.servers import Answer, NoAnswer

EXAMPLES = 4
"""Maximum number of examples of each kind of difference."""
DETAILS = 12
"""Maximum number of details of a kind that are told, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Example:
    """One difference with both answers."""

    comparison: Comparison
    difference: Difference
    old: Answer | NoAnswer
    new: Answer | NoAnswer

    @property
    def rank(self) -> float:
        """The lower, the worse."""
        return self.comparison.pixels.psnr_db if self.comparison.pixels else 0.0


@dataclass(slots=True)
class Totals:
    """Everything that a run adds up. Kinds that are `ignored` are told, and do not count as differing."""

    ignored: Collection[DifferenceKind] = ()
    addresses: Counter[RequestKind] = field(default_factory=Counter)
    lines: Counter[RequestKind] = field(default_factory=Counter)
    """Lines of the sample: an address that was asked often counts as often."""
    differing: Counter[RequestKind] = field(default_factory=Counter)
    """Lines with a difference that counts."""
    kinds: Counter[DifferenceKind] = field(default_factory=Counter)
    kind_lines: Counter[DifferenceKind] = field(default_factory=Counter)
    details: dict[DifferenceKind, Counter[str]] = field(default_factory=dict)
    examples: dict[DifferenceKind, list[Example]] = field(default_factory=dict)
    requests: list[Comparison] = field(default_factory=list)
    """All that differ."""
    psnr_db: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    seconds: dict[RequestKind, tuple[list[float], list[float]]] = field(default_factory=dict)
    reads: Reads = field(default_factory=Reads)

    def add(self, comparison: Comparison, old: Answer | NoAnswer, new: Answer | NoAnswer) -> None:
        """One request has been asked of both."""
        request = comparison.request
        self.addresses[request.kind] += 1
        self.lines[request.kind] += request.count
        kinds = {it.kind for it in comparison.differences}
        if kinds - set(self.ignored):
            self.differing[request.kind] += request.count
        for kind in kinds:
            self.kinds[kind] += 1
            self.kind_lines[kind] += request.count
        for difference in comparison.differences:
            self.details.setdefault(difference.kind, Counter())[difference.group or difference.detail] += 1
            self._keep(Example(comparison, difference, old, new))
        if kinds:
            self.requests.append(comparison)
        if comparison.pixels:
            self.psnr_db.append(comparison.pixels.psnr_db)
            self.means.append(comparison.pixels.mean)
        if isinstance(old, Answer) and isinstance(new, Answer):
            sides = self.seconds.setdefault(request.kind, ([], []))
            for side, answer in zip(sides, (old, new), strict=True):
                side.append(answer.seconds)
        if isinstance(new, Answer):
            self.reads.add(new.headers.get("server-timing", ""))

    def _keep(self, example: Example) -> None:
        """One example for each detail; of pixels those that are least alike."""
        kept = self.examples.setdefault(example.difference.kind, [])
        if all(it.difference.detail != example.difference.detail for it in kept):
            kept.append(example)
            kept.sort(key=lambda it: it.rank)
            del kept[EXAMPLES:]

    @property
    def differing_percent(self) -> float:
        """How many of the sample's lines have a difference that counts."""
        return 100 * self.differing.total() / max(1, self.lines.total())

    def plain(self) -> dict[str, Any]:
        """As JSON has it, but for the reads."""
        return {
            "addresses": self.addresses.total(),
            "lines": self.lines.total(),
            "differing_percent": self.differing_percent,
            "ignored": sorted(self.ignored),
            "differences": {kind: self._kind(kind) for kind in DIFFERENCES if kind in self.kinds},
            "requests": {kind: self._requests(kind) for kind in REQUEST_KINDS if kind in self.addresses},
            "pixels": {
                "compared": len(self.psnr_db),
                "psnr_db": {"lowest": _finite(min(self.psnr_db)), "p50": _finite(percentile(self.psnr_db, 50))},
                "mean": {"highest": max(self.means), "p50": percentile(self.means, 50)},
            }
            if self.psnr_db
            else {"compared": 0},
            "differing": [
                {
                    "path": it.request.path,
                    "lines": it.request.count,
                    "differences": [{"kind": found.kind, "detail": found.detail} for found in it.differences],
                }
                for it in self.requests
            ],
        }

    def _kind(self, kind: DifferenceKind) -> dict[str, Any]:
        details = dict(self.details[kind].most_common(DETAILS))
        return {"addresses": self.kinds[kind], "lines": self.kind_lines[kind], "details": details}

    def _requests(self, kind: RequestKind) -> dict[str, Any]:
        old, new = self.seconds.get(kind, ([], []))
        return {
            "addresses": self.addresses[kind],
            "lines": self.lines[kind],
            "differing_lines": self.differing[kind],
            "old_ms": _latency(old),
            "new_ms": _latency(new),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile: the smallest value that this percentage of the values does not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{it}": round(1000 * percentile(seconds, it), 1) for it in (50, 95, 99)} if seconds else {}


def _finite(value: float) -> float | None:
    """JSON knows no infinity: null is a picture that is the same."""
    return value if math.isfinite(value) else None
