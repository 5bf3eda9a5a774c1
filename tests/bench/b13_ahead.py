"""B13: a viewer who walks over a cold TIFF and stops to look, at 20 ms per S3 request, with and without read-ahead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from statistics import median
from time import perf_counter

import httpx

from tests import live
from tests.bench.bench import Bench, Result
from tests.bench.cold import Shelf, shelf

SIDE = 256
ACROSS, DOWN = 5, 4
"""Tiles of a screen."""
STEPS = 24
LOOK_S = 0.7
"""How long somebody looks before the next step."""


def run(bench: Bench) -> Iterator[Result]:
    """The median of a step, which shows a row or a column of new tiles; and the bytes that each read."""
    with shelf(bench, "photo.tif", 2) as here:
        ahead_s, ahead_bytes, excess_bytes = _walk(here, 0, read_ahead=True)
        plain_s, plain_bytes, _ = _walk(here, 1, read_ahead=False)
    said = f"{1000 * ahead_s:.0f} ms, {ahead_bytes / 1e6:.1f} MB"
    beside = f"without: {1000 * plain_s:.0f} ms, {plain_bytes / 1e6:.1f} MB"
    ratio = plain_s / ahead_s
    yield Result("step of a walk, read ahead", said, beside, ratio, "> 1 ×", ratio > 1)
    said = f"{excess_bytes / 1e6:.1f} MB fetched and not used"
    yield Result("its excess", said, "", None, "≤ what was wanted", excess_bytes <= plain_bytes)


def _walk(here: Shelf, number: int, *, read_ahead: bool) -> tuple[float, int, int]:
    """Seconds of a step, bytes that the store sent, and those fetched ahead and not used."""
    home, key, start = here.home / f"ahead-{read_ahead}", here.keys[number], len(here.between.log)
    home.mkdir()
    settings = {**here.s3.environ, "SPECIAL_READ_AHEAD": str(read_ahead).lower()}
    with live.special(f"s3://{here.bucket}", home=home, settings=settings) as ours:
        seconds = asyncio.run(_steps(f"{ours.url}/iiif/3/{key}"))
        metrics = httpx.get(f"{ours.url}/metrics").text
    counted = re.findall(r'special_volume_ahead_bytes_total\{what="(\w+)"\} ([\d.e+]+)', metrics)
    sums = {what: int(float(count)) for what, count in counted}
    sent = sum(each.sent_bytes for each in here.between.log[start:])
    return median(seconds), sent, sums.get("fetched", 0) - sums.get("used", 0)


async def _steps(image: str) -> list[float]:
    """One step after the other: right and down in turn, as far as there is picture."""
    seconds: list[float] = []
    column, row = 2, 2
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=6)) as client:

        async def look() -> None:
            tiles = [(x, y) for y in range(row, row + DOWN) for x in range(column, column + ACROSS)]
            paths = [
                f"{image}/{x * SIDE},{y * SIDE},{SIDE},{SIDE}/{SIDE},/0/default.jpg"
                for x, y in tiles
                if (x, y) not in seen
            ]
            seen.update(tiles)
            for answer in await asyncio.gather(*map(client.get, paths)):
                answer.raise_for_status()

        seen: set[tuple[int, int]] = set()
        await look()
        for step in range(STEPS):
            await asyncio.sleep(LOOK_S)
            column, row = (column + 1, row) if step % 2 else (column, row + 1)
            start = perf_counter()
            await look()
            seconds.append(perf_counter() - start)
    return seconds
