"""Courtesy: whoever has much to do lets others go first, so that nobody with little to do waits for more than one.

A cheap answer takes three or four turns of the event loop: its connection, its request, its task. In each of them it
stands behind everybody who does something in the same turn, and a crowd that is begun, refused or sent pieces of
large answers does so in every turn.
"""

from __future__ import annotations

import asyncio
from typing import Final

TURNS: Final = 6
"""So many turns of the event loop pass in between: some 50 µs where nobody else is there."""


async def after_others() -> None:
    """Let everybody else have some turns of the event loop."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class OneByOne:
    """Those who begin something dear: one after the other, and others in between."""

    def __init__(self) -> None:
        self._next = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for one's turn to begin; the next one's comes once others have had theirs."""
        async with self._next:
            await after_others()
