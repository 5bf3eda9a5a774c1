"""Background tasks: one for each key, a maximum number, and an end."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from special.concurrency.keyed_tasks import KeyedTasks

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class Work:
    """Waits to be let go, and records."""

    def __init__(self) -> None:
        self.started = 0
        self.ended: list[str] = []
        self.gate = asyncio.Event()

    async def do(self) -> None:
        self.started += 1
        try:
            await self.gate.wait()
        finally:
            self.ended.append(REQUEST.get())


async def test_one_for_each_key_and_a_maximum_of_all() -> None:
    tasks, work = KeyedTasks(2), Work()
    assert [tasks.start(key, work.do) for key in "aabc"] == [True, False, True, False]
    assert len(tasks) == 2
    assert [key in tasks for key in "abc"] == [True, True, False]
    work.gate.set()
    await tasks.wait()
    assert work.started == 2
    assert len(tasks) == 0
    assert tasks.start("a", work.do)
    await tasks.wait()


async def test_they_do_not_run_in_the_context_of_the_request() -> None:
    tasks, work = KeyedTasks(1), Work()
    REQUEST.set("mine")
    work.gate.set()
    tasks.start("a", work.do)
    await tasks.wait()
    assert work.ended == ["none"]


async def test_cancelling_one_leaves_the_others() -> None:
    tasks, work = KeyedTasks(2), Work()
    for key in "ab":
        tasks.start(key, work.do)
    await asyncio.sleep(0)
    tasks.cancel("a")
    tasks.cancel("no such")
    for _ in range(3):
        await asyncio.sleep(0)
    assert [key in tasks for key in "ab"] == [False, True]
    await tasks.close()


async def test_closing_cancels_and_waits() -> None:
    tasks, work = KeyedTasks(2), Work()
    for key in "ab":
        tasks.start(key, work.do)
    await asyncio.sleep(0)
    await tasks.close()
    assert len(work.ended) == 2
    assert len(tasks) == 0
