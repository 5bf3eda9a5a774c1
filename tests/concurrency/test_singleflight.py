"""Equal work is done once."""

from __future__ import annotations

import asyncio

from special.concurrency.singleflight import SingleFlight
from special.errors import Malformed
from tests.concurrency.work import Expensive, run_others


async def test_equal_work_is_done_once() -> None:
    single_flight: SingleFlight[str] = SingleFlight()
    work = Expensive()
    callers = [asyncio.create_task(single_flight.run(n % 2, lambda n=n: work.do(n % 2))) for n in range(100)]  # type: ignore[misc]
    await run_others()
    work.open.set()
    assert await asyncio.gather(*callers) == ["answer 0", "answer 1"] * 50
    assert work.begun == [0, 1]
    assert await single_flight.run(0, work.do) == "answer 0"  # nothing is remembered
    assert work.begun == [0, 1, 0]


async def test_a_first_caller_that_leaves_does_not_disturb_the_others() -> None:
    single_flight: SingleFlight[str] = SingleFlight()
    work = Expensive()
    first, second = (asyncio.create_task(single_flight.run("a", work.do)) for _ in range(2))
    await run_others()
    first.cancel()
    await run_others()
    work.open.set()
    assert await second == "answer 0"
    assert first.cancelled()


async def test_when_all_have_left_the_work_ends_and_the_next_caller_starts_it_again() -> None:
    single_flight: SingleFlight[str] = SingleFlight()
    work = Expensive()
    callers = [asyncio.create_task(single_flight.run("a", work.do)) for _ in range(5)]
    await run_others()
    for caller in callers:
        caller.cancel()
    next_caller = asyncio.create_task(single_flight.run("a", work.do))
    await run_others()
    assert work.going == 1
    work.open.set()
    assert await next_caller == "answer 0"


async def test_each_caller_gets_a_copy_of_the_error() -> None:
    single_flight: SingleFlight[str] = SingleFlight()
    times = 0

    async def fail() -> str:
        nonlocal times
        times += 1
        await asyncio.sleep(0)
        raise Malformed("no picture")

    answers = await asyncio.gather(*(single_flight.run("a", fail) for _ in range(10)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Malformed] * 10
    assert len({id(answer) for answer in answers}) == 10
    assert times == 1


async def test_work_that_was_started_goes_on_when_all_callers_have_left() -> None:
    single_flight: SingleFlight[str] = SingleFlight()
    work = Expensive()
    caller = asyncio.create_task(single_flight.run("a", work.do))
    await run_others()
    task = single_flight.start("a", work.do)
    caller.cancel()
    await run_others()
    assert work.going == 1
    work.open.set()
    assert await task == "answer 0"
    assert work.begun == [0]


async def test_closing_a_single_flight_ends_its_work() -> None:
    single_flight: SingleFlight[str] = SingleFlight()
    work = Expensive()
    tasks = [single_flight.start(key, work.do) for key in "ab"]
    await run_others()
    assert work.going == 2
    await single_flight.close()
    assert work.going == 0
    assert all(task.cancelled() for task in tasks)
