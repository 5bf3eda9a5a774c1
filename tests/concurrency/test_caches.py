import asyncio

import pytest

from special.concurrency.caches import TTLCache
from special.errors import Missing, Unreachable


class Looker:
    """Records what is looked up; answers what it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self.answers: dict[str, int | Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = 0.0

    async def __call__(self, name: str, previous: int | None) -> int:
        self.asked.append((name, previous))
        await self.gate.wait()
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def remembered(self, capacity: int = 10) -> TTLCache[str, int]:
        return TTLCache(self, ttl_s=60, missing_ttl_s=2, capacity=capacity, clock=lambda: self.now)


async def test_believed_until_it_expires_then_asked_with_the_previous_value() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.answers["a"] = 1
    assert [await memory.get("a"), await memory.get("a")] == [1, 1]
    looker.now = 60
    looker.answers["a"] = 2
    assert await memory.get("a") == 2
    assert looker.asked == [("a", None), ("a", 1)]


async def test_one_look_up_however_many_ask() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.answers["a"] = 1
    looker.gate.clear()
    waiting = [asyncio.create_task(memory.get("a")) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    looker.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [1] * 99
    assert looker.asked == [("a", None)]
    assert waiting[0].cancelled()


async def test_a_failure_reaches_all_and_is_tried_again() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.answers["a"] = Unreachable("down")
    results = await asyncio.gather(*(memory.get("a") for _ in range(3)), return_exceptions=True)
    assert [type(it) for it in results] == [Unreachable] * 3
    looker.answers["a"] = 1
    assert await memory.get("a") == 1
    assert len(looker.asked) == 2


async def test_missing_is_remembered_briefly() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.answers["a"] = Missing("gone")
    for _ in range(2):
        with pytest.raises(Missing):
            await memory.get("a")
    assert len(looker.asked) == 1
    looker.now = 2
    looker.answers["a"] = 1
    assert await memory.get("a") == 1


async def test_bounded_least_recently_used_goes_first() -> None:
    looker = Looker()
    memory = looker.remembered(capacity=2)
    looker.answers = {"a": 1, "b": 2, "c": 3}
    for name in ("a", "b", "a", "c"):
        await memory.get(name)
    assert "a" in memory
    assert "b" not in memory


async def test_bounded_by_weight() -> None:
    looker = Looker()
    memory = TTLCache(looker, ttl_s=60, capacity=10, weigh=lambda value: value, clock=lambda: looker.now)
    looker.answers = {"a": 4, "b": 5, "c": 3, "vast": 11}
    for name in ("a", "b", "a", "c"):
        await memory.get(name)
    assert [name for name in "abc" if name in memory] == ["a", "c"]
    memory.put("a", 7)
    assert [memory.peek(name) for name in "abc"] == [7, None, 3]
    assert await memory.get("vast") == 11
    assert [name for name in ("a", "c", "vast") if name in memory] == []


async def test_at_hand_is_what_is_believed_and_looks_nothing_up() -> None:
    looker = Looker()
    memory = looker.remembered()
    assert memory.peek("a") is None
    memory.put("a", 1)
    assert memory.peek("a") == 1
    looker.now = 60
    assert memory.peek("a") is None
    assert looker.asked == []


async def test_forgotten_is_looked_up_from_nothing() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.answers["a"] = 1
    await memory.get("a")
    memory.forget("a")
    await memory.get("a")
    assert looker.asked == [("a", None), ("a", None)]
