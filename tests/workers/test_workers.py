"""Real child processes: what they do, how they die, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from special import errors
from special.concurrency import NEVER, Deadline
from special.observability import metrics
from special.observability.trace import tracing
from special.workers import Lane, Talk, Workers, standard_lanes
from special.workers.child import NICENESS, SLICE_NS
from special.workers.messages import LENGTHS, Ready, Unready, dump_reply
from special.workers.process import begin, spawn
from special.workers.quarantine import SECONDS, Quarantine
from tests.support import jobs
from tests.support.waiting import until

pytestmark = pytest.mark.service

MEMORY = 2 << 30


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(2, memory_bytes=MEMORY, prepare=jobs.prepare) as pool:
        yield pool


def one_lane(*, deadline_s: float = 30.0) -> Workers:
    lane = Lane("test", 1, 0, deadline_s)
    return Workers(0, memory_bytes=MEMORY, lanes=[lane], spare=0, prepare=jobs.prepare)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def children() -> set[int]:
    """Decoders of this process, and the dead that nobody has reaped; other tests' servers are none."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found}
    return {pid for pid, command in commands.items() if not command or b"special.workers.child" in command}


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        pytest.param(operator.add, (2, 3), 5, id="numbers"),
        pytest.param(operator.mul, (b"x", 50_000), b"x" * 50_000, id="50 KB out"),
        pytest.param(operator.mul, (b"y", 20 << 20), b"y" * (20 << 20), id="20 MB out"),
        pytest.param(len, (b"",), 0, id="nothing in"),
        pytest.param(len, (bytes(300_000),), 300_000, id="300 KB in"),
        pytest.param(len, (bytes(20 << 20),), 20 << 20, id="20 MB in"),
    ],
)
async def test_results_come_back_whole(
    workers: Workers, function: Callable[..., object], args: Iterable[object], result: object
) -> None:
    assert await workers.run(function, *args, deadline=NEVER) == result


async def test_a_hundred_jobs_share_the_children(workers: Workers) -> None:
    before = children()
    pids = await asyncio.gather(*(workers.run(os.getpid, deadline=NEVER) for _ in range(100)))
    assert len(pids) == 100
    assert set(pids) <= before
    assert len(before) == 3  # two and one to spare


@dataclass(slots=True)
class Held:
    """Jobs that run until they are let go."""

    workers: Workers
    _free: asyncio.Event = field(default_factory=asyncio.Event)
    _jobs: list[asyncio.Task[int]] = field(default_factory=list)

    def start(self, count: int, *, lane: str | None = None) -> None:
        talk = Talk(self._answer, self._take, 0)
        self._jobs += [
            asyncio.create_task(self.workers.run(jobs.ask, talk=talk, deadline=NEVER, lane=lane)) for _ in range(count)
        ]

    async def let_go(self) -> None:
        self._free.set()
        assert set(await asyncio.gather(*self._jobs)) == {1}

    async def _answer(self, numbers: Sequence[int]) -> object:
        await self._free.wait()
        return numbers[0]

    async def _take(self, value: object, parts: Sequence[bytes]) -> None:
        raise ValueError


async def test_children_begin_on_demand_and_end_when_nothing_is_asked_of_them(caplog: pytest.LogCaptureFixture) -> None:
    up = metrics.DECODERS_UP._value.get()
    async with Workers(3, memory_bytes=MEMORY, prepare=jobs.prepare, idle_s=0.3) as workers:
        await workers.run(os.getpid, deadline=NEVER)
        held = Held(workers)
        held.start(3)
        await until(lambda: metrics.DECODERS_UP._value.get() == up + 4)
        assert len(children()) == 4
        await held.let_go()
        await until(lambda: len(children()) == 1)
        assert metrics.DECODERS_UP._value.get() == up + 1
        assert {await workers.run(os.getpid, deadline=NEVER)} <= children()
    assert children() == set()
    assert "decoder" not in caplog.text, "none was lost"


