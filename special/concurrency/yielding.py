"""Yielding the event loop, so that a cheap answer waits for no more than one expensive step of others.

A cheap answer takes three or four iterations of the event loop: its connection, its request, its task. In each of them
it waits for all other work of that iteration, and a crowd of requests that are begun, refused or sent pieces of large
answers has work in every one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from special.concurrency.fair_queue import FairQueue

LOOP_ITERATIONS: Final = 6
"""Iterations of the event loop that are left to others: some 50 µs where there are none."""


async def yield_to_others() -> None:
    """Leave some iterations of the event loop to all other work."""
    for _ in range(LOOP_ITERATIONS):
        await asyncio.sleep(0)


class FairStart:
    """Expensive work begins one request after the other, clients in turn, with other work in between."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    async def turn(self, client: str) -> None:
        """Wait until this client may begin; the next one may once other work has been done."""
        if self._taken:
            mine = asyncio.get_running_loop().create_future()
            self._waiting.put(client, mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.cancelled():
                    with suppress(LookupError):  # it has been passed over
                        self._waiting.remove(client, mine)
                else:  # its turn came in this iteration
                    self._pass_on()
                raise
        self._taken = True
        try:
            await yield_to_others()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            following = self._waiting.take()
            if not following.done():  # else it is just leaving
                following.set_result(None)
                return
        self._taken = False
