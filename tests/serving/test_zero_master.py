"""What stored renditions can answer reads no byte of a master: a replay, counted in the S3 server's own log."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from special.geometry import Size, to_height, to_width
from tests.support import oracle
from tests.support.live import MASTERS, LiveServer
from tests.support.servers import LoggedRequest, S3Server

LARGEST = 400
SIZES = f"{LARGEST},200,100"
AT_ONCE = 8


@dataclass(frozen=True)
class Library:
    """The sample masters and all their renditions in two buckets, and a server of them."""

    server: LiveServer
    s3: S3Server
    masters: str
    thumbs: str

    def read(self, bucket: str, since: int) -> list[LoggedRequest]:
        """GETs of objects in a bucket from a place in its log on; without a server's probe at its start."""
        found = self.s3.logged(bucket)[since:]
        return [line for line in found if line.operation == "REST.GET.OBJECT" and line.key != ".special-probe"]


@pytest.fixture(scope="module")
def library(serve: Callable[..., LiveServer], seaweed_s3: S3Server) -> Library:
    masters, thumbs = seaweed_s3.bucket(), seaweed_s3.bucket()
    for path in MASTERS.iterdir():
        seaweed_s3.client().upload_file(str(path), masters, path.name)
    command = [sys.executable, "-m", "special", "derive", f"s3://{masters}", "--thumbs", f"s3://{thumbs}"]
    done = subprocess.run(
        [*command, "--sizes", SIZES], env=os.environ | seaweed_s3.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Long enough that nothing is asked after again: what is counted is what the requests themselves cost.
    settings = seaweed_s3.environ | {"SPECIAL_ASSET_TTL_S": "3600"}
    return Library(
        serve(f"s3://{masters}", "--thumbs", f"s3://{thumbs}", settings=settings), seaweed_s3, masters, thumbs
    )


def requests(count: int, seed: int) -> list[str]:
    """Requests for full regions up to the largest rendition, in every form that the API has for them."""
    rng = random.Random(seed)
    shapes = {path.name: Size(it.width, it.height) for path in MASTERS.iterdir() for it in [oracle.upright(path)]}
    return [_request(rng, *rng.choice(sorted(shapes.items()))) for _ in range(count)]


def _request(rng: random.Random, name: str, shape: Size) -> str:
    full = f"0,0,{shape.width},{shape.height}"
    region = rng.choice(["full", full, "pct:0,0,100,100", *(["square"] if shape.width == shape.height else [])])
    largest = to_width(shape, LARGEST) if shape.width >= shape.height else to_height(shape, LARGEST)
    width, height = rng.randint(1, largest.width), rng.randint(1, largest.height)
    side = rng.choice([LARGEST, 200, 100, rng.randint(1, LARGEST)])
    size = rng.choice([f"!{side},{side}", f"{width},", f",{height}", f"{width},{height}"])
    if rng.random() < 0.1:
        return f"/thumbs/{rng.choice(['', '2/', 'v3/'])}{name}/{region}/!{side},{side}/0/default.jpg"
    rotation = rng.choice(["0", "0", "0", "90", "!0", "22.5"])
    quality, format_ = (
        rng.choice(["default", "default", "color", "gray", "bitonal"]),
        rng.choice(["jpg", "jpg", "png", "webp"]),
    )
    prefix = rng.choice(["iiif/", "iiif/2/", "iiif/3/", "iiif-img/v2/", "iiif-img/v3/"])
    return f"/{prefix}{name}/{region}/{size}/{rotation}/{quality}.{format_}"


async def replay(library: Library, paths: list[str]) -> Counter[str]:
    """Ask for all of them, a few at once; how many were answered by which route."""
    routes: Counter[str] = Counter()
    left = iter(paths)
    async with httpx.AsyncClient(base_url=library.server.url, timeout=60) as client:

        async def ask() -> None:
            for path in left:
                answer = await client.get(path)
                assert answer.status_code == 200, f"{path}: {answer.text}"
                routes[answer.headers["x-special-route"]] += 1

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return routes


async def read_no_master(library: Library, count: int, seed: int) -> None:
    masters_before = len(library.s3.logged(library.masters))
    routes = await replay(library, requests(count, seed))

    assert library.read(library.masters, masters_before) == []
    assert set(routes) == {"thumb", "derivative"}

    # Everything is known by now: whatever is asked again costs one GET of a rendition at the most.
    again = requests(count // 10, seed)
    thumbs_before = len(library.s3.logged(library.thumbs))
    await replay(library, again)
    read = library.read(library.thumbs, thumbs_before)
    assert len(read) <= len(again)
    assert {line.key.rpartition(".")[2] for line in read} <= {"jpg"}
    assert library.read(library.masters, masters_before) == []
    print(f"\nseed {seed}: {count} requests {dict(routes)}: no GET of a master; {len(again)} again: {len(read)} GETs")


async def test_a_replay_reads_no_master(library: Library) -> None:
    await read_no_master(library, 300, seed=20261122)


@pytest.mark.long
async def test_a_long_replay_reads_no_master(library: Library) -> None:
    await read_no_master(library, 5000, seed=time.time_ns())
