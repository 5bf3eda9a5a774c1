"""How long a store is waited for, and how often it is asked again.

One budget for every request: a failure that may pass (a reset, a timeout, throttling, a short body) is tried
again after a random wait, a few times, inside one deadline. What will not pass (`Missing`,
`Denied`, `Changed`) is never tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from special import observe
from special.errors import SourceError, Unreachable

T = TypeVar("T")

SLOWEST_BYTES_PER_S = 2**20
"""A long span gets another second for each of these."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts and retries of one source."""

    connect_s: float = 2.0
    """Longest wait for a connection."""
    request_s: float = 10.0
    """Longest wait for an answer and its first MiB."""
    deadline_s: float = 30.0
    """No further try starts this long after the first one did."""
    retries: int = 3
    """Tries after the first one."""
    backoff_s: float = 0.1
    """Most that is waited before the second try; doubles with each further one."""

    async def persist(self, attempt: Callable[[], Awaitable[T]], turns: asyncio.Semaphore, *, size_bytes: int = 0) -> T:
        """What `attempt` gives, tried again while it raises `Unreachable` or takes too long for that many bytes.

        Each try waits for a turn and holds it to its end. Every failed one is counted.
        """
        last_start = monotonic() + self.deadline_s
        tries = 0
        while True:
            try:
                async with turns:
                    return await self.in_time(attempt, size_bytes)
            except SourceError as error:
                observe.SOURCE_ERRORS.labels(kind=error.code).inc()
                # Full jitter: those who failed together must not come back together.
                wait_s = random.uniform(0, self.backoff_s * 2**tries)  # noqa: S311 - no secret depends on it
                if not isinstance(error, Unreachable) or tries == self.retries or monotonic() + wait_s > last_start:
                    raise
            tries += 1
            await asyncio.sleep(wait_s)

    async def in_time(self, attempt: Callable[[], Awaitable[T]], size_bytes: int) -> T:
        """One try, `Unreachable` if it takes too long for that many bytes."""
        limit_s = self.request_s + size_bytes / SLOWEST_BYTES_PER_S
        try:
            async with asyncio.timeout(limit_s):
                return await attempt()
        except TimeoutError as error:
            raise Unreachable(f"the store took longer than {limit_s:.1f} s") from error
