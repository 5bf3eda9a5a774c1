"""P7: faults of the store end in right bytes or a typed error, in time; one proxy between all of special and S3.

The long forms, which print their figures:

    python -m pytest -m long tests/soak/test_weather.py -s
"""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from special.geometry import Box
from tests.soak.conftest import started
from tests.soak.crowd import Broken, Reply, ask, ask_again, percentile
from tests.soak.noise import Noise, address
from tests.soak.proxy import Weather, blocks_got, fair
from tests.support.servers import S3Server

DEADLINE_S = 60.0
"""Whoever has no answer by then hangs."""
CLIENTS = 24
ROUTES = {"thumb", "derivative", "stream", "tile", ""}
"""Info.json takes none."""
FULL, PART = 256, 768
"""Sides of the masters that are asked for whole, and of those that are asked for in parts."""


@dataclass
class Day:
    """What a day of such weather was like."""

    replies: list[Reply] = field(default_factory=list)
    shown: set[tuple[str, bytes]] = field(default_factory=set)
    """Paths, and each body that was the answer of 200 to one."""
    hung: list[str] = field(default_factory=list)
    cut: int = 0
    """Answers that broke off after their headers: the client can tell, and has no picture."""

    @property
    def asked(self) -> int:
        return len(self.replies) + len(self.hung) + self.cut

    @property
    def success(self) -> float:
        return sum(reply.status == 200 for reply in self.replies) / self.asked


@dataclass(frozen=True)
class Holdings:
    """Masters that are asked for in parts, which the volume keeps, and whole, for which the store is read each time.

    Half of the latter have stored renditions.
    """

    parts: dict[str, Noise]
    wholes: dict[str, Noise]
    regions: dict[str, tuple[str, Box]]
    """What is asked for of the parts, by path."""

    @classmethod
    def of(cls, count: int) -> Holdings:
        """So many of each kind."""
        chance = random.Random(count)
        parts = {f"part-{n}.tif": Noise(n, PART, PART) for n in range(count)}
        wholes = {f"full-{n}.tif": Noise(1000 + n, FULL, FULL) for n in range(count)}
        regions = [(name, master.region(chance)) for name, master in parts.items() for _ in range(5)]
        return cls(parts, wholes, {address(*each): each for each in regions})

    @property
    def paths(self) -> list[str]:
        """All that is asked for; each of the four routes, and info.json."""
        sizes = ("max/0/default.png", "!200,200/0/default.jpg", "!100,100/0/default.jpg", "!60,60/0/default.png")
        asked = [f"full/{size}" for size in sizes] + ["info.json"]
        return [*self.regions, *(f"/iiif/3/{name}/{what}" for name in self.wholes for what in asked)]

    def store(self, client: Any, bucket: str, thumbs: str) -> None:
        """Put masters and renditions where a server finds them."""
        for name, master in (self.parts | self.wholes).items():
            client.put_object(Bucket=bucket, Key=name, Body=master.file)
        for name in sorted(self.wholes)[::2]:
            for side in (200, 100):
                file = io.BytesIO()
                Image.fromarray(self.wholes[name].pixels).resize((side, side)).save(file, "JPEG")
                client.put_object(Bucket=thumbs, Key=f"{name}/open/{side}.jpg", Body=file.getvalue())
            client.put_object(Bucket=thumbs, Key=f"{name}/s.json", Body=b'{"o":[[200,200],[100,100]],"a":[]}')

    def shows(self, path: str, body: bytes, fair: bytes) -> bool:
        """Whether an answer is right: as in fair weather, and what is kept in the volume as in the master, too."""
        name, region = self.regions.get(path, ("", None))
        return body == fair and (region is None or self.parts[name].shows(region, body))


async def spend(url: str, paths: list[str]) -> Day:
    """A day of requests by many clients, each asked once."""
    day, ahead = Day(), iter(paths)

    async def client() -> None:
        for path in ahead:
            try:
                reply = await ask(url, path, within_s=DEADLINE_S)
            except TimeoutError:
                day.hung.append(path)
            except Broken:
                day.cut += 1
            else:
                day.replies.append(reply)
                if reply.status == 200:
                    day.shown.add((path, reply.body))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return day


async def told_at_last(url: str, paths: list[str]) -> dict[str, bytes]:
    """What is answered in the end, by path: the server may be busy, the store is well."""
    turn = asyncio.Semaphore(CLIENTS)

    async def client(path: str) -> tuple[str, bytes]:
        async with turn:
            reply = await ask_again(url, path)
        assert reply.status == 200
        return path, reply.body

    return dict(await asyncio.gather(*(client(path) for path in paths)))


def endured(
    s3: S3Server, home: Path, *, rate: float, requests: int, masters: int, success: float, gets: float | None = None
) -> None:
    """A day whose figures must be so good; `gets` is how many of them a block may take."""
    seed, blocks = 7, Counter[tuple[str, int]]()
    holdings, bucket, thumbs = Holdings.of(masters), s3.bucket(), s3.bucket()
    holdings.store(s3.client(), bucket, thumbs)
    paths = random.Random(seed).choices(holdings.paths, k=requests)
    with started(s3, home, "--thumbs", f"s3://{thumbs}", "--volume-size", "512MiB", bucket=bucket) as library:
        first = len(library.between.log)
        library.between.choose = Weather(seed, rate)
        day = asyncio.run(spend(library.url, paths))
        library.between.choose = fair
        log = library.between.log[first:]
        for name in holdings.parts:
            for index, count in blocks_got(library.pinned(name), library.block_bytes).items():
                blocks[name, index] += count
        told = sorted({path for path, _ in day.shown})
        right = asyncio.run(told_at_last(library.url, told))
    wrong = [path for path, body in day.shown if not holdings.shows(path, body, right[path])]
    faults = sum(each.fault is not None for each in log)
    each_block = blocks.total() / len(blocks)
    print(
        f"\nseed {seed}, {rate:.0%}: {day.asked} requests, {len(log)} to the store, {faults} faults; {len(wrong)} "
        f"wrong, {len(day.hung)} hung, {day.cut} cut, {day.success:.2%} answered, {each_block:.3f} GETs per block, "
        f"p99 {percentile(day.replies, 99):.0f} ms, longest {max(it.seconds for it in day.replies):.1f} s; "
        f"{dict(Counter(it.status for it in day.replies))}"
    )
    assert faults > 0
    assert wrong == []
    assert day.hung == []
    assert {reply.status for reply in day.replies} <= {200, 503}
    assert all("retry-after" in reply.headers for reply in day.replies if reply.status == 503)
    assert day.success >= success
    assert gets is None or each_block <= gets
    assert {reply.headers.get("x-special-route", "") for reply in day.replies if reply.status == 200} == ROUTES


def test_a_day_of_five_percent_faults(seaweed_s3: S3Server, tmp_path: Path) -> None:
    endured(seaweed_s3, tmp_path, rate=0.05, requests=300, masters=6, success=0.99, gets=1.25)


@pytest.mark.long
def test_ten_thousand_requests_at_five_percent_faults(seaweed_s3: S3Server, tmp_path: Path) -> None:
    endured(seaweed_s3, tmp_path, rate=0.05, requests=10_000, masters=60, success=0.995, gets=1.25)


@pytest.mark.long
def test_ten_thousand_requests_at_thirty_percent_faults(seaweed_s3: S3Server, tmp_path: Path) -> None:
    endured(seaweed_s3, tmp_path, rate=0.3, requests=10_000, masters=60, success=0.8)
