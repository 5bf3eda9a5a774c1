"""Equal work is done once: all callers of one key share its result."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Work(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0
    detached: bool = False
    """Goes on when no caller waits for it."""


class SingleFlight(Generic[T]):
    """Work under way, by key. A caller that leaves early does not disturb the others."""

    def __init__(self) -> None:
        self._works: dict[Hashable, _Work[T]] = {}

    async def run(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The result of `make`, or of one for the same key that is under way. Raises what that raises.

        When the last caller has left, the work is cancelled.
        """
        work = self._joined(key, make)
        work.waiting += 1
        try:
            await asyncio.wait([work.task])
        finally:
            work.waiting -= 1
            if not work.waiting and not work.detached and not work.task.done():
                self._forget(key, work)
                work.task.cancel()
        return result_of(work.task)

    def start(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """The same work, which then goes on whether or not a caller waits for it: wait with `asyncio.wait`."""
        work = self._joined(key, make)
        work.detached = True
        return work.task

    async def close(self) -> None:
        """Cancel what is under way, and wait for its end."""
        tasks = [work.task for work in self._works.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _joined(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> _Work[T]:
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work(asyncio.ensure_future(_awaited(make)))
            work.task.add_done_callback(lambda _: self._forget(key, work))
        return work

    def _forget(self, key: Hashable, work: _Work[T]) -> None:
        if self._works.get(key) is work:
            del self._works[key]
        if work.task.done() and not work.task.cancelled():
            work.task.exception()  # asyncio complains of one that no caller is left to see


def result_of(task: asyncio.Task[T]) -> T:
    """What a finished task returned. Raises a copy of its error, so that callers do not share a traceback."""
    if (error := task.exception()) is not None:
        raise copy.copy(error) from error
    return task.result()


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
