"""How often a store is asked again, and for how long each time."""

import asyncio
from functools import partial

import pytest
from prometheus_client import REGISTRY

from special.errors import Changed, Missing, SourceError, Unreachable
from special.storage.retry import MAX_CREDIT, RetryBudget, RetryPolicy


class Store:
    """Raises what it is told to, one after the other, and then answers."""

    def __init__(self, *failures: SourceError) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def answer(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


def down(count: int) -> Store:
    return Store(*[Unreachable("on purpose")] * count)


HASTE = RetryPolicy(backoff_s=0.0001)


async def test_each_further_try_waits_twice_as_long() -> None:
    asked = 0

    async def slow() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.5)
        return "answer"

    assert await RetryPolicy(request_s=0.15, backoff_s=0.0001).run(slow, RetryBudget(1)) == "answer"
    assert asked == 3  # 0.15 s, 0.3 s, 0.6 s


async def test_a_store_that_does_well_is_asked_four_times() -> None:
    store = down(3)
    assert await HASTE.run(store.answer, RetryBudget(1)) == "answer"
    assert store.asked == 4


async def test_each_answer_counts_as_one_latency() -> None:
    count = partial(REGISTRY.get_sample_value, "special_source_seconds_count")
    before = count()
    await HASTE.run(down(2).answer, RetryBudget(1))
    assert count() - before == 1


async def test_a_store_that_is_down_is_asked_once_when_its_credit_is_spent() -> None:
    budget, store = RetryBudget(1), down(10_000)
    requests = 3 * MAX_CREDIT
    for _ in range(requests):
        with pytest.raises(Unreachable):
            await HASTE.run(store.answer, budget)
    assert store.asked == requests + MAX_CREDIT


async def test_background_work_needs_no_credit() -> None:
    budget, store = RetryBudget(1), down(3 * MAX_CREDIT)
    retry_policy = RetryPolicy(retries=3 * MAX_CREDIT, backoff_s=0.0001, max_backoff_s=0.0001, budgeted=False)
    assert await retry_policy.run(store.answer, budget) == "answer"


async def test_waits_stop_growing() -> None:
    store = down(20)
    async with asyncio.timeout(10):  # twenty waits that double would take up to a hundred seconds
        await RetryPolicy(retries=20, backoff_s=0.0001, max_backoff_s=0.001).run(store.answer, RetryBudget(1))
    assert store.asked == 21


@pytest.mark.parametrize("answer", [Missing("gone"), Changed("another"), SourceError("odd")], ids=lambda it: it.code)
async def test_an_answer_earns_a_retry_whatever_it_is(answer: SourceError) -> None:
    budget = RetryBudget(1)
    while budget.withdraw():
        pass
    with pytest.raises(type(answer)):
        await HASTE.run(Store(answer).answer, budget)
    store = down(3)
    with pytest.raises(Unreachable):
        await HASTE.run(store.answer, budget)
    assert store.asked == 2


@pytest.mark.parametrize("where", ["waiting for a place", "asking", "before another try"])
async def test_a_request_that_is_cancelled_ends_at_once(where: str) -> None:
    budget, silence = RetryBudget(1), asyncio.Event()
    policy = RetryPolicy(request_s=3600, deadline_s=7200, backoff_s=3600, max_backoff_s=3600)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def attempt() -> None:
        asked.set()
        if where == "before another try":
            raise Unreachable("on purpose")
        await silence.wait()

    requests = [
        loop.create_task(policy.run(attempt, budget)) for _ in range(2 if where == "waiting for a place" else 1)
    ]
    await asked.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert budget.places.locked() == (where != "before another try")
    requests[-1].cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert requests[-1].cancelled()
    requests[0].cancel()
    await asyncio.wait(requests)
    assert not budget.places.locked()
