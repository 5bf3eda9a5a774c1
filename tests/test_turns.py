"""A flood stands in line, and equal work is done once."""

from __future__ import annotations

import asyncio

import pytest

from special.errors import Busy, Malformed
from special.turns import Shared, Turns


async def turned_to(others: int = 20) -> None:
    """Let everybody else go on as far as they can."""
    for _ in range(others):
        await asyncio.sleep(0)


class Dear:
    """Work that waits to be let go, and counts."""

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


async def test_few_have_a_turn_and_the_rest_come_in_order() -> None:
    turns, dear = Turns(2, longest_line=100, longest_wait_s=60), Dear()

    async def visit(n: int) -> None:
        async with turns.turn("a"):
            await dear.do(n)

    visitors = [asyncio.create_task(visit(n)) for n in range(10)]
    await turned_to()
    assert dear.begun == [0, 1]
    dear.open.set()
    await asyncio.gather(*visitors)
    assert dear.begun == list(range(10))
    assert dear.most == 2


async def test_lines_of_other_names_go_on() -> None:
    turns = Turns(1, longest_line=100, longest_wait_s=60)
    async with turns.turn("a"), turns.turn("b"), turns.turn("c"):
        pass


async def test_who_has_a_turn_sees_how_many_wait() -> None:
    turns, dear = Turns(1, longest_line=100, longest_wait_s=60), Dear()

    async def visit() -> None:
        async with turns.turn("a"):
            await dear.do()

    async with turns.turn("a") as line:
        visitors = [asyncio.create_task(visit()) for _ in range(7)]
        await turned_to()
        assert line.waiting == 7
        visitors[3].cancel()
        await turned_to()
        assert line.waiting == 6
    dear.open.set()
    await asyncio.gather(*visitors, return_exceptions=True)
    assert line.waiting == 0


async def test_a_line_that_is_too_long_refuses_at_once() -> None:
    turns = Turns(1, longest_line=1, longest_wait_s=60)

    async def visit() -> None:
        async with turns.turn("a"):
            pass

    async with turns.turn("a"):
        waiting = asyncio.create_task(visit())
        await turned_to()
        with pytest.raises(Busy, match="wait already"):
            await visit()
    await waiting
    await visit()


async def test_a_wait_that_is_too_long_ends_and_leaves_the_line() -> None:
    turns = Turns(1, longest_line=10, longest_wait_s=0.01)
    async with turns.turn("a") as line:
        with pytest.raises(Busy, match="no turn at a"):
            async with turns.turn("a"):
                pass
        assert line.waiting == 0
    async with turns.turn("a"):
        pass


async def test_equal_work_is_done_once() -> None:
    shared: Shared[str] = Shared()
    dear = Dear()
    askers = [asyncio.create_task(shared.do(n % 2, lambda n=n: dear.do(n % 2))) for n in range(100)]  # type: ignore[misc]
    await turned_to()
    dear.open.set()
    assert await asyncio.gather(*askers) == ["answer 0", "answer 1"] * 50
    assert dear.begun == [0, 1]
    assert await shared.do(0, dear.do) == "answer 0"  # nothing is remembered
    assert dear.begun == [0, 1, 0]


async def test_a_first_asker_that_leaves_harms_nobody() -> None:
    shared: Shared[str] = Shared()
    dear = Dear()
    first, second = (asyncio.create_task(shared.do("a", dear.do)) for _ in range(2))
    await turned_to()
    first.cancel()
    await turned_to()
    dear.open.set()
    assert await second == "answer 0"
    assert first.cancelled()


async def test_when_all_have_left_the_work_ends_and_the_next_one_begins_anew() -> None:
    shared: Shared[str] = Shared()
    dear = Dear()
    askers = [asyncio.create_task(shared.do("a", dear.do)) for _ in range(5)]
    await turned_to()
    for asker in askers:
        asker.cancel()
    newcomer = asyncio.create_task(shared.do("a", dear.do))
    await turned_to()
    assert dear.going == 1
    dear.open.set()
    assert await newcomer == "answer 0"


async def test_a_failure_is_everybody_s_own() -> None:
    shared: Shared[str] = Shared()
    times = 0

    async def fail() -> str:
        nonlocal times
        times += 1
        await asyncio.sleep(0)
        raise Malformed("no picture")

    answers = await asyncio.gather(*(shared.do("a", fail) for _ in range(10)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Malformed] * 10
    assert len({id(answer) for answer in answers}) == 10
    assert times == 1
