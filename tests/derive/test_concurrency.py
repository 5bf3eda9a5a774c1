"""Many images at once: bounded, patient, and unharmed by those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from special.derive.concurrency import BatchOptions, derive_all
from special.derive.inputs import InputImage, named
from special.derive.outcome import Outcome
from special.errors import Malformed, Unreachable
from special.observability.trace import trace


@dataclass
class Crew:
    """Works on images, and remembers how many were under way and in which order."""

    fail: dict[str, list[Exception]] = field(default_factory=dict)
    under_way: list[str] = field(default_factory=list)
    most: int = 0
    order: list[str] = field(default_factory=list)

    async def work(self, image: InputImage) -> Outcome:
        name = image.identifier
        assert name not in self.under_way
        self.under_way.append(name)
        self.most = max(self.most, len(self.under_way))
        self.order.append(name)
        try:
            trace().count_get(7)
            trace().decode_ms += 1.5
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if self.fail.get(name):
                raise self.fail[name].pop(0)
            return Outcome(name, "made", written=2)
        finally:
            self.under_way.remove(name)


async def outcomes(crew: Crew, names: list[str], batching: BatchOptions) -> dict[str, Outcome]:
    return {it.identifier: it async for it in derive_all(named(names), crew.work, batching=batching)}


async def test_no_more_images_are_under_way_than_agreed() -> None:
    crew = Crew()
    names = [str(n) for n in range(20)]

    assert set(await outcomes(crew, names, BatchOptions(3))) == set(names)
    assert crew.most == 3


async def test_candidates_are_taken_as_there_is_room() -> None:
    taken: list[str] = []

    async def endless() -> AsyncIterator[InputImage]:
        while True:
            taken.append(str(len(taken)))
            yield InputImage(taken[-1])

    crew = Crew()
    async with aclosing(derive_all(endless(), crew.work, batching=BatchOptions(2))) as stream:
        for _ in range(10):
            await anext(stream)
        assert len(taken) <= 13
    assert crew.under_way == []


async def test_image_that_is_named_twice_is_not_worked_on_twice_at_once() -> None:
    crew = Crew()

    assert len(await outcomes(crew, ["a", "a", "b", "a"], BatchOptions(4))) == 2
    assert crew.order == ["a", "a", "b", "a"]


async def test_outcome_tells_what_it_cost() -> None:
    assert (await outcomes(Crew(), ["a"], BatchOptions(1)))["a"] == Outcome(
        "a", "made", written=2, gets=1, bytes=7, decode_ms=1.5
    )


async def test_failures_are_outcomes(caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew(fail={"a": [Malformed("it ends too soon")], "b": [IndexError("a mistake of ours")]})

    found = await outcomes(crew, ["a", "b", "c"], BatchOptions(2))

    assert (found["a"].result, found["a"].detail) == ("failed", "it ends too soon")
    assert (found["b"].result, found["b"].detail) == ("failed", "IndexError: a mistake of ours")
    assert found["c"].result == "made"
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("times", "result"),
    [pytest.param(2, "made", id="comes back"), pytest.param(9, "failed", id="stays away")],
)
async def test_store_that_does_not_answer_is_given_time(times: int, result: str) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    crew = Crew(fail={"a": [Unreachable("SlowDown")] * times})
    found = await outcomes(crew, ["a"], BatchOptions(1, retries=3, pause_s=1.0, sleep=sleep))

    assert found["a"].result == result
    assert len(pauses) == min(times, 3)
    assert all(pause <= 2**tries for tries, pause in enumerate(pauses))


async def test_closing_leaves_nothing_under_way() -> None:
    crew = Crew()
    stream = derive_all(named([str(n) for n in range(9)]), crew.work, batching=BatchOptions(3))
    await anext(stream)
    await stream.aclose()

    assert crew.under_way == []
    assert len(asyncio.all_tasks()) == 1
