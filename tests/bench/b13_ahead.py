"""B13: a viewer who walks over a cold TIFF and stops to look, at 20 ms per S3 request, with and without read-ahead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import httpx

from tests.bench.bench import Bench, Result
from tests.bench.cold import SlowBucket, slow_bucket
from tests.support import live
from tests.support.live import LiveServer

SIDE = 256
ACROSS, DOWN = 5, 4
"""Tiles of a screen."""
STEPS = 24
LOOK_S = 0.7
"""How long somebody looks before the next step."""


@dataclass
class Viewer:
    """Somebody who goes right and down in turn."""

    server: LiveServer
    key: str
    seconds: list[float] = field(default_factory=list)
    """What each step took."""
    tiles: int = 0
    without_get: int = 0
    """Tiles for which no GET was sent."""
    seen: set[tuple[int, int]] = field(default_factory=set)

    async def step(self, number: int) -> None:
        """Ask for what is new on the screen, by six connections, as browsers do; then look."""
        column, row = 2 + number // 2, 2 + (number + 1) // 2
        screen = {(x, y) for y in range(row, row + DOWN) for x in range(column, column + ACROSS)}
        new, self.seen = screen - self.seen, self.seen | screen
        urls = [
            f"{self.server.url}/iiif/3/{self.key}/{x * SIDE},{y * SIDE},{SIDE},{SIDE}/{SIDE},/0/default.jpg"
            for x, y in sorted(new)
        ]
        start = perf_counter()
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=6)) as client:
            answers = await asyncio.gather(*map(client.get, urls))
        self.seconds.append(perf_counter() - start)
        for answer in answers:
            answer.raise_for_status()
            self.tiles += 1
            self.without_get += "gets=0 " in answer.headers["server-timing"]
        await asyncio.sleep(LOOK_S)

    def unused_bytes(self) -> int:
        """What was fetched ahead and not used."""
        metrics = httpx.get(f"{self.server.url}/metrics").text
        counted = re.findall(r'special_volume_ahead_bytes_total\{what="(\w+)"\} ([\d.e+]+)', metrics)
        sums = {what: int(float(count)) for what, count in counted}
        return sums.get("fetched", 0) - sums.get("used", 0)


def run(bench: Bench) -> Iterator[Result]:
    """Both walk by turns: the median of a step, the tiles that were there before they were wanted, and the bytes."""
    with slow_bucket(bench, "photo.tif", 2) as here, ExitStack() as stack:
        ahead, plain = (
            Viewer(stack.enter_context(_served(here, read_ahead)), key)
            for key, read_ahead in zip(here.keys, ("true", "false"), strict=True)
        )
        asyncio.run(_walk(ahead, plain))
        ahead_bytes, plain_bytes = (sum(get.sent_bytes for get in here.between.gets(key)) for key in here.keys)
        unused = ahead.unused_bytes()
    ahead_s, plain_s = median(ahead.seconds[1:]), median(plain.seconds[1:])
    said, beside = (
        f"{1000 * seconds:.0f} ms, {viewer.without_get} of {viewer.tiles} tiles without a GET, {sent / 1e6:.1f} MB"
        for seconds, viewer, sent in ((ahead_s, ahead, ahead_bytes), (plain_s, plain, plain_bytes))
    )
    ratio = plain_s / ahead_s
    yield Result("step of a walk, read ahead", said, f"without: {beside}", ratio, "> 1 ×", ratio > 1)
    yield Result("its excess", f"{unused / 1e6:.1f} MB", "", None, "≤ what was wanted", unused <= plain_bytes)


def _served(here: SlowBucket, read_ahead: str) -> AbstractContextManager[LiveServer]:
    home = here.home / f"ahead-{read_ahead}"
    home.mkdir()
    settings = {**here.s3.environ, "SPECIAL_READ_AHEAD": read_ahead}
    return live.special(f"s3://{here.bucket}", home=home, settings=settings)


async def _walk(*viewers: Viewer) -> None:
    for number in range(STEPS):
        for viewer in viewers:
            await viewer.step(number)
