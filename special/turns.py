"""Turns: of dear work little is done at once, the rest waits in line; and equal work is done once.

A flood of requests for one dear master would have each of them planned, read and rebuilt, only to
find the decoders' queue full. Whoever stands in line has cost nothing yet. And what it waits for may have
become cheap, or be somebody's answer already, when its turn comes.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from special.errors import Busy
from special.observe import trace

T = TypeVar("T")


@dataclass(slots=True, weakref_slot=True, eq=False)
class Line:
    """Those who want the same dear thing."""

    turns: asyncio.Semaphore
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    """For those who have a turn and, as things stand, had better go one by one."""
    waiting: int = 0
    """How many have not had their turn."""


class Turns:
    """A line for each name, first come, first served."""

    def __init__(self, at_once: int, *, longest_line: int, longest_wait_s: float) -> None:
        self._at_once = at_once
        self._longest_line = longest_line
        self._longest_wait_s = longest_wait_s
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncGenerator[Line, None]:
        """Wait in a line, and have a turn. Raises `Busy` where the line, or the wait, is too long."""
        line = self._lines.setdefault(name, Line(asyncio.Semaphore(self._at_once)))
        if line.waiting >= self._longest_line:
            raise Busy(f"{line.waiting} requests for {name} wait already")
        start = monotonic()
        line.waiting += 1
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await line.turns.acquire()
        except TimeoutError:
            raise Busy(f"no turn at {name} within {self._longest_wait_s:.0f} s") from None
        finally:
            line.waiting -= 1
            trace().took("queue", start, monotonic())
        try:
            yield line
        finally:
            line.turns.release()


@dataclass(slots=True, eq=False)
class _Work(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Shared(Generic[T]):
    """Work under way, which all who want its result share."""

    def __init__(self) -> None:
        self._works: dict[Hashable, _Work[T]] = {}

    async def do(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The result of `make`, or of one for the same key that is under way. Raises what that raises.

        Whoever leaves harms nobody else; when all have left, the work is cancelled.
        """
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work(asyncio.ensure_future(_awaited(make)))
            work.task.add_done_callback(lambda _: self._forget(key, work))
        work.waiting += 1
        try:
            await asyncio.wait([work.task])
        finally:
            work.waiting -= 1
            if not work.waiting and not work.task.done():
                self._forget(key, work)
                work.task.cancel()
        if (error := work.task.exception()) is not None:
            raise copy.copy(error) from error
        return work.task.result()

    def _forget(self, key: Hashable, work: _Work[T] | None) -> None:
        if self._works.get(key) is work:
            del self._works[key]


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
