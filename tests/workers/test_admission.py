"""Admission control: exact counts, exact bytes, exact order; nothing here waits for a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from special.concurrency import NEVER, Deadline
from special.errors import Busy, TooExpensive
from special.observability import metrics
from special.workers import AdmissionController, Lane, standard_lanes

LANE = Lane("test", running=1, queue=4, deadline_s=60.0, reading=1)


async def settled() -> None:
    """Until everybody who can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Requests that stay inside until they are sent away, and the order in which they were let in."""

    def __init__(self, admission: AdmissionController, deadline: Deadline = NEVER) -> None:
        self.admission = admission
        self.deadline = deadline
        self.admitted: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def comes(self, *names: str, cost: int = 1, lane: str = "test", master: str | None = None) -> None:
        """Each by the name of its client and a number: `a1`."""
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._stay(name, cost, lane, master))
            await settled()

    async def leaves(self, name: str) -> None:
        self._leave[name].set()
        await settled()

    def refused(self) -> dict[str, str]:
        """Who was told to come again, and why."""
        done = {name: task for name, task in self.tasks.items() if task.done() and not task.cancelled()}
        return {name: str(task.exception()) for name, task in done.items() if task.exception()}

    async def _stay(self, name: str, cost: int, lane: str, master: str | None) -> None:
        async with self.admission.admit(lane, cost, deadline=self.deadline, client=name[0], master=master):
            self.admitted.append(name)
            await self._leave[name].wait()

    async def ends(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert (self.admission.reserved_bytes, self.admission.admitted("test"), self.admission.waiting("test")) == (
            0,
            0,
            0,
        )


async def test_so_many_are_in_and_so_many_wait_and_the_next_is_refused_at_once() -> None:
    crowd = Crowd(AdmissionController([LANE], budget_bytes=100))
    await crowd.comes("a1", "b1", "c1", "d1", "e1", "f1")
    assert crowd.admitted == ["a1", "b1"]
    assert crowd.admission.waiting("test") == 3
    assert crowd.refused() == {"f1": "lane test: 3 wait already"}
    await crowd.leaves("a1")
    assert crowd.admitted == ["a1", "b1", "c1"]
    await crowd.ends()


async def test_who_would_be_refused_is_told_so_before_anything_is_known_of_its_cost() -> None:
    crowd = Crowd(AdmissionController([LANE], budget_bytes=100))
    for name in ("c1", "a2", "a3", "a4", "a5"):
        crowd.admission.check("test", deadline=NEVER, client=name[0])
        await crowd.comes(name)
    with pytest.raises(Busy, match="lane test: 3 wait already"):
        crowd.admission.check("test", deadline=NEVER, client="a")
    crowd.admission.check("test", deadline=NEVER, client="b")  # a request of client a would give way
    assert (crowd.admission.waiting("test"), crowd.refused()) == (3, {}), "none has given way, for none has come"
    await crowd.comes("b1")
    assert crowd.refused() == {"a5": "lane test: a client with fewer requests came"}
    await crowd.ends()


async def test_a_single_request_takes_a_crowds_place_in_the_queue_and_goes_first() -> None:
    crowd = Crowd(AdmissionController([LANE], budget_bytes=100))
    await crowd.comes("c1", "a2", "a3", "a4", "a5", "a6", "b1")
    assert crowd.refused() == {
        "a6": "lane test: 3 wait already",
        "a5": "lane test: a client with fewer requests came",
    }
    for name in ("c1", "a2"):
        await crowd.leaves(name)
    assert crowd.admitted == ["c1", "a2", "b1", "a3"], "client a has half of the places while another waits"
    await crowd.ends()


WIDE = Lane("test", running=2, queue=9, deadline_s=60.0, reading=2)


async def test_a_client_that_has_all_places_counts_for_half_of_them_when_another_comes() -> None:
    crowd = Crowd(AdmissionController([WIDE], budget_bytes=100))
    await crowd.comes("a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1")
    assert crowd.admitted == ["a1", "a2", "a3", "a4", "b1", "b2"], "half as many again as there are places"
    crowd.admission.check("test", deadline=NEVER, client="c")
    await crowd.leaves("b1")
    assert crowd.admitted[6:] == ["c1"], "client a has more than its half"
    for name in ("a1", "a2", "a3"):
        await crowd.leaves(name)
    assert crowd.admitted[7:] == ["a5"]
    await crowd.ends()


async def test_a_master_counts_for_half_of_the_places_whoever_asks_for_it() -> None:
    crowd = Crowd(AdmissionController([WIDE], budget_bytes=100))
    await crowd.comes("a1", "b1", "c1", "d1", "e1", master="slow")
    assert crowd.admitted == ["a1", "b1", "c1", "d1"]
    await crowd.comes("f1", "e2", "g1", master="other")
    assert crowd.admitted[4:] == ["f1", "e2"]
    await crowd.leaves("a1")
    assert crowd.admitted[6:] == [], "the others count for two, and slow.jpg has more than its half"
    await crowd.leaves("f1")
    assert crowd.admitted[6:] == ["g1"]
    await crowd.ends()


async def test_a_place_for_another_client_is_no_memory_for_it() -> None:
    crowd = Crowd(AdmissionController([WIDE], budget_bytes=100))
    await crowd.comes("a1", "a2", "a3", "a4", "b1", cost=25)
    assert crowd.admitted == ["a1", "a2", "a3", "a4"]
    await crowd.comes("c1", cost=0)
    assert crowd.admitted == ["a1", "a2", "a3", "a4"], "b1 waits for memory and is not overtaken"
    await crowd.leaves("a1")
    assert crowd.admitted[4:] == ["b1", "c1"]
    await crowd.ends()


async def test_memory_is_never_more_than_the_budget_and_never_leaks() -> None:
    crowd = Crowd(AdmissionController([Lane("test", 10, 10, 60.0)], budget_bytes=100))
    await crowd.comes("a1", "b1", "c1", "d1", cost=40)
    assert (crowd.admitted, crowd.admission.reserved_bytes) == (["a1", "b1"], 80)
    assert metrics.DECODE_BYTES._value.get() == 80
    await crowd.comes("e1", cost=20)
    assert crowd.admitted == ["a1", "b1"], "a request that waits for memory is not overtaken"
    await crowd.leaves("b1")
    assert (crowd.admitted[2:], crowd.admission.reserved_bytes) == (["c1"], 80)
    crowd.tasks["d1"].cancel()
    await settled()
    assert (crowd.admitted[3:], crowd.admission.reserved_bytes) == (["e1"], 100)
    await crowd.ends()


async def test_what_can_never_be_let_in_is_refused_with_the_setting_that_would_help() -> None:
    admission = AdmissionController([Lane("test", 1, 1, 60.0, share=0.5)], budget_bytes=100)
    with pytest.raises(TooExpensive, match=r"51 bytes of memory; decode_memory leaves 50 .*: raise decode_memory"):
        async with admission.admit("test", 51, deadline=NEVER):
            pass
    async with admission.admit("test", 50, deadline=NEVER):
        assert admission.reserved_bytes == 50


async def test_expensive_lanes_leave_memory_to_cheap_ones() -> None:
    lanes = [Lane("test", 9, 9, 60.0), Lane("dear", 9, 9, 60.0, share=0.75)]
    crowd = Crowd(AdmissionController(lanes, budget_bytes=100))
    await crowd.comes("a1", "b1", cost=50, lane="dear")
    assert crowd.admitted == ["a1"]
    await crowd.comes("c1", "d1", cost=25)
    assert crowd.admitted == ["a1", "c1", "d1"]
    await crowd.leaves("c1")
    assert crowd.admitted == ["a1", "c1", "d1"], "75 + 50 bytes would leave no quarter to the cheap lane"
    await crowd.ends()


async def test_a_wait_that_would_be_too_long_is_refused_before_it_begins() -> None:
    now = 0.0
    admission = AdmissionController([Lane("test", 1, 9, 60.0)], budget_bytes=100, clock=lambda: now)
    async with admission.admit("test", 1, deadline=NEVER):
        now += 6.0
    deadline = Deadline.after(10.0, clock=lambda: now)
    crowd = Crowd(admission, deadline)
    await crowd.comes("a1", "b1", "c1")
    assert crowd.refused() == {"c1": "lane test: the wait would be 12.0 s and 10.0 s are left of the deadline"}
    refusal = crowd.tasks["c1"].exception()
    assert isinstance(refusal, Busy)
    assert refusal.retry_after_s == 12
    with pytest.raises(Busy, match=r"lane test: the wait would be 12\.0 s"):
        crowd.admission.check("test", deadline=deadline, client="c")
    crowd.admission.check("test", deadline=NEVER, client="c")
    now += 4.0
    with pytest.raises(Busy, match=r"the wait would be 12\.0 s and 6\.0 s are left of the deadline"):
        crowd.admission.check("test", deadline=deadline, client="c")
    await crowd.ends()


async def test_waiting_until_the_deadline_is_busy_and_leaves_nothing() -> None:
    crowd = Crowd(AdmissionController([Lane("test", 1, 9, 60.0)], budget_bytes=100), Deadline.after(0.01))
    await crowd.comes("a1", "b1")
    with pytest.raises(Busy, match="the deadline is over"):
        await crowd.tasks["b1"]
    await crowd.ends()


def cancel_then_leave(crowd: Crowd) -> None:
    crowd.tasks["b1"].cancel()
    crowd._leave["a1"].set()


def leave_then_cancel(crowd: Crowd) -> None:
    crowd._leave["a1"].set()
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(crowd.tasks["b1"].cancel))


@pytest.mark.parametrize("events", [cancel_then_leave, leave_then_cancel])
async def test_who_leaves_when_its_turn_comes_passes_it_on(events: Callable[[Crowd], None]) -> None:
    crowd = Crowd(AdmissionController([Lane("test", 1, 9, 60.0)], budget_bytes=1))
    await crowd.comes("a1", "b1", "c1")
    events(crowd)
    await settled()
    assert crowd.admitted[-1] == "c1"
    assert crowd.admission.admitted("test") == 1
    await crowd.ends()


async def test_nothing_is_taken_where_the_work_fails() -> None:
    admission = AdmissionController(standard_lanes(2), budget_bytes=1000)
    async with AsyncExitStack() as stack:
        for lane in ("tile", "full", "max"):
            await stack.enter_async_context(admission.admit(lane, 100, deadline=NEVER))
        assert admission.reserved_bytes == 300
    with pytest.raises(ZeroDivisionError):
        async with admission.admit("tile", 1, deadline=NEVER):
            _ = 1 / 0
    assert admission.reserved_bytes == 0


async def test_a_client_that_has_memory_lets_others_pass_while_it_waits_for_more() -> None:
    crowd = Crowd(AdmissionController([Lane("test", running=8, queue=8, deadline_s=60.0)], budget_bytes=10))
    await crowd.comes("a1", "a2", cost=6)
    await crowd.comes("b1", cost=3)
    await crowd.comes("a3", cost=1)
    assert crowd.admitted == ["a1", "b1"], "a's own do not pass"
    await crowd.leaves("a1")
    assert crowd.admitted == ["a1", "b1", "a2", "a3"]
    await crowd.ends()


async def test_a_client_that_has_no_memory_is_not_overtaken() -> None:
    crowd = Crowd(AdmissionController([Lane("test", running=8, queue=8, deadline_s=60.0)], budget_bytes=10))
    await crowd.comes("a1", "b1", "c1", cost=5)
    await crowd.comes("a2", "d1", cost=1)
    assert crowd.admitted == ["a1", "b1"]
    await crowd.leaves("a1")
    assert crowd.admitted == ["a1", "b1", "c1"]
    await crowd.leaves("b1")
    assert crowd.admitted == ["a1", "b1", "c1", "a2", "d1"]
    await crowd.ends()


async def test_a_job_that_needs_most_of_the_memory_lets_others_pass_while_it_waits() -> None:
    crowd = Crowd(AdmissionController([Lane("test", running=8, queue=8, deadline_s=60.0)], budget_bytes=100))
    await crowd.comes("a1", "b1", cost=75)
    assert (crowd.admitted, crowd.admission.reserved_bytes) == (["a1"], 75)
    await crowd.comes("c1", "d1", cost=10)
    assert crowd.admitted == ["a1", "c1", "d1"], "b1 does not keep them waiting"
    await crowd.leaves("a1")
    assert crowd.admitted[3:] == ["b1"]
    await crowd.ends()


async def test_no_more_is_reserved_than_a_decoder_can_take() -> None:
    lanes = [Lane("test", running=8, queue=8, deadline_s=60.0)]
    crowd = Crowd(AdmissionController(lanes, budget_bytes=100, job_bytes=40))
    await crowd.comes("a1", "b1", cost=1000)
    assert crowd.admission.reserved_bytes == 80
    await crowd.comes("c1", cost=20)
    assert crowd.admitted == ["a1", "b1", "c1"]
    await crowd.ends()
