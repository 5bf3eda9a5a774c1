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

    def transfer_s(self, size_bytes: int) -> float:
        """Longest wait for an answer with that many bytes."""
        return self.request_s + size_bytes / SLOWEST_BYTES_PER_S

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives, tried again while it raises `Unreachable`. Counts every failed try."""
        last_start = monotonic() + self.deadline_s
        tries = 0
        while True:
            try:
                return await attempt()
            except SourceError as error:
                observe.SOURCE_ERRORS.labels(kind=error.code).inc()
                # Full jitter: those who failed together must not come back together.
                wait_s = random.uniform(0, self.backoff_s * 2**tries)  # noqa: S311 - no secret depends on it
                if not isinstance(error, Unreachable) or tries == self.retries or monotonic() + wait_s > last_start:
                    raise
            tries += 1
            await asyncio.sleep(wait_s)
