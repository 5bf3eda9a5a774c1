"""The slowest answers of the last hour, of all server processes.

Too many names for a metric, and too few to need a database: each process keeps its own few, and writes them
beside its counts when one is added.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any, Final

COUNT: Final = 10
MAX_AGE_S: Final = 3600.0
_NAME: Final = "slowest-{}.json"


@dataclass(frozen=True, slots=True)
class Slow:
    """One answer that took long."""

    ms: float
    path: str
    """As it was asked for, still percent-encoded."""
    route: str
    status: int
    at: float
    """When, in seconds since 1970."""


class Slowest:
    """The slowest answers of this process, and of the others that share `folder`; None: there are no others."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._entries: list[Slow] = []

    def add(self, path: str, route: str, status: int, seconds: float) -> None:
        """Record an answer, if it is one of the slowest."""
        now, ms = time(), seconds * 1000
        if len(self._entries) == COUNT and ms <= self._entries[-1].ms and self._entries[-1].at > now - MAX_AGE_S:
            return
        slow = Slow(round(ms, 1), path, route, status, round(now))
        self._entries = _slowest([*self._entries, slow], now)
        if self._folder is not None:
            half = self._folder / f"{_NAME.format(os.getpid())}.half"
            half.write_text(json.dumps([asdict(each) for each in self._entries]))
            half.replace(self._folder / _NAME.format(os.getpid()))

    def of_all(self) -> list[dict[str, Any]]:
        """The slowest of all processes, slowest first."""
        found = list(self._entries)
        if self._folder is not None:
            files = self._folder.glob(_NAME.format("*"))
            found = [Slow(**each) for file in files for each in json.loads(file.read_text())]
        return [asdict(each) for each in _slowest(found, time())]


def _slowest(found: list[Slow], now: float) -> list[Slow]:
    recent = [each for each in found if each.at > now - MAX_AGE_S]
    return sorted(recent, key=lambda each: -each.ms)[:COUNT]
