"""How long a store is waited for, and how often it is asked again.

A failure that may pass (a reset, a timeout, throttling, a short body) is tried again after a random wait, a
few times, inside one deadline, and only as long as the store answers at least half of what it is asked: a
store in trouble is not asked twice as much besides. Work that nobody waits for is tried on and on, at a pace
that such a store can bear. What will not pass (`Missing`, `Denied`, `Changed`) is never tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeVar

from special.errors import SourceError, Unreachable
from special.observability import metrics

T = TypeVar("T")

SLOWEST_BYTES_PER_S: Final = 2**20
"""A long span gets another second for each of these."""
MAX_CREDIT: Final = 100
"""So many retries in a row are granted to a store that has done well until now."""


class RetryBudget:
    """What all requests to one store share: places, and credit for retries."""

    def __init__(self, count: int) -> None:
        self.places = asyncio.Semaphore(count)
        self._credit = MAX_CREDIT

    def deposit(self) -> None:
        """The store has answered: one more retry may be had for it."""
        self._credit = min(MAX_CREDIT, self._credit + 1)

    def withdraw(self) -> bool:
        """Take a retry, if there is one to be had."""
        granted = self._credit > 0
        self._credit -= granted
        return granted


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Timeouts and retries of one source."""

    connect_s: float = 2.0
    """Longest wait for a connection."""
    request_s: float = 2.0
    """Longest wait of the first try for an answer and its first MiB; each further try waits twice as long.

    What Amazon S3's performance guidelines advise for small requests; a store that is slow every time gets its
    time all the same.
    """
    deadline_s: float = 30.0
    """No further try starts this long after the first one did."""
    retries: int = 3
    """Tries after the first one."""
    backoff_s: float = 0.1
    """Most that is waited before the second try; doubles with each further one."""
    max_backoff_s: float = 5.0
    """Most that is waited before any try."""
    budgeted: bool = True
    """Whether a store that refuses more than it answers gets no second try."""

    async def run(self, attempt: Callable[[], Awaitable[T]], turns: RetryBudget, *, size_bytes: int = 0) -> T:
        """What `attempt` gives, tried again while it raises `Unreachable` or takes too long for that many bytes.

        Each try waits for a turn and holds it to its end. Every failed one is counted.
        """
        last_start = monotonic() + self.deadline_s
        tries = 0
        while True:
            try:
                async with turns.places:
                    start = monotonic()
                    answer = await self.run_once(attempt, size_bytes, tries=tries)
                metrics.SOURCE_SECONDS.observe(monotonic() - start)
                turns.deposit()
            except SourceError as error:
                metrics.SOURCE_ERRORS.labels(kind=error.code).inc()
                if not isinstance(error, Unreachable):
                    turns.deposit()
                    raise
                wait_s = self.wait_s(tries)
                if tries == self.retries or monotonic() + wait_s > last_start:
                    raise
                if self.budgeted and not turns.withdraw():
                    raise
            else:
                return answer
            tries += 1
            await asyncio.sleep(wait_s)

    def wait_s(self, tries: int) -> float:
        """How long to wait after so many further tries that failed."""
        # Full jitter: those who failed together must not come back together.
        most_s = min(self.max_backoff_s, self.backoff_s * 2**tries)
        return random.uniform(0, most_s)  # noqa: S311 - no secret depends on it

    async def run_once(self, attempt: Callable[[], Awaitable[T]], size_bytes: int, *, tries: int) -> T:
        """One try, `Unreachable` if it takes too long for that many bytes after so many tries that failed."""
        limit_s = min(self.request_s * 2**tries, self.deadline_s) + size_bytes / SLOWEST_BYTES_PER_S
        try:
            async with asyncio.timeout(limit_s):
                return await attempt()
        except TimeoutError as error:
            raise Unreachable(f"the store took longer than {limit_s:.1f} s") from error
