"""Quarantine: what crashed decoders twice is left alone for ten minutes.

A viewer asks for a hundred tiles of one bad master; each would cost a process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from special.errors import Crashed
from special.observability import metrics

CRASHES: Final = 2
SECONDS: Final = 600.0
_REMEMBERED: Final = 4096
"""Culprits; the one that crashed longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class _Record:
    crashes: int
    last: float


class Quarantine:
    """Crashes by culprit. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def crashed(self, culprit: str | None) -> None:
        """A decoder died working on it."""
        if culprit is None:
            return
        record = self._recent(culprit)
        crashes = record.crashes + 1 if record else 1
        self._records[culprit] = _Record(crashes, self._clock())
        if crashes == CRASHES:
            metrics.QUARANTINES.inc()
        self._records.move_to_end(culprit)
        if len(self._records) > _REMEMBERED:
            self._records.popitem(last=False)

    def check(self, culprit: str | None) -> None:
        """Raise `Crashed` for a culprit in quarantine."""
        record = self._recent(culprit) if culprit is not None else None
        if record is not None and record.crashes >= CRASHES:
            left_s = record.last + SECONDS - self._clock()
            raise Crashed(f"{culprit} crashed {record.crashes} decoders; left alone for {left_s:.0f} s more")

    def _recent(self, culprit: str) -> _Record | None:
        record = self._records.get(culprit)
        return record if record is not None and self._clock() < record.last + SECONDS else None
