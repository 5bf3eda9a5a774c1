"""Timeouts and retries: how long a store is waited for, and how often it is asked again.

A failure that may pass (a reset, a timeout, throttling, a short body) is retried after a random wait (backoff with
full jitter), a few times, within one deadline, and only as long as the store answers at least half of its requests: a
store in trouble does not get twice as many. Background work is retried on and on, at a pace that such a store can bear.
What will not pass (`Missing`, `Denied`, `Changed`) is never retried.

A request that is cancelled while it waits for a place, for the store or for the next try ends at once.
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
"""Maximum number of retries in a row, for a store that has answered well until now."""


class RetryBudget:
    """What all requests to one store share: a number of places, and credit for retries (a token bucket)."""

    def __init__(self, count: int) -> None:
        self.places = asyncio.Semaphore(count)
        self._credit = MAX_CREDIT

    def deposit(self) -> None:
        """The store has answered: credit for one more retry."""
        self._credit = min(MAX_CREDIT, self._credit + 1)

    def withdraw(self) -> bool:
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
    """No further try starts this long after the first one."""
    retries: int = 3
    """Tries after the first one."""
    backoff_s: float = 0.1
    """Longest wait before the second try; doubles with each further one."""
    max_backoff_s: float = 5.0
    budgeted: bool = True
    """Whether retries need credit: a store that refuses more than it answers gets none."""

    async def run(self, attempt: Callable[[], Awaitable[T]], budget: RetryBudget, *, size_bytes: int = 0) -> T:
        """What `attempt` gives, retried while it raises `Unreachable` or takes too long for that many bytes.

        Each try waits for a place and has it to its end. Every failed one is counted.
        """
        last_start = monotonic() + self.deadline_s
        tries = 0
        while True:
            try:
                async with budget.places:
                    start = monotonic()
                    answer = await self.run_once(attempt, size_bytes, tries=tries)
                metrics.SOURCE_SECONDS.observe(monotonic() - start)
                budget.deposit()
            except SourceError as error:
                metrics.SOURCE_ERRORS.labels(kind=error.code).inc()
                if not isinstance(error, Unreachable):
                    budget.deposit()
                    raise
                wait_s = self.wait_s(tries)
                if tries == self.retries or monotonic() + wait_s > last_start:
                    raise
                if self.budgeted and not budget.withdraw():
                    raise
            else:
                return answer
            tries += 1
            await asyncio.sleep(wait_s)

    def wait_s(self, tries: int) -> float:
        """How long to wait after that many retries."""
        # Full jitter: requests that failed together must not come back together.
        longest_s = min(self.max_backoff_s, self.backoff_s * 2**tries)
        return random.uniform(0, longest_s)  # noqa: S311 - no secret depends on it

    async def run_once(self, attempt: Callable[[], Awaitable[T]], size_bytes: int, *, tries: int) -> T:
        """One try, `Unreachable` if it takes too long for that many bytes after that many failed tries."""
        limit_s = min(self.request_s * 2**tries, self.deadline_s) + size_bytes / SLOWEST_BYTES_PER_S
        try:
            async with asyncio.timeout(limit_s):
                return await attempt()
        except TimeoutError as error:
            raise Unreachable(f"the store took longer than {limit_s:.1f} s") from error
