"""A limit for each key: a few requests for one expensive thing run at once, the others wait.

Without it a flood of requests for one expensive master would plan, read and rebuild all of them, only to find the
decoders' queue full. A request that waits here has cost nothing yet, and what it waits for may be cheap, or another
request's answer already, by the time that its slot is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from weakref import WeakValueDictionary

from special.concurrency.deadline import Deadline
from special.errors import Busy, TimedOut
from special.observability import trace


@dataclass(slots=True, weakref_slot=True, eq=False)
class KeyState:
    """The requests for one key."""

    slots: asyncio.Semaphore
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    """For requests that have a slot and, as things are, had better run one by one."""
    waiting: int = 0
    """How many wait for a slot."""


class KeyedLimiter:
    """Slots for each key, given in the order in which they were asked for."""

    def __init__(self, max_running: int, *, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._states: WeakValueDictionary[str, KeyState] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, key: str, *, deadline: Deadline) -> AsyncGenerator[KeyState, None]:
        """Wait for a slot, and have it. Raises `Busy` where too many wait already, or none is free by the deadline."""
        state = self._states.setdefault(key, KeyState(asyncio.Semaphore(self._max_running)))
        if state.waiting >= self._max_waiting:
            raise Busy(f"{state.waiting} requests for {key} wait already")
        start = monotonic()
        state.waiting += 1
        try:
            async with deadline.limit(f"no slot for {key}"):
                await state.slots.acquire()
        except TimedOut as error:
            raise Busy(str(error)) from None
        finally:
            state.waiting -= 1
            trace().took("queue", start, monotonic())
        try:
            yield state
        finally:
            state.slots.release()
