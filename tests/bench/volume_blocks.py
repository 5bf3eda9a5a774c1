"""Which block size is best, and what a warm read costs.

    python -m tests.bench.volume_blocks

A made tiled TIFF (6000×8000 in 256² tiles, 51 MB, five levels) lies behind 20 ms per request and 50 MB/s
per connection. Three cold visits, each with a volume of its own: one 512² region after the header; a viewer
that zooms in and pans 24 steps; 64 random 512² regions at once. Prints GETs, megabytes and seconds for each
block size; then microseconds per warm read of one stored tile.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from special.storage.blob import Blob, Span
from special.storage.ranges import coalesce
from special.volume import Volume
from tests.volume.made import Made, blob

LATENCY_S = 0.02
BYTES_PER_S = 50e6
TILE = 256
LEVELS = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
"""Tiles across and down, the whole size first: tiles lie row by row, level by level, as libvips writes them."""
MAX_GAP_BYTES = 65536
KIB = 1 << 10


@dataclass(frozen=True)
class Master:
    """Where each tile of a tiled TIFF lies."""

    blob: Blob
    tiles: dict[tuple[int, int, int], Span]

    @classmethod
    def made(cls, key: str) -> Master:
        chance, tiles, offset = random.Random(7), {}, 16 * KIB
        for level, (across, down) in enumerate(LEVELS):
            for row in range(down):
                for column in range(across):
                    length = chance.randrange(25_000, 75_000)
                    tiles[level, column, row] = Span.at(offset, length)
                    offset += length
        return cls(blob(key, offset), tiles)

    def spans(self, level: int, column: int, row: int, side: int) -> list[Span]:
        """What a square of tiles needs: coalesced as the engine does."""
        found = [self.tiles.get((level, column + x, row + y)) for y in range(side) for x in range(side)]
        return coalesce([span for span in found if span], max_gap_bytes=MAX_GAP_BYTES)


async def network(of: Blob, span: Span) -> None:
    await asyncio.sleep(LATENCY_S + len(span) / BYTES_PER_S)


Visit = list[list[tuple[int, int, int, int]]]
"""Steps one after the other; in each, regions at once: level, column, row, tiles per side."""


def first_tile() -> Visit:
    return [[(0, 10, 10, 2)]]


def viewer() -> Visit:
    steps = [[(level, x, y, 1) for y in range(3) for x in range(3)] for level in (4, 3, 2, 1)]
    chance, column, row = random.Random(3), 8, 12
    for _ in range(24):
        column = max(0, min(19, column + chance.choice([-1, 0, 1])))
        row = max(0, min(28, row + chance.choice([-1, 0, 1])))
        steps.append([(0, column + x, row + y, 1) for y in range(3) for x in range(4)])
    return steps


def crowd() -> Visit:
    chance = random.Random(5)
    return [[(0, chance.randrange(22), chance.randrange(30), 2) for _ in range(64)]]


async def cold(visit: Visit, block_bytes: int) -> tuple[int, float, float]:
    """GETs, megabytes and seconds of one visit."""
    master, source = Master.made("a.tif"), Made({"a.tif": 1}, before=network)
    with tempfile.TemporaryDirectory(prefix="special-bench-") as directory:
        async with Volume(Path(directory), size_bytes=1 << 30, block_bytes=block_bytes) as volume:
            reader = volume.reader(source)
            start = perf_counter()
            await reader.read(master.blob, [Span(0, 16 * KIB)])
            for step in visit:
                await asyncio.gather(*(reader.read(master.blob, spans) for spans in regions(master, step)))
            seconds = perf_counter() - start
    return len(source.gets), sum(map(len, source.gets)) / 1e6, seconds


def regions(master: Master, step: Sequence[tuple[int, int, int, int]]) -> list[list[Span]]:
    return [spans for region in step if (spans := master.spans(*region))]


async def warm(block_bytes: int, length: int) -> float:
    """Microseconds per read of random spans that are all here."""
    of, chance = blob("w.tif", 8 << 20), random.Random(1)
    starts = [chance.randrange(of.size - length) for _ in range(500)]
    with tempfile.TemporaryDirectory(prefix="special-bench-") as directory:
        async with Volume(Path(directory), size_bytes=1 << 30, block_bytes=block_bytes) as volume:
            reader = volume.reader(Made({"w.tif": 1}))
            await reader.read(of, [Span.whole(of)])
            await asyncio.sleep(0.5)
            for start in starts:
                await reader.read(of, [Span.at(start, length)])
            best = float("inf")
            for _ in range(5):
                begin = perf_counter()
                for start in starts:
                    await reader.read(of, [Span.at(start, length)])
                best = min(best, (perf_counter() - begin) / len(starts))
    return best * 1e6


async def main() -> None:
    visits = {"first tile": first_tile(), "viewer": viewer(), "64 at once": crowd()}
    print(f"{'block':>8}" + "".join(f"{name:>26}" for name in visits) + f"{'warm 12 KB':>12}{'warm 50 KB':>12}")
    print(f"{'KiB':>8}" + f"{'GETs':>8}{'MB':>9}{'s':>9}" * len(visits) + f"{'µs':>12}{'µs':>12}")
    for kib in (16, 32, 64, 128, 256, 512, 1024):
        line = f"{kib:8}"
        for visit in visits.values():
            gets, megabytes, seconds = sorted([await cold(visit, kib * KIB) for _ in range(3)])[1]
            line += f"{gets:8}{megabytes:9.2f}{seconds:9.3f}"
        print(line + f"{await warm(kib * KIB, 12_000):12.1f}{await warm(kib * KIB, 50_000):12.1f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