async def test_no_child_begins_when_the_pool_is_closed() -> None:
    async with Workers(3, memory_bytes=MEMORY, prepare=jobs.prepare, idle_s=60.0) as workers:
        held = Held(workers)
        held.start(3)
        await asyncio.sleep(0)  # one runs, two wait, and children begin for these
    with pytest.raises(errors.Busy):
        await held.let_go()
    for _ in range(5):
        await asyncio.sleep(0)
    assert children() == set()


async def test_a_lane_leaves_cheaper_ones_the_children_that_may_still_begin() -> None:
    lanes = [Lane("cheap", 2, 9, 60.0), Lane("expensive", 1, 9, 60.0)]
    async with Workers(0, memory_bytes=MEMORY, lanes=lanes, prepare=jobs.prepare, idle_s=60.0) as workers:
        held = Held(workers)
        held.start(2, lane="expensive")
        assert await workers.run(os.getpid, deadline=NEVER, lane="cheap") in children()
        await held.let_go()


async def test_a_child_is_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SPECIAL_SOURCE", "s3://private")
    async with Workers(1, memory_bytes=MEMORY, spare=0, prepare=jobs.prepare) as workers:
        seen = await workers.run(jobs.environment, deadline=NEVER)
        limits = await workers.run(jobs.limits, deadline=Deadline.after(10))
    assert not {"AWS_SECRET_ACCESS_KEY", "SPECIAL_SOURCE", "HOME"} & seen.keys()
    assert limits["memory"] == MEMORY
    assert limits["core"] == 0
    assert limits["nice"] == min(19, os.nice(0) + NICENESS)
    assert 0 < limits["cpu"] < 60
    assert limits["SIGINT"] == limits["SIGTERM"] == 1


async def test_a_child_lets_whoever_wishes_for_less_in_at_once(workers: Workers) -> None:
    """Older kernels, and those that only look like Linux, take the wish and forget it."""
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    assert await workers.run(jobs.slice_ns, deadline=NEVER) == (SLICE_NS if release >= (6, 12) else 0)


async def test_an_error_of_ours_arrives_as_itself(workers: Workers) -> None:
    with pytest.raises(errors.Malformed, match="page 3 has no tiles"):
        await workers.run(jobs.refuse, "page 3 has no tiles", deadline=NEVER)


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        pytest.param(operator.truediv, (1, 0), "ZeroDivisionError", id="any other exception"),
        pytest.param(bytearray, (MEMORY * 2,), "MemoryError", id="memory that python cannot have"),
        pytest.param(jobs.waste_memory, (8192,), "out of memory", id="memory that libvips cannot have"),
        pytest.param(jobs.raise_one_that_cannot_travel, (), "OSError", id="an exception that cannot be pickled"),
        pytest.param(jobs.return_what_cannot_travel, (), "JSON", id="a result that cannot travel"),
    ],
)
async def test_other_exceptions_are_decode_errors_and_the_child_lives(
    workers: Workers, function: Callable[..., object], args: Iterable[object], words: str
) -> None:
    before = children()
    with pytest.raises(errors.DecodeError, match=words) as caught:
        await workers.run(function, *args, deadline=NEVER)
    assert type(caught.value) is errors.DecodeError
    assert children() == before


