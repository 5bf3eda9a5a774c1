"""What runs first in the event loop, counted in its iterations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from starlette.types import Message

from special.concurrency.yielding import LOOP_ITERATIONS, FairStart
from special.serving import Answer
from special.web.response import CHUNK_BYTES, send_answer


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


async def test_dear_requests_that_come_together_begin_one_by_one() -> None:
    async with counted() as loop:
        line = FairStart()

        async def begin() -> None:
            await line.turn("a")
            loop.record()

        await asyncio.gather(*(begin() for _ in range(5)))
    assert loop.events[0] >= LOOP_ITERATIONS
    assert len(loop.gaps) == 4
    assert min(loop.gaps) >= LOOP_ITERATIONS


async def test_clients_take_iterations_to_begin() -> None:
    line, begun = FairStart(), []

    async def begin(client: str) -> None:
        await line.turn(client)
        begun.append(client)

    await asyncio.gather(*map(begin, "aaaaaabcb"))
    assert "".join(begun) == "aabcabaaa"


@pytest.mark.parametrize(
    "iterations",
    [pytest.param(iterations, id=f"{iterations} iterations later") for iterations in range(3 * LOOP_ITERATIONS)],
)
async def test_a_client_that_leaves_does_not_delay_the_others(iterations: int) -> None:
    """Whenever they leave: with their turn, before it, or just when it comes."""
    line = FairStart()
    tasks = [asyncio.create_task(line.turn("ab"[number % 2])) for number in range(6)]
    for _ in range(iterations):
        await asyncio.sleep(0)
    for task in tasks[:5]:
        task.cancel()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert ends[5] is None
        await line.turn("c")


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        pytest.param(CHUNK_BYTES, 1, id="one piece"),
        pytest.param(CHUNK_BYTES + 1, 2, id="two"),
        pytest.param(5 * CHUNK_BYTES, 5, id="five"),
    ],
)
async def test_a_large_answer_goes_out_in_pieces_with_iterations_for_others_between(size: int, pieces: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"." * (size % 256)
    sent: list[bytes] = []
    async with counted() as loop:

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                loop.record()
                sent.append(message["body"])

        await send_answer(send, Answer(data, "image/jpeg", '"x"', len(data)), [])
    assert b"".join(sent) == data
    assert loop.gaps == [LOOP_ITERATIONS] * (pieces - 1)
