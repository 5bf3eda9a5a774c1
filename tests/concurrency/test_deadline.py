"""One deadline for all that a request waits for."""

from __future__ import annotations

import asyncio

import pytest

from special.concurrency.deadline import NEVER, Deadline
from special.errors import TimedOut


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_what_is_left_goes_down_to_nothing():
    clock = Clock()
    deadline = Deadline.after(5, clock=clock)
    assert (deadline.left_s, deadline.expired) == (5, False)
    clock.now_s += 3
    assert (deadline.left_s, deadline.within(1).left_s, deadline.within(9).left_s) == (2, 1, 2)
    clock.now_s += 3
    assert (deadline.left_s, deadline.expired) == (0, True)
    assert not NEVER.expired


async def test_a_block_is_cancelled_at_the_deadline_and_says_where():
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(TimedOut, match="the store: the deadline"):
        async with Deadline.after(0.01).limit("the store"):
            await wait()
    assert cancelled.is_set()


async def test_an_expired_deadline_lets_nothing_wait():
    deadline = Deadline(0.0)
    with pytest.raises(TimedOut):
        async with deadline.limit("a queue"):
            await asyncio.sleep(0.001)


async def test_another_timeout_inside_is_not_the_deadline():
    with pytest.raises(TimeoutError):
        async with NEVER.limit("a read"):
            raise TimeoutError
