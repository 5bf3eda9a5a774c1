"""Blocks fetched ahead: by the same fetches as any others, bounded, and in no reader's way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from special.errors import Unreachable
from special.storage.blob import Blob, Span
from special.volume import Volume, stat
from special.volume.prefetch_state import PrefetchState
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected

BLOCK = 64 << 10
MIB = 1 << 20
A = blob("a", 40 * BLOCK)
WHOLE = [Span.whole(A)]


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, linger_s=0.05) as opened:
        yield opened


def ahead(what: str) -> float:
    return REGISTRY.get_sample_value("special_volume_ahead_bytes_total", {"what": what}) or 0.0


def blocks(*runs: tuple[int, int]) -> list[Span]:
    return [Span(start * BLOCK, stop * BLOCK) for start, stop in runs]


@pytest.mark.parametrize(
    ("wanted", "unused", "missing", "most", "allowed"),
    [
        pytest.param([], [], [5, 6], 10, [], id="nothing was wanted"),
        pytest.param([1, 2, 3], [], [9, 5, 6, 7, 8], 10, [5, 6, 7], id="as many as were wanted"),
        pytest.param([1, 2, 3], [5, 6], [7, 8, 9], 10, [7], id="less those that are unused"),
        pytest.param([1, 2, 3], [5, 6, 7], [8], 10, [], id="no more unused ones"),
        pytest.param([1, 2, 3], [], [5, 6, 7], 2, [5, 6], id="a batch at a time"),
    ],
)
def test_the_allowance(wanted: list[int], unused: list[int], missing: list[int], most: int, allowed: list[int]) -> None:
    assert PrefetchState(set(wanted), set(unused)).allowance(missing, most=most) == allowed


def test_what_is_wanted_is_unused_no_more() -> None:
    state = PrefetchState({1}, {2, 3, 4})
    assert state.record_access([3, 4, 5]) == {3, 4}
    assert state == PrefetchState({1, 3, 4, 5}, {2})
    assert state.record_access([3, 4]) == set()


async def test_as_much_is_fetched_as_was_wanted_and_no_more(volume: Volume) -> None:
    source, reader = Made({"a": 1}), volume.reader(Made({"a": 1}))
    await reader.read(A, blocks((10, 14)))
    fetched, used = ahead("fetched"), ahead("used")
    assert await volume.prefetcher.fetch(source, A, WHOLE, most_bytes=3 * BLOCK) == "some"
    assert await volume.prefetcher.fetch(source, A, WHOLE, most_bytes=3 * BLOCK) == "some"
    assert await volume.prefetcher.fetch(source, A, WHOLE, most_bytes=3 * BLOCK) == "enough"
    assert source.gets == blocks((0, 3), (3, 4))
    assert ahead("fetched") - fetched == 4 * BLOCK
    before = Made({"a": 1})
    assert await volume.reader(before).read(A, blocks((1, 3))) == expected(A, blocks((1, 3)))
    assert before.gets == []
    assert ahead("used") - used == 2 * BLOCK
    assert await volume.prefetcher.fetch(source, A, WHOLE, most_bytes=MIB) == "some"
    assert source.gets[2:] == blocks((4, 8))  # six were wanted by now, and two are unused


async def test_what_is_here_costs_nothing(volume: Volume) -> None:
    source = Made({"a": 1})
    await volume.reader(source).read(A, WHOLE)
    source.gets.clear()
    await until(lambda: volume.objects.get(A).idle)  # type: ignore[union-attr]
    assert await volume.prefetcher.fetch(source, A, WHOLE, most_bytes=MIB) == "here"
    assert source.gets == []


class Gate:
    """Holds every GET until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, of: Blob, span: Span) -> None:
        await self.open.wait()


async def test_a_reader_of_a_block_joins_its_fetch(volume: Volume) -> None:
    gate = Gate()
    source = Made({"a": 1}, before=gate)
    await volume.reader(Made({"a": 1})).read(A, blocks((0, 4)))
    fetching = asyncio.create_task(volume.prefetcher.fetch(source, A, blocks((4, 8)), most_bytes=MIB))
    await until(lambda: source.running == 1)
    reading = asyncio.create_task(volume.reader(source).read(A, blocks((5, 6))))
    assert await fetching == "some"  # it has given way
    await asyncio.sleep(0.2)  # longer than a fetch without readers goes on
    gate.open.set()
    assert await reading == expected(A, blocks((5, 6)))
    assert source.gets == blocks((4, 8))


async def test_it_gives_way_to_readers_that_wait(volume: Volume) -> None:
    gate, b = Gate(), blob("b", 4 * BLOCK)
    source, other = Made({"a": 1}, before=gate), Made({"b": 1}, before=gate)
    await volume.reader(Made({"a": 1})).read(A, blocks((0, 4)))
    fetching = asyncio.create_task(volume.prefetcher.fetch(source, A, blocks((4, 8)), most_bytes=MIB))
    await until(lambda: source.running == 1)
    reading = asyncio.create_task(volume.reader(other).read(b, blocks((0, 1))))
    assert await fetching == "some"
    await until(lambda: source.running == 0)  # its GET was given up, too
    assert volume.prefetcher.is_paused
    assert await volume.prefetcher.fetch(source, A, blocks((4, 8)), most_bytes=MIB) == "some"
    assert len(source.gets) == 1
    gate.open.set()
    await reading
    assert not volume.prefetcher.is_paused
    assert await volume.prefetcher.fetch(source, A, blocks((4, 8)), most_bytes=MIB) == "some"
    assert source.gets == blocks((4, 8), (4, 8))


async def test_nothing_is_evicted_for_it(volume: Volume, tmp_path: Path) -> None:
    sizes = {"b": 5 * MIB, "c": 5 * MIB, "d": 3 * MIB}
    source = Made(dict.fromkeys(["a", *sizes], 1))
    reader = volume.reader(source)
    for key, size in sizes.items():
        await reader.read(blob(key, size), [Span(0, size)])
    await reader.read(A, blocks((0, 16)))
    source.gets.clear()
    assert await volume.prefetcher.fetch(source, A, WHOLE, most_bytes=2 * MIB) == "enough"
    assert source.gets == []
    assert stat(tmp_path).evictions == 0


async def test_a_failure_leaves_nothing_behind(volume: Volume) -> None:
    async def fail(of: Blob, span: Span) -> None:
        raise Unreachable("no store")

    await volume.reader(Made({"a": 1})).read(A, blocks((0, 4)))
    with pytest.raises(Unreachable):
        await volume.prefetcher.fetch(Made({"a": 1}, before=fail), A, blocks((4, 8)), most_bytes=MIB)
    await asyncio.sleep(0.3)  # longer than a failure is remembered
    source = Made({"a": 1})
    assert await volume.prefetcher.fetch(source, A, blocks((4, 8)), most_bytes=MIB) == "some"
    assert source.gets == blocks((4, 8))


async def test_an_object_that_goes_past_the_volume_is_left_alone(volume: Volume) -> None:
    source = Made({"large": 1})
    large = blob("large", 100 * MIB)
    assert await volume.prefetcher.fetch(source, large, [Span(0, BLOCK)], most_bytes=MIB) == "enough"
    assert source.gets == []
