"""Rate limit of each client: requests that come faster wait for their turns, which takes no CPU from others."""

from __future__ import annotations

import asyncio
from typing import Final

from special.concurrency.caches import LRUCache
from special.errors import Busy

MAX_CLIENTS: Final = 10_000
"""Maximum number of clients that are remembered; the others start afresh."""


class Pace:
    """Turns of clients, `per_second` each and `burst` of them at once; one event loop only.

    For requests that are cheap one by one, and with which a client could keep a processor busy all the same.
    """

    def __init__(self, per_second: float, *, burst: int, patience_s: float) -> None:
        """`patience_s` is the longest wait; a client that would wait longer is refused."""
        self._interval_s = 1 / per_second
        self._burst_s = burst * self._interval_s
        self._patience_s = patience_s
        self._due_s: LRUCache[str, float] = LRUCache(MAX_CLIENTS)
        """By client: when its turns so far would be over, had it asked at an even pace."""

    async def turn(self, client: str) -> None:
        """Wait for a turn. Raises `Busy` at once where that would take too long."""
        now_s = asyncio.get_running_loop().time()
        due_s = max(self._due_s.get(client) or 0.0, now_s) + self._interval_s
        wait_s = due_s - self._burst_s - now_s
        if wait_s > self._patience_s:
            raise Busy(f"{client} asks faster than {1 / self._interval_s:.0f} times a second", after_s=wait_s)
        self._due_s.put(client, due_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