@pytest.mark.parametrize(
    ("function", "args"),
    [
        pytest.param(os.abort, (), id="abort"),
        pytest.param(os._exit, (0,), id="exit"),
        pytest.param(jobs.reply, (b"\0" * 12,), id="a reply without a header"),
        pytest.param(jobs.reply, (LENGTHS.pack(1 << 30, 0),), id="a header that no reply has"),
        pytest.param(jobs.reply, (LENGTHS.pack(1 << 30, 0) + bytes(1 << 20),), id="such a header, and more after it"),
        pytest.param(jobs.reply, (LENGTHS.pack(2, 1 << 60) + b"[]",), id="a body that no result has"),
        pytest.param(jobs.reply, (LENGTHS.pack(2, 0) + b"[]",), id="a reply that is none"),
        pytest.param(jobs.reply, (LENGTHS.pack(4, 0) + b"\x80\x05].",), id="a pickle"),
    ],
)
async def test_a_crash_fails_its_own_job_alone(
    workers: Workers, function: Callable[..., object], args: Iterable[object], caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    other = asyncio.create_task(workers.run(operator.mul, b"z", 1000, deadline=NEVER))
    with pytest.raises(errors.Crashed):
        await workers.run(function, *args, deadline=NEVER)
    assert await other == b"z" * 1000
    assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
    await until(lambda: len(children()) == 3 and metrics.DECODERS_UP._value.get() == 3)
    assert len(children() & before) == 2
    assert [it for it in caplog.records if it.levelname == "ERROR"] == [], "no traceback of asyncio's"


async def test_a_successor_is_ready_before_the_dead_one_is_replaced(workers: Workers) -> None:
    await until(lambda: metrics.DECODERS_UP._value.get() == 3)  # the pool is open as soon as one is up
    spare = children()
    with pytest.raises(errors.Crashed):
        await workers.run(os.abort, deadline=NEVER)
    pids = await asyncio.gather(*(workers.run(os.getpid, deadline=NEVER) for _ in range(2)))
    assert set(pids) <= spare


async def test_a_job_that_hangs_is_killed_at_its_deadline(workers: Workers) -> None:
    before = children()
    with pytest.raises(errors.TimedOut):
        await workers.run(jobs.burn, deadline=Deadline.after(0.3))
    assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
    await until(lambda: len(children()) == 3 and len(children() & before) == 2)


async def test_the_lane_bounds_the_deadline() -> None:
    async with one_lane(deadline_s=0.3) as workers:
        with pytest.raises(errors.TimedOut):
            await workers.run(time.sleep, 60, deadline=Deadline.after(50))


async def test_children_killed_from_outside_are_replaced(workers: Workers) -> None:
    before = children()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(children() - before) == 3 and metrics.DECODERS_UP._value.get() == 3)
    assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2


async def test_one_killed_at_work_fails_its_job() -> None:
    async with one_lane() as workers:
        (pid,) = children()
        sleeper = asyncio.create_task(workers.run(time.sleep, 60, deadline=NEVER))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(errors.Crashed, match="SIGKILL during sleep"):
            await sleeper


async def test_a_waiting_job_that_is_cancelled_never_runs() -> None:
    async with one_lane() as workers:
        first = asyncio.create_task(workers.run(time.sleep, 0.3, deadline=NEVER))
        second = asyncio.create_task(workers.run(jobs.remember, "second", deadline=NEVER))
        third = asyncio.create_task(workers.run(jobs.remember, "third", deadline=NEVER))
        await asyncio.sleep(0)
        second.cancel()
        assert await asyncio.gather(first, third) == [None, ["third"]]
        assert second.cancelled()


async def test_a_running_job_that_is_cancelled_gives_its_child_back() -> None:
    async with one_lane() as workers:
        before = children()
        running = asyncio.create_task(workers.run(time.sleep, 0.2, deadline=NEVER))
        await asyncio.sleep(0)
        running.cancel()
        assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
        assert running.cancelled()
        assert children() == before


async def test_a_cancelled_job_that_hangs_is_killed_at_its_deadline() -> None:
    async with one_lane() as workers:
        before = children()
        running = asyncio.create_task(workers.run(jobs.burn, deadline=Deadline.after(0.2)))
        await asyncio.sleep(0)
        running.cancel()
        assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
        assert not children() & before


@pytest.mark.parametrize("left_s", [pytest.param(0.0, id="none left"), pytest.param(-3.0, id="past")])
async def test_a_deadline_that_is_over_is_timed_out_at_once(workers: Workers, left_s: float) -> None:
    with pytest.raises(errors.TimedOut, match="left of the deadline"):
        await workers.run(operator.add, 1, 1, deadline=Deadline.after(left_s))


async def test_a_job_waits_for_a_decoder_until_its_deadline() -> None:
    async with one_lane() as workers:
        long = asyncio.create_task(workers.run(time.sleep, 1, deadline=NEVER))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(workers.run(operator.add, 1, 1, deadline=NEVER)) for _ in range(100)]
        with pytest.raises(errors.TimedOut, match="no decoder was free"):
            await workers.run(operator.add, 1, 1, deadline=Deadline.after(0.1))
        await long
        assert await asyncio.gather(*waiting) == [2] * 100


