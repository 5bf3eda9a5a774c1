"""Courtesy: whoever has much to do lets others go first, so that nobody with little to do waits for more than one.

A cheap answer takes three or four turns of the event loop: its connection, its request, its task. In each of them it
stands behind everybody who does something in the same turn, and a crowd that is begun, refused or sent pieces of
large answers does so in every turn.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from special.concurrency.fair_queue import FairQueue

LOOP_TURNS: Final = 6
"""So many turns of the event loop pass in between: some 50 µs where nobody else is there."""


async def yield_to_others() -> None:
    """Let everybody else have some turns of the event loop."""
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)


class FairStart:
    """Those who begin something dear: one after the other, clients in turn, and others in between."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    async def turn(self, client: str) -> None:
        """Wait for this client's turn to begin; the next one's comes once others have had theirs."""
        if self._taken:
            mine = asyncio.get_running_loop().create_future()
            self._waiting.put(client, mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.cancelled():
                    with suppress(LookupError):  # it has been passed over
                        self._waiting.remove(client, mine)
                else:  # its turn came at that very moment
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
