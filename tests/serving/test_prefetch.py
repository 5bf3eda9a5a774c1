"""What surrounds a pattern of accesses is fetched while no request waits, and never twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

from special.geometry import Box, Size
from special.iiif import Job
from special.images.masters import Masters
from special.serving.prefetch import Prefetcher, TileAccess, surroundings
from special.storage.blob import Span
from special.volume import Volume
from tests.soak.noise import Noise
from tests.support.memory import MemorySource

FULL = Size(2000, 1500)
BLOCK = 64 << 10


def look(column: int, row: int, *, scale: int = 1, side: int = 256) -> TileAccess:
    step = side * scale
    box = Box(column * step, row * step, step, step).within(FULL)
    assert box is not None
    return TileAccess(box, Size(-(-box.width // scale), -(-box.height // scale)))


def boxes(looks: list[TileAccess]) -> list[str]:
    return [f"{it.box} at {it.size.width},{it.size.height}" for it in surroundings(looks, FULL)]


SCREEN = [look(2, 2), look(3, 2), look(2, 3), look(3, 3)]


def test_rings_around_a_screen() -> None:
    assert boxes(SCREEN) == [
        "256,256,1024,1024 at 1024,1024",
        "0,0,1536,1500 at 1536,1500",
        "0,0,1792,1500 at 1792,1500",
        "0,0,2000,1500 at 2000,1500",
    ]


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([look(1, 1)], id="one look"),
        pytest.param([look(1, 1)] * 16, id="the same again and again"),
        pytest.param([look(1, 1), look(2, 1), look(3, 1)], id="three"),
        pytest.param([*SCREEN, look(0, 0, scale=2)], id="at another scale by now"),
    ],
)
def test_what_is_no_walk(looks: list[TileAccess]) -> None:
    assert boxes(looks) == []


def test_a_walk_at_a_scale_leaves_others_out() -> None:
    halves = [look(0, 0, scale=2), look(1, 0, scale=2), look(2, 0, scale=2), look(1, 1, scale=2)]
    assert boxes([*SCREEN, *halves]) == ["0,0,2000,1500 at 1000,750"]


def test_a_tile_at_the_edge_is_of_its_level() -> None:
    assert look(3, 2, scale=2) == TileAccess(Box(1536, 1024, 464, 476), Size(232, 238))
    assert TileAccess(Box(0, 0, 487, 512), Size(61, 64)).scale == 3


@lru_cache
def file_of(side: int) -> bytes:
    return Noise(7, side, side).file


@dataclass
class Around:
    """A master, a volume and a walker over it."""

    source: MemorySource
    masters: Masters
    volume: Volume
    prefetcher: Prefetcher
    busy: bool = False

    async def walk(self, looks: list[TileAccess]) -> None:
        """Read what some looks need, as `Tiles` does, and say so."""
        master = await self.masters.find("a")
        for it in looks:
            spans = master.layout.extract(it.box, it.size).spans
            await self.volume.reader(self.source).read(master.blob, spans)
            self.prefetcher.record(master, Job(it.box, it.size, False, 0.0, "default", "jpg"))

    async def settled(self) -> None:
        """Let it fetch what it will."""
        async with asyncio.timeout(20):
            while self.prefetcher._tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def blocks(self) -> Counter[int]:
        """How often each block was read."""
        spans = [span for call in self.source.calls if call[0] == "read" for span in call[2]]  # type: ignore[attr-defined]
        return Counter(n for span in spans for n in range(span.start // BLOCK, -(-span.stop // BLOCK)))


@pytest.fixture
async def make(tmp_path: Path) -> Callable[..., Around]:
    def made(volume: Volume, *, side: int = 2048, clock: Callable[[], float] | None = None) -> Around:
        source = MemorySource({"a": file_of(side)})
        masters = Masters(source)
        around: Around
        options = {} if clock is None else {"clock": clock}
        prefetcher = Prefetcher(volume, source, masters, is_busy=lambda: around.busy, **options)
        around = Around(source, masters, volume, prefetcher)
        return around

    return made


def spans_of(layout: object, it: TileAccess) -> set[int]:
    spans: tuple[Span, ...] = layout.extract(it.box, it.size).spans  # type: ignore[attr-defined]
    return {n for span in spans for n in range(span.start // BLOCK, -(-span.stop // BLOCK))}


async def test_as_many_blocks_follow_as_were_looked_at_nearest_first(
    tmp_path: Path, make: Callable[..., Around]
) -> None:
    async with Volume(tmp_path, size_bytes=64 << 20) as volume:
        around = make(volume)
        await around.walk(SCREEN)
        seen = set(around.blocks())
        await around.settled()
        layout = (await around.masters.find("a")).layout
        ring = spans_of(layout, TileAccess(Box(256, 256, 1024, 1024), Size(1024, 1024))) - seen
        read = around.blocks()
        assert set(read.values()) == {1}
        assert set(read) - seen == set(sorted(ring)[: len(seen)])
        await around.prefetcher.close()


async def test_the_rest_of_the_level_follows_a_walker_and_each_block_is_read_once(
    tmp_path: Path, make: Callable[..., Around]
) -> None:
    async with Volume(tmp_path, size_bytes=64 << 20) as volume:
        around = make(volume)
        for row in (0, 2, 4):
            await around.walk([look(column, row) for column in range(6)])
            await around.settled()
        assert set(around.blocks().values()) == {1}
        before = len(around.source.calls)
        await around.walk([look(3, 1), look(4, 3)])
        assert len(around.source.calls) == before  # they were there
        await around.prefetcher.close()


async def test_a_small_object_follows_as_a_whole(tmp_path: Path, make: Callable[..., Around]) -> None:
    async with Volume(tmp_path, size_bytes=64 << 20) as volume:
        around = make(volume, side=512)
        await around.walk([look(column, row, side=128) for row in range(3) for column in range(3)])
        await around.settled()
        assert set(around.blocks()) == set(range(-(-len(around.source.objects["a"]) // BLOCK)))
        assert set(around.blocks().values()) == {1}
        await around.prefetcher.close()


async def test_nothing_is_fetched_while_decoders_work(tmp_path: Path, make: Callable[..., Around]) -> None:
    async with Volume(tmp_path, size_bytes=64 << 20) as volume:
        around = make(volume)
        around.busy = True
        await around.walk(SCREEN)
        before = around.blocks()
        await asyncio.sleep(0.1)
        assert around.blocks() == before
        around.busy = False
        await around.settled()
        assert around.blocks() > before
        await around.prefetcher.close()


async def test_a_viewer_who_has_gone_is_not_followed(tmp_path: Path, make: Callable[..., Around]) -> None:
    now = 1000.0
    async with Volume(tmp_path, size_bytes=64 << 20) as volume:
        around = make(volume, clock=lambda: now)
        around.busy = True
        await around.walk(SCREEN)
        before = around.blocks()
        now += 11
        around.busy = False
        await around.settled()
        assert around.blocks() == before
        await around.prefetcher.close()


async def test_closing_stops_it(tmp_path: Path, make: Callable[..., Around]) -> None:
    async with Volume(tmp_path, size_bytes=64 << 20) as volume:
        around = make(volume)
        around.busy = True
        await around.walk(SCREEN)
        assert len(around.prefetcher._tasks) == 1
        await around.prefetcher.close()
        assert len(around.prefetcher._tasks) == 0