def told(lane: str) -> dict[str, float]:
    """What the metrics say of a lane."""
    sample = REGISTRY.get_sample_value
    states = {state: sample("special_lane_jobs", {"lane": lane, "state": state}) for state in ("running", "waiting")}
    return {**states, "refused": sample("special_lane_refusals_total", {"lane": lane}) or 0.0}


async def test_a_lane_tells_what_runs_what_waits_and_what_was_refused() -> None:
    lane = Lane("told", running=1, queue=3, deadline_s=30.0)
    async with Workers(1, memory_bytes=MEMORY, lanes=[lane]) as workers:
        jobs = [asyncio.create_task(workers.run(time.sleep, 0.2, deadline=NEVER)) for _ in range(4)]
        await asyncio.sleep(0)
        assert told("told") == {"running": 1, "waiting": 3, "refused": 0}
        with pytest.raises(errors.TimedOut):
            await workers.run(operator.add, 1, 1, deadline=Deadline.after(0.01))
        jobs[3].cancel()
        await until(jobs[3].done)
        assert told("told") == {"running": 1, "waiting": 2, "refused": 1}
        await asyncio.gather(*jobs[:3])
        with pytest.raises(errors.Crashed):
            await workers.run(os.abort, deadline=NEVER)
        assert told("told") == {"running": 0, "waiting": 0, "refused": 1}


async def test_expensive_lanes_do_not_starve_tiles() -> None:
    tile, _, largest = standard_lanes(1)
    async with Workers(1, memory_bytes=MEMORY, lanes=[tile, largest], spare=0) as workers:
        long = [asyncio.create_task(workers.run(time.sleep, 30, lane="max", deadline=NEVER)) for _ in range(4)]
        await asyncio.sleep(0)
        assert await workers.run(operator.add, 1, 1, lane="tile", deadline=NEVER) == 2
        assert not any(task.done() for task in long)
        for task in long:
            task.cancel()


