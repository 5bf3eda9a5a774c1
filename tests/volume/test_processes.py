"""Several servers on one directory: one fetches, any may die, none harms the others."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from special.storage.blob import Span
from special.volume import Volume, verify
from special.volume.directory import VolumeDirectory
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected, taken_bytes
from tests.volume.peer import Orders, arguments

pytestmark = pytest.mark.service

BLOCK = 64 << 10
HERE = Path(__file__).parents[2]


class Peer:
    """A server in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self) -> bytes:
        assert self.process.stdout is not None
        return await self.process.stdout.readline()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def answer(self) -> dict[str, object]:
        line = await self.line()
        assert line, "the peer died"
        answer: dict[str, object] = json.loads(line)
        return answer


@asynccontextmanager
async def peer(orders: Orders) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(*arguments(orders), stdin=PIPE, stdout=PIPE, cwd=HERE)
    assert process.stdin is not None
    try:
        started = Peer(process)
        assert await started.line() == b"ready\n"
        yield started
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def blocks_got(log: Path) -> Counter[tuple[str, int]]:
    """How often each block was fetched, by whichever process."""
    got: Counter[tuple[str, int]] = Counter()
    for line in log.read_text().splitlines() if log.exists() else []:
        _, key, start, stop = line.split()
        got.update((key, index) for index in range(int(start) // BLOCK, -(-int(stop) // BLOCK)))
    return got


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(str(tmp_path / "volume"), str(tmp_path / "log"), objects={"a": 64 * BLOCK})


async def test_a_thousand_readers_in_two_processes_get_each_block_once(orders: Orders) -> None:
    spans = [("a", n % 63 * BLOCK + 30_000, n % 63 * BLOCK + 70_000) for n in range(500)]
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(peer(replace(orders, spans=spans))) for _ in range(2)]
        for each in peers:
            each.go()
        for each in peers:
            assert await each.answer() == {"right": 500, "wrong": 0, "failed": []}
    assert blocks_got(Path(orders.log)) == Counter({("a", index): 1 for index in range(64)})


@asynccontextmanager
async def beside(orders: Orders, source: Made) -> AsyncIterator[Callable[[list[Span]], Awaitable[list[bytes]]]]:
    """A volume in this process that reads the object `a`."""
    async with Volume(
        Path(orders.directory), size_bytes=orders.size_bytes, leader_timeout_s=orders.leader_timeout_s
    ) as volume:
        reader = volume.reader(source)
        yield lambda spans: reader.read(blob("a", orders.objects["a"]), spans)


async def test_a_killed_leader_is_taken_over_within_a_second(orders: Orders) -> None:
    wanted, source = [Span(0, BLOCK)], Made({"a": 1})
    stuck = replace(orders, spans=[("a", 0, BLOCK)], get_s=60.0)
    async with beside(orders, source) as read, peer(stuck) as leader:
        leader.go()
        await until(Path(orders.log).exists)
        follower = asyncio.create_task(read(wanted))
        done, _ = await asyncio.wait([follower], timeout=0.3)
        assert not done
        assert source.gets == []
        killed_s = monotonic()
        leader.process.kill()
        assert await follower == expected(blob("a", 1), wanted)
        assert monotonic() - killed_s < 1.0
        assert source.gets == wanted


async def test_a_hung_leader_is_passed_by_with_one_get(orders: Orders) -> None:
    wanted, source = [Span(0, BLOCK)], Made({"a": 1})
    orders = replace(orders, leader_timeout_s=0.3)
    stuck = replace(orders, spans=[("a", 0, BLOCK)], get_s=60.0)
    async with beside(orders, source) as read, peer(stuck) as leader:
        leader.go()
        await until(Path(orders.log).exists)
        answers = await asyncio.gather(*(read(wanted) for _ in range(100)))
        assert answers == [expected(blob("a", 1), wanted)] * 100
        assert await read(wanted) == expected(blob("a", 1), wanted)
        assert source.gets == wanted
        leader.process.kill()


STEPS = ["create", "reserve", "write", "publish", "settle", "evict", "strike"]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_leaves_no_wrong_block(orders: Orders, step: str) -> None:
    await killed_at(replace(orders, die_at=step, die_after=1))


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_a_hundred_times(orders: Orders, step: str) -> None:
    for after in range(100):
        await killed_at(replace(orders, die_at=step, die_after=after % 10))


async def killed_at(orders: Orders) -> None:
    """Fill a volume with more than it holds until the step comes; then look at what is there, and go on."""
    objects = {f"{n}": 40 * BLOCK for n in range(8)}
    spans = [(key, 0, size) for key, size in objects.items()] * 3
    orders = replace(orders, size_bytes=10 << 20, objects=objects, spans=spans, parallel=1, get_s=0.0)
    async with peer(orders) as victim:
        victim.go()
        assert await victim.line() == b""
        await victim.process.wait()
    found = verify(Path(orders.directory))
    assert (found.dropped_blocks, found.dropped_objects) == (0, 0)
    assert taken_bytes(Path(orders.directory)) <= orders.size_bytes
    source = Made(dict.fromkeys(objects, 1))
    async with Volume(Path(orders.directory), size_bytes=orders.size_bytes) as volume:
        for key, size in objects.items():
            of = blob(key, size)
            assert await volume.reader(source).read(of, [Span.whole(of)]) == expected(of, [Span.whole(of)])
    directory = VolumeDirectory(Path(orders.directory), at=lambda step: None)
    directory.join(None)
    assert directory.ledger.reservations() == []
    directory.leave()
