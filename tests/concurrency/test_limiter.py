"""A flood stands in line, and equal work is done once."""

from __future__ import annotations

import asyncio

import pytest

from special.concurrency.deadline import NEVER, Deadline
from special.concurrency.limiter import KeyedLimiter
from special.concurrency.singleflight import SingleFlight
from special.errors import Busy, Malformed


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
    turns, dear = KeyedLimiter(2, max_waiting=100), Dear()

    async def visit(n: int) -> None:
        async with turns.slot("a", deadline=NEVER):
            await dear.do(n)

    visitors = [asyncio.create_task(visit(n)) for n in range(10)]
    await turned_to()
    assert dear.begun == [0, 1]
    dear.open.set()
    await asyncio.gather(*visitors)
    assert dear.begun == list(range(10))
    assert dear.most == 2


async def test_lines_of_other_names_go_on() -> None:
    turns = KeyedLimiter(1, max_waiting=100)
    async with turns.slot("a", deadline=NEVER), turns.slot("b", deadline=NEVER), turns.slot("c", deadline=NEVER):
        pass


async def test_who_has_a_turn_sees_how_many_wait() -> None:
    turns, dear = KeyedLimiter(1, max_waiting=100), Dear()

    async def visit() -> None:
        async with turns.slot("a", deadline=NEVER):
            await dear.do()

    async with turns.slot("a", deadline=NEVER) as line:
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
    turns = KeyedLimiter(1, max_waiting=1)

    async def visit() -> None:
        async with turns.slot("a", deadline=NEVER):
            pass

    async with turns.slot("a", deadline=NEVER):
        waiting = asyncio.create_task(visit())
        await turned_to()
        with pytest.raises(Busy, match="wait already"):
            await visit()
    await waiting
    await visit()


async def test_a_wait_that_is_too_long_ends_and_leaves_the_line() -> None:
    turns = KeyedLimiter(1, max_waiting=10)
    async with turns.slot("a", deadline=NEVER) as line:
        with pytest.raises(Busy, match="no slot for a: the deadline"):
            async with turns.slot("a", deadline=Deadline.after(0.01)):
                pass
        assert line.waiting == 0
    async with turns.slot("a", deadline=NEVER):
        pass


async def test_equal_work_is_done_once() -> None:
    shared: SingleFlight[str] = SingleFlight()
    dear = Dear()
    askers = [asyncio.create_task(shared.run(n % 2, lambda n=n: dear.do(n % 2))) for n in range(100)]  # type: ignore[misc]
    await turned_to()
    dear.open.set()
    assert await asyncio.gather(*askers) == ["answer 0", "answer 1"] * 50
    assert dear.begun == [0, 1]
    assert await shared.run(0, dear.do) == "answer 0"  # nothing is remembered
    assert dear.begun == [0, 1, 0]


async def test_a_first_asker_that_leaves_harms_nobody() -> None:
    shared: SingleFlight[str] = SingleFlight()
    dear = Dear()
    first, second = (asyncio.create_task(shared.run("a", dear.do)) for _ in range(2))
    await turned_to()
    first.cancel()
    await turned_to()
    dear.open.set()
    assert await second == "answer 0"
    assert first.cancelled()


async def test_when_all_have_left_the_work_ends_and_the_next_one_begins_anew() -> None:
    shared: SingleFlight[str] = SingleFlight()
    dear = Dear()
    askers = [asyncio.create_task(shared.run("a", dear.do)) for _ in range(5)]
    await turned_to()
    for asker in askers:
        asker.cancel()
    newcomer = asyncio.create_task(shared.run("a", dear.do))
    await turned_to()
    assert dear.going == 1
    dear.open.set()
    assert await newcomer == "answer 0"


async def test_a_failure_is_everybody_s_own() -> None:
    shared: SingleFlight[str] = SingleFlight()
    times = 0

    async def fail() -> str:
        nonlocal times
        times += 1
        await asyncio.sleep(0)
        raise Malformed("no picture")

    answers = await asyncio.gather(*(shared.run("a", fail) for _ in range(10)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Malformed] * 10
    assert len({id(answer) for answer in answers}) == 10
    assert times == 1


async def test_work_that_was_started_goes_on_when_all_callers_have_left() -> None:
    shared: SingleFlight[str] = SingleFlight()
    dear = Dear()
    caller = asyncio.create_task(shared.run("a", dear.do))
    await turned_to()
    work = shared.start("a", dear.do)
    caller.cancel()
    await turned_to()
    assert dear.going == 1
    dear.open.set()
    assert await work == "answer 0"
    assert dear.begun == [0]


async def test_closing_a_single_flight_ends_its_work() -> None:
    shared: SingleFlight[str] = SingleFlight()
    dear = Dear()
    works = [shared.start(key, dear.do) for key in "ab"]
    await turned_to()
    assert dear.going == 2
    await shared.close()
    assert dear.going == 0
    assert all(work.cancelled() for work in works)
