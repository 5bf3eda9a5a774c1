"""A long time of mixed load, with clients that leave: at its end a server holds what it held at the beginning.

The long form, which prints its figures; SOAK_S is how long it lasts:

    SOAK_S=1200 python -m pytest -m long tests/soak/test_soak.py -s
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.soak.conftest import started
from tests.soak.crowd import Broken, ask, asked, at_once
from tests.soak.test_weather import Holdings
from tests.soak.viewers import for_seconds, metric
from tests.support import processes
from tests.support.servers import S3Server

SOAK_S = float(os.environ.get("SOAK_S", "1200"))
CLIENTS = 8
LEAVES = 0.05
MIB = 1 << 20
KNOWN_BYTES = 1.25
"""How much more memory than after the warm-up a server may have: allocators do not give all of it back."""
SETTLED_S = 60.0


@dataclass(frozen=True)
class Held:
    """What a server holds while nobody asks for anything."""

    descriptors: int
    """Files and sockets: connections to clients and to the store among them."""
    tasks: float
    memory_bytes: int

    @classmethod
    async def by(cls, url: str, pid: int) -> Held:
        """Looked at by one request, which is one connection and a task or two itself."""
        return cls(processes.descriptors(pid), await metric(url, "special_tasks"), processes.resident_bytes(pid))


async def load(url: str, paths: list[str], *, seed: int, going: Callable[[], bool]) -> Counter[int | str]:
    """Clients of every route; some do not wait for their answer."""
    told = Counter[int | str]()

    async def client(n: int) -> None:
        chance = random.Random(f"{seed} {n}")
        while going():
            path = chance.choice(paths)
            if chance.random() < LEAVES:
                async with asked(url, path):
                    await asyncio.sleep(chance.random() / 20)
                told["left"] += 1
                continue
            try:
                told[(await ask(url, path)).status] += 1
            except Broken:
                told["broken"] += 1

    await asyncio.gather(*(client(n) for n in range(CLIENTS)))
    return told


async def settled(url: str, pid: int, first: Held) -> Held:
    """What is held when it has come down to what was held first, or a minute later."""
    async with asyncio.timeout(2 * SETTLED_S):
        for _ in range(int(SETTLED_S / 2)):
            held = await Held.by(url, pid)
            if held.descriptors <= first.descriptors and held.tasks <= first.tasks:
                break
            await asyncio.sleep(2)
    return held


async def soaked(s3: S3Server, home: Path, *, warm_s: float, soak_s: float) -> None:
    holdings, bucket, thumbs = Holdings.of(6), s3.bucket(), s3.bucket()
    holdings.store(s3.client(), bucket, thumbs)
    options = ("--thumbs", f"s3://{thumbs}", "--volume-size", "64MiB")
    with started(s3, home, *options, bucket=bucket) as library:
        url, pid = library.url, library.server.process.pid
        await at_once(url, holdings.paths)
        await load(url, holdings.paths, seed=1, going=for_seconds(warm_s))
        await asyncio.sleep(6)  # connections that idle are closed after five
        first = await Held.by(url, pid)
        told = await load(url, holdings.paths, seed=2, going=for_seconds(soak_s))
        last = await settled(url, pid, first)
    print(f"\n{soak_s:.0f} s, {told.total()} requests: {dict(told)}\nbefore {first}\nafter  {last}")
    assert set(told) <= {200, 503, "left"}
    assert told["left"] > 0
    assert last.descriptors <= first.descriptors
    assert last.tasks <= first.tasks
    assert last.memory_bytes < KNOWN_BYTES * first.memory_bytes


async def test_a_few_seconds_leave_nothing_behind(seaweed_s3: S3Server, tmp_path: Path) -> None:
    await soaked(seaweed_s3, tmp_path, warm_s=3, soak_s=4)


@pytest.mark.long
async def test_twenty_minutes_leave_nothing_behind(seaweed_s3: S3Server, tmp_path: Path) -> None:
    await soaked(seaweed_s3, tmp_path, warm_s=min(30.0, SOAK_S / 4), soak_s=SOAK_S)
