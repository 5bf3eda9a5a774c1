"""Turns: of dear work little is done at once, the rest waits in line; and equal work is done once.

A flood of requests for one dear master would have each of them planned, read and rebuilt, only to
find the decoders' queue full. Whoever stands in line has cost nothing yet. And what it waits for may have
become cheap, or be somebody's answer already, when its turn comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from weakref import WeakValueDictionary

from special.concurrency.deadline import Deadline
from special.errors import Busy
from special.observability import trace


@dataclass(slots=True, weakref_slot=True, eq=False)
class KeyState:
    """Those who want the same dear thing."""

    slots: asyncio.Semaphore
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    """For those who have a turn and, as things stand, had better go one by one."""
    waiting: int = 0
    """How many have not had their turn."""


class KeyedLimiter:
    """A line for each name, first come, first served."""

    def __init__(self, max_running: int, *, max_waiting: int) -> None:
        self._at_once = max_running
        self._longest_line = max_waiting
        self._lines: WeakValueDictionary[str, KeyState] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, name: str, *, deadline: Deadline) -> AsyncGenerator[KeyState, None]:
        """Wait in a line, and have a turn. Raises `Busy` where the line, or the wait, is too long."""
        line = self._lines.setdefault(name, KeyState(asyncio.Semaphore(self._at_once)))
        if line.waiting >= self._longest_line:
            raise Busy(f"{line.waiting} requests for {name} wait already")
        start = monotonic()
        line.waiting += 1
        try:
            async with deadline.limit(f"waiting for {name}"):
                await line.slots.acquire()
        finally:
            line.waiting -= 1
            trace().took("queue", start, monotonic())
        try:
            yield line
        finally:
            line.slots.release()
