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


class SingleFlight(Generic[T]):
    """Work under way, which all who want its result share."""

    def __init__(self) -> None:
        self._works: dict[Hashable, _Work[T]] = {}

    async def run(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
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
