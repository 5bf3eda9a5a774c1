"""What runs first in the event loop, counted in its iterations."""

from __future__ import annotations

import asyncio

import pytest

from special.concurrency.yielding import LOOP_ITERATIONS, FairStart
from tests.support.loop import counted


async def test_expensive_requests_that_come_together_begin_one_by_one() -> None:
    async with counted() as loop:
        start = FairStart()

        async def begin() -> None:
            await start.turn("a")
            loop.record()

        await asyncio.gather(*(begin() for _ in range(5)))
    assert loop.events[0] >= LOOP_ITERATIONS
    assert len(loop.gaps) == 4
    assert min(loop.gaps) >= LOOP_ITERATIONS


async def test_clients_take_iterations_to_begin() -> None:
    start, begun = FairStart(), []

    async def begin(client: str) -> None:
        await start.turn(client)
        begun.append(client)

    await asyncio.gather(*map(begin, "aaaaaabcb"))
    assert "".join(begun) == "aabcabaaa"


@pytest.mark.parametrize(
    "iterations",
    [pytest.param(iterations, id=f"{iterations} iterations later") for iterations in range(3 * LOOP_ITERATIONS)],
)
async def test_a_client_that_leaves_does_not_delay_the_others(iterations: int) -> None:
    """Whenever they leave: with their turn, before it, or just when it comes."""
    start = FairStart()
    tasks = [asyncio.create_task(start.turn("ab"[number % 2])) for number in range(6)]
    for _ in range(iterations):
        await asyncio.sleep(0)
    for task in tasks[:5]:
        task.cancel()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert ends[5] is None
        await start.turn("c")
