import asyncio

import pytest

from special.concurrency import StoreSilence, TTLCache
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


async def test_response_cache_is_what_is_believed_and_looks_nothing_up() -> None:
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


def staleness(looker: Looker, *, stale_after_s: float = 0.0) -> TTLCache[str, int]:
    """A cache that believes even numbers, and what is missing, 100 s longer while the store is silent."""
    return TTLCache(
        looker,
        ttl_s=60,
        missing_ttl_s=2,
        silence=StoreSilence(100, after_s=stale_after_s),
        stale_if=lambda name, value: value is None or value % 2 == 0,
        clock=lambda: looker.now,
    )


async def test_while_the_store_is_silent_a_stale_value_is_believed_for_a_bounded_time() -> None:
    looker = Looker()
    memory = staleness(looker)
    memory.put("a", 2)
    looker.gate.clear()
    looker.now = 60
    assert memory.peek("a") is None
    assert [await memory.get("a") for _ in range(3)] == [2, 2, 2]
    assert looker.asked == [("a", 2)], "one look-up goes on in the background"
    looker.now = 159.9
    assert await memory.get("a") == 2
    looker.now = 160
    waiting = asyncio.create_task(memory.get("a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    looker.answers["a"] = 4
    looker.gate.set()
    assert await waiting == 4
    assert looker.asked == [("a", 2)]


async def test_a_look_up_that_answers_in_time_is_waited_for() -> None:
    looker = Looker()
    memory = staleness(looker, stale_after_s=3600)
    memory.put("a", 2)
    looker.now = 60
    looker.answers["a"] = 4
    assert await memory.get("a") == 4
    looker.now = 120
    looker.answers["a"] = Missing("gone")
    with pytest.raises(Missing):
        await memory.get("a")


async def test_the_answer_of_the_look_up_in_the_background_is_believed_when_it_comes() -> None:
    looker = Looker()
    memory = staleness(looker)
    memory.put("a", 2)
    looker.gate.clear()
    looker.now = 60
    assert await memory.get("a") == 2
    looker.answers["a"] = 4
    looker.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert memory.peek("a") == 4


async def test_a_store_that_fails_is_asked_again_after_a_pause_and_meanwhile_not_waited_for() -> None:
    looker = Looker()
    memory = staleness(looker, stale_after_s=10)
    memory.put("a", 2)
    looker.now = 60
    looker.answers["a"] = Unreachable("down")
    assert [await memory.get("a") for _ in range(3)] == [2, 2, 2]
    assert len(looker.asked) == 1
    looker.now = 70
    looker.gate.clear()
    assert await memory.get("a") == 2, "the second look-up is under way"
    await asyncio.sleep(0)
    assert len(looker.asked) == 2
    looker.gate.set()


async def test_what_may_not_be_stale_never_is() -> None:
    looker = Looker()
    memory = staleness(looker)
    memory.put("restricted", 1)
    looker.now = 60
    looker.answers["restricted"] = Unreachable("down")
    with pytest.raises(Unreachable):
        await memory.get("restricted")
    assert "restricted" not in memory


async def test_what_was_missing_is_missing_while_the_store_is_silent() -> None:
    looker = Looker()
    memory = staleness(looker)
    looker.answers["a"] = Missing("gone")
    with pytest.raises(Missing):
        await memory.get("a")
    looker.now = 2
    looker.answers["a"] = Unreachable("down")
    with pytest.raises(Missing):
        await memory.get("a")
    looker.now = 102
    with pytest.raises(Unreachable):
        await memory.get("a")
    assert len(looker.asked) == 3


async def test_a_caller_that_leaves_early_does_not_end_the_look_up() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.answers["a"] = 1
    looker.gate.clear()
    only = asyncio.create_task(memory.get("a"))
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.wait([only])
    looker.gate.set()
    assert await memory.get("a") == 1
    assert looker.asked == [("a", None)]


async def test_closing_ends_the_look_ups() -> None:
    looker = Looker()
    memory = looker.remembered()
    looker.gate.clear()
    waiting = asyncio.create_task(memory.get("a"))
    await asyncio.sleep(0)
    await memory.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_value_is_forgotten_while_it_is_stale_and_not_once_it_was_replaced() -> None:
    looker = Looker()
    memory = staleness(looker)
    old, new = 2 * 10**6, 4 * 10**6  # too large to be the same object by chance
    memory.put("a", old)
    looker.now = 60
    looker.answers["a"] = Unreachable("down")
    assert await memory.get("a") == old
    memory.forget_value("a", old)
    looker.answers["a"] = new
    assert await memory.get("a") == new
    assert looker.asked == [("a", old), ("a", None)]
    memory.forget_value("a", old)
    assert memory.peek("a") == new


async def test_one_request_finds_out_for_all_caches_of_a_store_that_it_is_silent() -> None:
    looker, silence = Looker(), StoreSilence(100, after_s=0.02)
    first, second = (TTLCache(looker, ttl_s=0, silence=silence, clock=lambda: looker.now) for _ in range(2))
    looker.gate.clear()
    for memory in (first, second):
        memory.put("a", 2)
        memory.put("b", 4)
    assert await first.get("a") == 2
    for memory in (second, first):
        waiting = asyncio.create_task(memory.get("b"))
        await asyncio.sleep(0)
        assert waiting.done(), "it waits no more"
    looker.answers = {"a": 6, "b": 8}
    looker.gate.set()
    await asyncio.sleep(0.01)
    looker.gate.clear()
    waiting = asyncio.create_task(first.get("b"))
    await asyncio.sleep(0)
    assert not waiting.done(), "an answer has ended the silence"
    looker.gate.set()
    assert await waiting == 8
