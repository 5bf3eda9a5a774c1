"""Work that a test starts and lets end."""

from __future__ import annotations

import asyncio


async def run_others(others: int = 20) -> None:
    """Let all other tasks go on as far as they can."""
    for _ in range(others):
        await asyncio.sleep(0)


class Expensive:
    """Work that waits for an event, and counts."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.going = 0
        self.most = 0
        self.open = asyncio.Event()

    async def do(self, n: int = 0) -> str:
        self.begun.append(n)
        self.going += 1
        self.most = max(self.most, self.going)
        try:
            await self.open.wait()
        finally:
            self.going -= 1
        return f"answer {n}"
