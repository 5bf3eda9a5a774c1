"""B11: a flood of 1,000 requests for one cold image: what is read, what memory it takes, how long a JPEG 2000 takes."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from statistics import median

import httpx

from special.volume.volume import DEFAULT_BLOCK_BYTES
from tests.bench.bench import Bench, Result
from tests.bench.cold import slow_bucket
from tests.bench.tiles import walk
from tests.soak.crowd import at_once, percentile
from tests.soak.proxy import blocks_got
from tests.support import live
from tests.support.live import LiveServer
from tests.support.processes import status_bytes

REQUESTS = 1000
MOST_BYTES = 150 << 20
MOST = 1.5
"""How much longer than its pyramid alone the middle request for a JPEG 2000 may take."""
WITHIN_S = 600.0


def run(bench: Bench) -> Iterator[Result]:
    """All at once, over a viewer's tiles, at a server with a process for each core."""
    with (
        slow_bucket(bench, "photo.tif", 1) as here,
        live.special(
            f"s3://{here.bucket}", home=here.home, settings=here.s3.environ, workers=os.cpu_count() or 1
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
    with (
        slow_bucket(bench, "photo.jp2", 2 * bench.repeats) as here,
        live.special(
            f"s3://{here.bucket}",
            home=here.home,
            settings=here.s3.environ | {"SPECIAL_PROMOTE_AFTER": "1"},
            workers=os.cpu_count() or 1,
        ) as ours,
    ):
        keys = iter(here.keys)
        turns = [(_alone(ours, next(keys)), _middle(ours, next(keys))) for _ in range(bench.repeats)]
    ratio = median(alone / middle for alone, middle in turns)
    alone_s, middle_s = (median(column) for column in zip(*turns, strict=True))
    yield Result(
        f"flood of {REQUESTS} for a JPEG 2000: p50",
        f"{middle_s:.1f} s",
        f"its pyramid alone: {alone_s:.1f} s",
        ratio,
        f"≥ {1 / MOST:.2f} ×",
        1 / ratio <= MOST,
    )


def _alone(ours: LiveServer, key: str) -> float:
    """Seconds from the request that begins a pyramid until it is made."""
    made, start = _made(ours), time.monotonic()
    asyncio.run(at_once(ours.url, [f"/iiif/3/{key}/{walk()[0]}"], within_s=WITHIN_S))
    while _made(ours) == made:
        if time.monotonic() > start + WITHIN_S:
            raise RuntimeError(f"no pyramid of {key} was made")
        time.sleep(0.05)
    return time.monotonic() - start


def _middle(ours: LiveServer, key: str) -> float:
    """Seconds until half of a flood is answered, each from the first time of asking; then waits for the pyramid."""
    made, tiles = _made(ours), walk()
    paths = [f"/iiif/3/{key}/{tiles[number % len(tiles)]}" for number in range(REQUESTS)]
    replies = asyncio.run(at_once(ours.url, paths, within_s=WITHIN_S))
    if any(reply.status != 200 for reply in replies) or _made(ours) == made:
        raise RuntimeError(f"the flood for {key} was not answered from a pyramid")
    return percentile(replies, 50) / 1000


def _made(ours: LiveServer) -> int:
    """How many pyramids the server has made."""
    found = re.search(r'special_promotions_total\{outcome="made"\} ([\d.]+)', httpx.get(f"{ours.url}/metrics").text)
    return int(float(found[1])) if found else 0


async def _flood(url: str, paths: list[str]) -> None:
    limits = httpx.Limits(max_connections=len(paths))
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        for answer in await asyncio.gather(*map(client.get, paths)):
            answer.raise_for_status()
