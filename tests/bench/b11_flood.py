"""B11: a flood of 1,000 requests for one cold image: what is fetched, and what memory it takes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import httpx

from special.volume.volume import DEFAULT_BLOCK_BYTES
from tests.bench.bench import Bench, Result
from tests.bench.cold import slow_bucket
from tests.bench.tiles import walk
from tests.soak.proxy import blocks_got
from tests.support import live
from tests.support.processes import status_bytes

REQUESTS = 1000
MOST_BYTES = 150 << 20


def run(bench: Bench) -> Iterator[Result]:
    """All at once, over a viewer's tiles, at a server with a process for each core."""
    with (
        slow_bucket(bench, "photo.tif", 1) as here,
        live.special(
            f"s3://{here.bucket}", "--workers", str(os.cpu_count() or 1), home=here.home, settings=here.s3.environ
        ) as ours,
    ):
        idle = status_bytes(ours.process.pid, "VmRSS")
        tiles = walk()
        paths = [f"/iiif/3/{here.keys[0]}/{tiles[number % len(tiles)]}" for number in range(REQUESTS)]
        asyncio.run(_flood(ours.url, paths))
        more = status_bytes(ours.process.pid, "VmHWM") - idle
        gets = here.between.gets(here.keys[0])
    often = blocks_got(gets, DEFAULT_BLOCK_BYTES)
    said = f"{len(gets)} GETs of {len(often)} blocks, {sum(get.sent_bytes for get in gets):,} bytes"
    yield Result(f"flood of {REQUESTS}: blocks", said, "", None, "each once", max(often.values()) == 1)
    yield Result(f"flood of {REQUESTS}: memory", f"+ {more >> 20} MiB", "", None, "≤ 150 MiB", more <= MOST_BYTES)


async def _flood(url: str, paths: list[str]) -> None:
    limits = httpx.Limits(max_connections=len(paths))
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        for answer in await asyncio.gather(*map(client.get, paths)):
            answer.raise_for_status()