class Sleepers:
    """Jobs that run until the test ends, by lane, client and master."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, count: int, lane: str, *, client: str = "", master: str | None = None) -> None:
        for _ in range(count):
            job = self.workers.run(
                time.sleep, 60, lane=lane, client=client, quarantine_key=master, deadline=Deadline.after(50)
            )
            self.tasks.append(asyncio.create_task(job))
        await asyncio.sleep(0)

    def running(self, *lanes: str) -> list[float]:
        return [told(lane)["running"] or 0 for lane in lanes]


@pytest.fixture
async def sleepers() -> AsyncIterator[Sleepers]:
    """In the lanes of two processors, all of whose decoders are up."""
    async with Workers(0, memory_bytes=MEMORY, lanes=standard_lanes(2), prepare=jobs.prepare) as workers:
        await until(lambda: len(workers._idle) == 5)
        made = Sleepers(workers)
        yield made
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_lane_that_is_alone_has_all_processors_and_leaves_decoders_to_cheaper_ones(sleepers: Sleepers) -> None:
    await sleepers.come(4, "full")
    assert sleepers.running("tile", "full", "max") == [0, 2, 0], "its own place, and a processor that was idle"
    await sleepers.come(4, "max")
    assert sleepers.running("tile", "full", "max") == [0, 2, 1], "two of five decoders are left, for tiles"
    await sleepers.come(3, "tile")
    assert sleepers.running("tile", "full", "max") == [2, 2, 1]


async def test_where_lanes_compete_each_has_its_own_places(sleepers: Sleepers) -> None:
    await sleepers.come(3, "tile")
    await sleepers.come(3, "full")
    await sleepers.come(3, "max")
    assert sleepers.running("tile", "full", "max") == [2, 1, 1]


async def test_the_largest_answers_use_an_idle_processor_too(sleepers: Sleepers) -> None:
    await sleepers.come(4, "max")
    assert sleepers.running("tile", "full", "max") == [0, 0, 2]
    assert await sleepers.workers.run(operator.add, 1, 1, lane="full", deadline=NEVER) == 2
    assert await sleepers.workers.run(operator.add, 1, 1, lane="tile", deadline=NEVER) == 2


@pytest.mark.parametrize("clients", ["aaaaaa", "abcdef"], ids=["one client", "six clients"])
async def test_one_slow_master_does_not_keep_others_out(sleepers: Sleepers, clients: str) -> None:
    for client in clients:
        await sleepers.come(1, "tile", client=client, master="slow.jpg 1")
    assert sleepers.running("tile") == [2]
    for number in range(3):
        tile = sleepers.workers.run(
            operator.add, 1, number, lane="tile", client="v", quarantine_key="good.jpg 1", deadline=NEVER
        )
        assert await tile == 1 + number
    assert sleepers.running("tile") == [2]


async def test_one_client_does_not_keep_others_out_whatever_it_asks_for(sleepers: Sleepers) -> None:
    for number in range(6):
        await sleepers.come(1, "tile", client="a", master=f"{number}.jpg 1")
    tile = sleepers.workers.run(operator.add, 1, 1, lane="tile", client="v", quarantine_key="5.jpg 1", deadline=NEVER)
    assert await tile == 2


async def test_where_the_only_place_is_a_slow_jobs_another_client_and_master_have_one_more() -> None:
    lanes = [Lane("tile", 1, 9, 30.0), Lane("slow", 1, 9, 5.0)]
    async with Workers(0, memory_bytes=MEMORY, lanes=lanes, prepare=jobs.prepare) as workers:
        await until(lambda: len(workers._idle) == 3)
        slow = Sleepers(workers)
        await slow.come(2, "slow", client="a", master="slow.jpg 1")
        begun_s = time.monotonic()
        same = asyncio.create_task(
            workers.run(operator.add, 1, 1, lane="slow", client="b", quarantine_key="slow.jpg 1", deadline=NEVER)
        )
        other = workers.run(operator.add, 1, 1, lane="slow", client="b", quarantine_key="good.jpg 1", deadline=NEVER)
        assert await other == 2
        assert time.monotonic() - begun_s >= 0.5, "a tenth of the lane's deadline"
        assert not same.done()
        assert not slow.tasks[0].done()
        same.cancel()
        await asyncio.gather(*slow.tasks, same, return_exceptions=True)


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_standard_lanes_are_those_of_the_design(cores: int) -> None:
    lanes = {lane.name: lane for lane in standard_lanes(cores)}
    assert lanes["tile"].running == cores
    if cores == 2:
        assert {name: (lane.running, lane.queue, lane.deadline_s) for name, lane in lanes.items()} == {
            "tile": (2, 64, 10.0),
            "full": (1, 16, 15.0),
            "max": (1, 4, 60.0),
        }


async def test_two_crashes_of_one_master_put_it_in_quarantine(workers: Workers) -> None:
    before = REGISTRY.get_sample_value("special_quarantines_total")
    for _ in range(2):
        with pytest.raises(errors.Crashed, match="SIGABRT"):
            await workers.run(os.abort, quarantine_key="bad.jp2 1", deadline=NEVER)
    with pytest.raises(errors.Quarantined, match="cost 2 decoders"):
        await workers.run(operator.add, 1, 1, quarantine_key="bad.jp2 1", deadline=NEVER)
    assert await workers.run(operator.add, 1, 1, quarantine_key="bad.jp2 2", deadline=NEVER) == 2
    assert REGISTRY.get_sample_value("special_quarantines_total") - before == 1


async def test_two_jobs_that_hang_put_what_they_work_on_in_quarantine() -> None:
    async with one_lane(deadline_s=0.3) as workers:
        for _ in range(2):
            await until(lambda: len(workers._idle) == 1)
            with pytest.raises(errors.TimedOut, match="was killed"):
                await workers.run(jobs.burn, deadline=NEVER, quarantine_key="slow.jpg 1")
        with pytest.raises(errors.Crashed, match="cost 2 decoders"):
            await workers.run(operator.add, 1, 1, deadline=NEVER, quarantine_key="slow.jpg 1")


async def test_jobs_that_waited_for_most_of_their_time_do_not(workers: Workers) -> None:
    await until(lambda: metrics.DECODERS_UP._value.get() == 3)
    for _ in range(2):
        with pytest.raises(errors.TimedOut, match="was killed"):
            await workers.run(time.sleep, 9, deadline=Deadline.after(0.1), quarantine_key="late.jpg 1")
    assert await workers.run(operator.add, 1, 1, deadline=NEVER, quarantine_key="late.jpg 1") == 2


def test_quarantine_ends_and_forgets() -> None:
    now = 1000.0
    quarantine = Quarantine(clock=lambda: now)
    quarantine.count("a")
    now += SECONDS
    quarantine.count("a")
    quarantine.check("a")  # ten minutes apart: each is the first
    quarantine.count("a")
    with pytest.raises(errors.Quarantined, match="600 s more") as raised:
        quarantine.check("a")
    assert (raised.value.status, raised.value.code, raised.value.retry_after_s) == (503, "crashed", 600)
    quarantine.check(None)
    now += SECONDS
    quarantine.check("a")


async def test_waiting_counts_as_queue_time() -> None:
    async def traced(workers: Workers, function: Callable[..., object], *args: object) -> float:
        with tracing() as trace:
            await workers.run(function, *args, deadline=NEVER)
        return trace.queue_ms

    async with one_lane() as workers:
        first, second = await asyncio.gather(traced(workers, time.sleep, 0.2), traced(workers, operator.add, 1, 1))
    assert second > first > 0


async def test_closing_ends_children_and_frees_those_who_wait() -> None:
    async with one_lane() as workers:
        pids = children()
        tasks = [asyncio.create_task(workers.run(time.sleep, 60, deadline=NEVER)) for _ in range(3)]
        await asyncio.sleep(0)
    for task in tasks:
        with pytest.raises(errors.Busy, match="stopping"):
            await task
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(errors.Busy, match="not open"):
        await workers.run(operator.add, 1, 1, deadline=NEVER)


async def test_nothing_is_left_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    async with Workers(1, memory_bytes=MEMORY, spare=0) as workers:
        for _ in range(3):
            with pytest.raises(errors.Crashed):
                await workers.run(os.abort, deadline=NEVER)
    assert descriptors() == before
    assert children() == set()


async def test_children_that_cannot_start_are_a_setting_that_cannot_work() -> None:
    with pytest.raises(errors.ConfigurationError, match="decoder_memory"):
        await Workers(1, memory_bytes=1 << 20).start()
    assert children() == set()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(ImportError("no\nroom"), "ImportError: no room; decoder_memory may be too low", id="any"),
        pytest.param(MemoryError("see below"), "MemoryError; decoder_memory may be too low", id="no memory"),
        pytest.param(errors.ConfigurationError("pip install it"), "pip install it", id="one that names the fix"),
    ],
)
async def test_a_child_that_says_it_cannot_get_ready_is_not_tried_again(
    tmp_path: Path, error: Exception, told: str
) -> None:
    with pytest.raises(errors.ConfigurationError) as raised:
        await Workers(3, memory_bytes=MEMORY, prepare=partial(jobs.decline, tmp_path, error, times=9)).start()
    assert str(raised.value) == f"a decoder process cannot get ready: {told}"
    assert children() == set()
    assert len(os.listdir(tmp_path)) in (1, 4)  # the first had the processors to itself for a second only


async def test_a_child_that_cannot_get_ready_beside_one_that_did_is_tried_again(tmp_path: Path) -> None:
    prepare = partial(jobs.decline, tmp_path, ImportError("no room"), times=2, spared=1)
    async with Workers(1, memory_bytes=MEMORY, prepare=prepare) as workers:
        await until(lambda: len(workers._jobs) == 2)
        assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("again", [Ready(), Unready("no room")], ids=["ready", "unready"])
async def test_a_child_that_gets_ready_twice_is_ended(workers: Workers, again: Ready | Unready) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    with pytest.raises(errors.Crashed):
        await workers.run(jobs.reply, b"".join(dump_reply(again)), deadline=NEVER)
    assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
    assert complaints == []


async def test_children_killed_before_they_are_ready_are_replaced(tmp_path: Path) -> None:
    async with Workers(3, memory_bytes=MEMORY, prepare=partial(jobs.die, tmp_path, times=3)) as workers:
        assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
        await until(lambda: len(children()) == 4)
        assert len(os.listdir(tmp_path)) == 3


async def test_children_that_are_all_killed_before_they_are_ready_are_started_again(tmp_path: Path) -> None:
    async with Workers(1, memory_bytes=MEMORY, prepare=partial(jobs.die, tmp_path, times=2 * 2 + 1)) as workers:
        assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2
        await until(lambda: len(children()) == 2)
        assert len(os.listdir(tmp_path)) == 5


async def test_children_are_started_again_however_often_they_are_killed(tmp_path: Path) -> None:
    """The first of two is, once it was ready, and the second before, more often than it is tried at the start."""
    async with Workers(1, memory_bytes=MEMORY, prepare=partial(jobs.die, tmp_path, times=8, spared=1)) as workers:
        (first,) = workers._jobs
        first.kill()
        await until(lambda: len(children()) == 2 and len(workers._jobs) == 2)
        assert len(os.listdir(tmp_path)) == 9


async def test_a_pool_may_be_closed_while_its_children_get_ready() -> None:
    up = metrics.DECODERS_UP._value.get()
    for turn in range(8):
        async with Workers(2, memory_bytes=MEMORY) as workers:
            await asyncio.sleep(turn * 0.1)
            assert workers.ready
        assert children() == set()
        assert metrics.DECODERS_UP._value.get() == up


async def test_a_start_that_is_given_up_says_nothing(workers: Workers) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await until(lambda: metrics.DECODERS_UP._value.get() == 3)
    before = children()

    async def new() -> None:
        await spawn(workers, begin(), memory_bytes=MEMORY, prepare=os.getpid)

    for turns in range(4):
        start = asyncio.create_task(new())
        for _ in range(turns):
            await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        for _ in range(4):  # until the loop has told the child's end of the socket
            await asyncio.sleep(0)
    del start
    gc.collect()
    assert complaints == []
    assert children() == before


async def test_a_child_that_gets_ready_when_nobody_waits_any_more_is_no_loss(workers: Workers) -> None:
    await until(lambda: metrics.DECODERS_UP._value.get() == 3)
    child = await spawn(workers, begin(), memory_bytes=MEMORY, prepare=os.getpid)
    child.kill()
    await child.gone
    assert metrics.DECODERS_UP._value.get() == 3
    assert await workers.run(operator.add, 1, 1, deadline=NEVER) == 2


async def test_a_child_that_was_begun_is_the_first_of_the_pool():
    begun = begin()
    async with Workers(1, memory_bytes=MEMORY, spare=0, begun=begun) as workers:
        assert await workers.run(os.getpid, deadline=NEVER) == begun.process.pid
        assert children() == {begun.process.pid}


def test_a_child_that_was_begun_in_vain_ends_when_its_socket_is_closed():
    begun = begin()
    begun.socket.close()
    assert begun.process.wait(timeout=60) == 0


def test_a_decoder_loads_nothing_that_reaches_a_network_or_a_database():
    program = "import sys, special.workers.child; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "pyvips" in loaded
    assert {"_ssl", "_sqlite3", "asyncio", "obstore", "prometheus_client", "jwt"} & set(loaded) == set()


async def test_no_child_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="SIGKILL before it was ready"):
        await Workers(2, memory_bytes=MEMORY, prepare=partial(jobs.die, tmp_path, times=3 * 3)).start()
    assert children() == set()
    assert len(os.listdir(tmp_path)) == 9


@pytest.mark.parametrize("job", [pytest.param("time.sleep, 60", id="at work"), pytest.param("os.getpid", id="idle")])
async def test_children_do_not_outlive_a_parent_that_is_killed(job: str) -> None:
    program = f"""
import asyncio, os, time
from pathlib import Path
from special.concurrency import Deadline
from special.workers import Workers
async def main():
    async with Workers(2, memory_bytes={MEMORY}) as workers:
        task = asyncio.create_task(workers.run({job}, deadline=Deadline.after(60)))
        await asyncio.sleep(0.1)
        print(Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 3
    assert all(alive(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    await until(lambda: not any(alive(pid) for pid in pids))
