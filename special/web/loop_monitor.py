"""Watches the event loop of a server process: how late it is, and how many tasks it has.

A process whose loop is blocked answers no request in time. That is the one reason to restart it, so
liveness depends on nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final

from special.observability import metrics

SAMPLES: Final = 20
"""Number of measurements that are kept."""
LATE_S: Final = 1.0
"""A loop that is later than this is not alive."""


class LoopMonitor:
    """Measures every `interval_s` for as long as `running` lasts."""

    def __init__(self, interval_s: float = 0.25) -> None:
        self._interval_s = interval_s
        self._lags_s: deque[float] = deque(maxlen=SAMPLES)
        self._due: float | None = None

    @property
    def lag_s(self) -> float:
        """The longest delay of the loop in the last measurements."""
        now = 0.0 if self._due is None else monotonic() - self._due
        return max(now, 0.0, *self._lags_s)

    @property
    def alive(self) -> bool:
        """Whether the loop keeps up."""
        return self.lag_s < LATE_S

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The time in which it measures."""
        task = asyncio.create_task(self._measure())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            metrics.flush()

    async def _measure(self) -> None:
        while True:
            self._due = monotonic() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._lags_s.append(monotonic() - self._due)
            metrics.LOOP_LAG.set(self.lag_s)
            metrics.TASKS.set(len(asyncio.all_tasks()))
            metrics.flush()
