"""A flood stands in state, and equal work is done once."""

from __future__ import annotations

import asyncio

import pytest

from special.concurrency.deadline import NEVER, Deadline
from special.concurrency.limiter import KeyedLimiter
from special.errors import Busy
from tests.concurrency.work import Expensive, run_others


async def test_few_run_and_the_rest_follow_in_order() -> None:
    limiter, work = KeyedLimiter(2, max_waiting=100), Expensive()

    async def request(n: int) -> None:
        async with limiter.slot("a", deadline=NEVER):
            await work.do(n)

    requests = [asyncio.create_task(request(n)) for n in range(10)]
    await run_others()
    assert work.begun == [0, 1]
    work.open.set()
    await asyncio.gather(*requests)
    assert work.begun == list(range(10))
    assert work.most == 2


async def test_other_keys_are_not_limited() -> None:
    limiter = KeyedLimiter(1, max_waiting=100)
    async with limiter.slot("a", deadline=NEVER), limiter.slot("b", deadline=NEVER), limiter.slot("c", deadline=NEVER):
        pass


async def test_a_slot_tells_how_many_wait() -> None:
    limiter, work = KeyedLimiter(1, max_waiting=100), Expensive()

    async def request() -> None:
        async with limiter.slot("a", deadline=NEVER):
            await work.do()

    async with limiter.slot("a", deadline=NEVER) as state:
        requests = [asyncio.create_task(request()) for _ in range(7)]
        await run_others()
        assert state.waiting == 7
        requests[3].cancel()
        await run_others()
        assert state.waiting == 6
    work.open.set()
    await asyncio.gather(*requests, return_exceptions=True)
    assert state.waiting == 0


async def test_too_many_waiting_are_refused_at_once() -> None:
    limiter = KeyedLimiter(1, max_waiting=1)

    async def request() -> None:
        async with limiter.slot("a", deadline=NEVER):
            pass

    async with limiter.slot("a", deadline=NEVER):
        waiting = asyncio.create_task(request())
        await run_others()
        with pytest.raises(Busy, match="wait already"):
            await request()
    await waiting
    await request()


async def test_a_wait_ends_at_the_deadline() -> None:
    limiter = KeyedLimiter(1, max_waiting=10)
    async with limiter.slot("a", deadline=NEVER) as state:
        with pytest.raises(Busy, match="no slot for a: the deadline"):
            async with limiter.slot("a", deadline=Deadline.after(0.01)):
                pass
        assert state.waiting == 0
    async with limiter.slot("a", deadline=NEVER):
        pass
