"""Who asks too fast waits, and nobody else does."""

from __future__ import annotations

import asyncio

import pytest

from special.concurrency.pace import Pace
from special.errors import Busy
from tests.concurrency.work import run_others
from tests.support import virtual_time


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def times_s(pace: Pace, client: str, count: int) -> list[float]:
    """When so many requests of a client, all made now, have their turns."""
    start_s = now_s()

    async def one() -> float:
        await pace.turn(client)
        return round(now_s() - start_s, 6)

    return await asyncio.gather(*(one() for _ in range(count)))


def test_a_burst_goes_at_once_and_the_rest_at_the_pace() -> None:
    async def main() -> None:
        pace = Pace(10, burst=3, patience_s=5)
        assert await times_s(pace, "a", 6) == [0, 0, 0, 0.1, 0.2, 0.3]
        assert await times_s(pace, "a", 1) == [0.1], "the burst is used up"
        await asyncio.sleep(0.2)
        assert await times_s(pace, "a", 3) == [0, 0, 0.1], "two turns have come back"
        await asyncio.sleep(1000)
        assert await times_s(pace, "a", 4) == [0, 0, 0, 0.1], "never more than the burst"

    virtual_time.run(main())


def test_each_client_has_turns_of_its_own() -> None:
    async def main() -> None:
        pace = Pace(10, burst=1, patience_s=5)
        fast = asyncio.create_task(times_s(pace, "fast", 40))
        await run_others()
        assert await times_s(pace, "slow", 1) == [0]
        assert (await fast)[-1] == 3.9

    virtual_time.run(main())


def test_who_would_wait_too_long_is_told_when_to_ask_again() -> None:
    async def main() -> None:
        pace = Pace(2, burst=1, patience_s=1)
        waiting = asyncio.create_task(times_s(pace, "a", 3))
        await run_others()
        with pytest.raises(Busy) as caught:
            await pace.turn("a")
        assert caught.value.retry_after_s == 2
        assert await waiting == [0, 0.5, 1]
        assert await times_s(pace, "a", 1) == [0.5], "a refusal takes no turn"

    virtual_time.run(main())
