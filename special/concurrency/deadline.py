"""The moment by which a request is answered, made once where it arrives and handed down.

Every queue, lock, read and decoder that a request meets is given what is left of it. No place has a timeout of its
own that would add up with the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from special.errors import TimedOut


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by a monotonic clock, in seconds. Immutable: a shorter one is another object."""

    at_s: float
    """When it is over; infinity for work that no client waits for."""
    clock: Callable[[], float] = monotonic
    """Tells the time. `limit` measures what is left with it and waits by the event loop."""

    @classmethod
    def after(cls, seconds: float, *, clock: Callable[[], float] = monotonic) -> Self:
        return cls(clock() + seconds, clock)

    @property
    def left_s(self) -> float:
        """Seconds until it is over; never negative."""
        return max(0.0, self.at_s - self.clock())

    @property
    def expired(self) -> bool:
        return self.clock() >= self.at_s

    def within(self, seconds: float) -> Deadline:
        """The earlier one of this and the deadline that many seconds from now."""
        return Deadline(min(self.at_s, self.clock() + seconds), self.clock)

    def limit(self, what: str) -> AbstractAsyncContextManager[None]:
        """Cancel the block when the deadline is over. Raises `TimedOut`, which names what took too long."""
        return _Limit(what, None if math.isinf(self.at_s) else self.left_s)


class _Limit:
    """Not made by `asynccontextmanager`, whose generator costs more than the rest: stored images pass two of these."""

    __slots__ = ("_timeout", "_what")

    def __init__(self, what: str, seconds: float | None) -> None:
        self._what = what
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as over:
            raise TimedOut(f"{self._what}: the deadline of the request is over") from over


NEVER = Deadline(math.inf)
"""For work that no client waits for."""
