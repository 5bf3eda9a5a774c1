"""An event loop whose iterations are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Loop:
    """Counts the iterations of the event loop, with a little to do in each."""

    turn: int = 0
    events: list[int] = field(default_factory=list)
    """The iterations in which something happened."""

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1

    def record(self) -> None:
        self.events.append(self.turn)

    @property
    def gaps(self) -> list[int]:
        return [after - before for before, after in pairwise(self.events)]


@asynccontextmanager
async def counted() -> AsyncIterator[Loop]:
    loop = Loop()
    counter = asyncio.create_task(loop.count())
    await asyncio.sleep(0)  # it counts from now on
    yield loop
    counter.cancel()
    with suppress(asyncio.CancelledError):
        await counter
