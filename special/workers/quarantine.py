"""Quarantine: a master that cost two decoders is not decoded for ten minutes.

A viewer asks for a hundred tiles of one bad master. Each would cost a process, and where it hangs all the time
that a decoder may take.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from special.errors import Quarantined
from special.observability import metrics

MAX_FAILURES: Final = 2
SECONDS: Final = 600.0
_MAX_KEYS: Final = 4096
"""Keys that are remembered; the one that failed longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class _Record:
    failures: int
    last_s: float


class Quarantine:
    """Decoders lost, by what they worked on. `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def count(self, key: str | None) -> None:
        """A decoder crashed, or had to be killed, when it worked on this."""
        if key is None:
            return
        record = self._recent(key)
        failures = record.failures + 1 if record else 1
        self._records[key] = _Record(failures, self._clock())
        if failures == MAX_FAILURES:
            metrics.QUARANTINES.inc()
        self._records.move_to_end(key)
        if len(self._records) > _MAX_KEYS:
            self._records.popitem(last=False)

    def check(self, key: str | None) -> None:
        """Raise `Quarantined` for a key in quarantine."""
        record = self._recent(key) if key is not None else None
        if record is not None and record.failures >= MAX_FAILURES:
            left_s = record.last_s + SECONDS - self._clock()
            reason = f"{key} cost {record.failures} decoders; not decoded for {left_s:.0f} s more"
            raise Quarantined(reason, after_s=left_s)

    def _recent(self, key: str) -> _Record | None:
        record = self._records.get(key)
        return record if record is not None and self._clock() < record.last_s + SECONDS else None
