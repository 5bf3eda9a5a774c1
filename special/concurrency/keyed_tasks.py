"""Background tasks by key: one for each key at a time, bounded in number, ended with what started them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context


class KeyedTasks:
    """Tasks that no request waits for. They handle their own errors."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, key: Hashable, make: Callable[[], Coroutine[object, object, None]]) -> bool:
        """Run `make` in the background; False where its key has a task already, or the maximum number of them run."""
        if key in self._tasks or len(self._tasks) >= self._max_running:
            return False
        # Not in the context of the request that asks for it: what this reads is not that request's cost.
        task = asyncio.create_task(make(), context=Context())
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key))
        return True

    def cancel(self, key: Hashable) -> None:
        if (task := self._tasks.get(key)) is not None:
            task.cancel()

    async def wait(self) -> None:
        """Until all that run now have ended. Raises what they raise."""
        await asyncio.gather(*self._tasks.values())

    async def close(self) -> None:
        """Cancel all of them, and wait for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
