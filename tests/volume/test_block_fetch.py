"""What readers of one cold block get when some leave, when the source fails, and when all have gone."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from special.errors import Changed, Denied, Missing, SourceError, Unreachable
from special.storage.blob import Blob, Span
from special.volume import Volume
from special.volume.block_fetch import Budget
from special.volume.blocks import BlockMap
from special.volume.directory import VolumeDirectory
from special.volume.membership import VolumeTerms
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected

BLOCK = 64 << 10
MIB = 1 << 20
A = blob("a", 20 * BLOCK)
WANTED = [Span(0, 100)]


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    opened = Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, linger_s=0.1, failure_memory_s=0.1)
    async with opened:
        yield opened


class Gate:
    """Holds every GET until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, of: Blob, span: Span) -> None:
        self.reached.set()
        await self.open.wait()


async def test_a_first_reader_that_leaves_harms_no_other(volume: Volume) -> None:
    gate = Gate()
    source = Made({"a": 1}, before=gate)
    reader = volume.reader(source)
    first = asyncio.create_task(reader.read(A, WANTED))
    await gate.reached.wait()
    others = [asyncio.create_task(reader.read(A, WANTED)) for _ in range(999)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.2)  # longer than a fetch without readers goes on
    gate.open.set()
    assert await asyncio.gather(*others) == [expected(A, WANTED)] * 999
    assert source.gets == [Span(0, BLOCK)]


async def test_when_all_leave_nothing_is_left(volume: Volume, tmp_path: Path) -> None:
    source = Made({"a": 1}, before=Gate())
    reader = volume.reader(source)
    tasks_before = asyncio.all_tasks()
    readers = [asyncio.create_task(reader.read(A, WANTED)) for _ in range(100)]
    await until(lambda: source.running > 0)
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    async with asyncio.timeout(2):
        await until(lambda: not source.running and asyncio.all_tasks() == tasks_before)
    other = VolumeDirectory(tmp_path, at=lambda step: None)
    other.join(VolumeTerms(16 * MIB, BLOCK))
    assert other.ledger.reservations() == []
    files = other.admit(BlockMap.of(A, BLOCK))
    assert files.lock_blocks(range(20)) == list(range(20))
    files.close()
    other.leave()


async def test_a_fetch_goes_on_for_a_reader_that_comes_back_in_time(volume: Volume) -> None:
    gate = Gate()
    source = Made({"a": 1}, before=gate)
    reader = volume.reader(source)
    first = asyncio.create_task(reader.read(A, WANTED))
    await gate.reached.wait()
    first.cancel()
    await asyncio.sleep(0.05)
    second = asyncio.create_task(reader.read(A, WANTED))
    await asyncio.sleep(0.1)
    gate.open.set()
    assert await second == expected(A, WANTED)
    assert len(source.gets) == 1


@pytest.mark.parametrize("kind", [Changed, Denied, Missing, Unreachable])
async def test_a_failure_is_raised_to_all_and_soon_forgotten(volume: Volume, kind: type[SourceError]) -> None:
    failing = True

    async def fail(of: Blob, span: Span) -> None:
        await asyncio.sleep(0.01)
        if failing:
            raise kind(f"{of.url} failed")

    source = Made({"a": 1}, before=fail)
    reader = volume.reader(source)
    answers = await asyncio.gather(*(reader.read(A, WANTED) for _ in range(100)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [kind] * 100
    assert {str(answer) for answer in answers} == {"s3://made/a failed"}
    assert len(source.gets) == 1
    with pytest.raises(kind):
        await reader.read(A, WANTED)
    assert len(source.gets) == 1
    failing = False
    await asyncio.sleep(0.15)
    assert await reader.read(A, WANTED) == expected(A, WANTED)
    assert len(source.gets) == 2


async def test_a_failure_of_one_block_leaves_the_others_alone(volume: Volume) -> None:
    async def fail(of: Blob, span: Span) -> None:
        if span.start == 0:
            raise Unreachable("the first block")

    source = Made({"a": 1}, before=fail)
    reader = volume.reader(source)
    elsewhere = [Span.at(5 * BLOCK, 10)]
    first, second = await asyncio.gather(reader.read(A, WANTED), reader.read(A, elsewhere), return_exceptions=True)
    assert isinstance(first, Unreachable)
    assert second == expected(A, elsewhere)


async def test_a_body_of_another_length_is_never_returned(volume: Volume) -> None:
    class Short:
        async def read(self, blob: Blob, spans: list[Span]) -> list[bytes]:
            return [bytes(len(span) - 1) for span in spans]

    with pytest.raises(Unreachable):
        await volume.reader(Short()).read(A, WANTED)


async def test_long_runs_are_cut(tmp_path: Path) -> None:
    source = Made({"a": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, run_bytes=4 * BLOCK) as volume:
        assert await volume.reader(source).read(A, [Span(0, 9 * BLOCK)]) == expected(A, [Span(0, 9 * BLOCK)])
    assert sorted(source.gets) == [
        Span(0, 4 * BLOCK),
        Span(4 * BLOCK, 8 * BLOCK),
        Span(8 * BLOCK, 9 * BLOCK),
    ]


async def test_a_volume_that_closes_says_so(tmp_path: Path) -> None:
    gate = Gate()
    volume = Volume(tmp_path, size_bytes=16 * MIB)
    await volume.open()
    reading = asyncio.create_task(volume.reader(Made({"a": 1}, before=gate)).read(A, WANTED))
    await gate.reached.wait()
    await volume.close()
    with pytest.raises(Unreachable, match="closed"):
        await reading


async def test_descriptors_do_not_grow(volume: Volume) -> None:
    source = Made({str(n): 1 for n in range(300)})
    reader = volume.reader(source)
    for n in range(300):
        of = blob(str(n), 5000)
        assert await reader.read(of, WANTED) == expected(of, WANTED)
    assert len(os.listdir("/proc/self/fd")) < 2 * 128 + 100


class TestBudget:
    async def test_gives_at_once_what_is_free(self) -> None:
        budget = Budget(10)
        assert await budget.take(4, timeout_s=0)
        assert await budget.take(6, timeout_s=0)
        assert not await budget.take(1, timeout_s=0)

    async def test_first_come_first_served(self) -> None:
        budget, order = Budget(10), []

        async def take(size: int) -> None:
            assert await budget.take(size, timeout_s=5)
            order.append(size)

        assert await budget.take(10, timeout_s=0)
        tasks = [asyncio.create_task(take(size)) for size in (9, 1, 8)]
        await asyncio.sleep(0)
        budget.give(8)
        await asyncio.sleep(0)
        assert order == []
        budget.give(2)
        await asyncio.gather(*tasks[:2])
        assert order == [9, 1]
        budget.give(9)
        await tasks[2]

    async def test_more_than_all_means_all(self) -> None:
        budget = Budget(10)
        assert await budget.take(1000, timeout_s=0)
        assert not await budget.take(1, timeout_s=0)
        budget.give(1000)
        assert await budget.take(10, timeout_s=0)

    async def test_who_gives_up_lets_the_next_one_pass(self) -> None:
        budget = Budget(10)
        assert await budget.take(5, timeout_s=0)
        large = asyncio.create_task(budget.take(6, timeout_s=5))
        await asyncio.sleep(0)
        small = asyncio.create_task(budget.take(5, timeout_s=5))
        await asyncio.sleep(0)
        large.cancel()
        assert await small
        assert not await budget.take(1, timeout_s=0.01)
