"""P13: twice as many requests as a server can answer: it goes on answering as many as it can, and refuses the rest.

The long form, which prints its figures; OVERLOAD_S is how long it lasts:

    OVERLOAD_S=180 python -m pytest -m long tests/soak/test_overload.py -s
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest

from tests.soak.crowd import Reply, ask, percentile
from tests.soak.noise import Noise, address
from tests.support import live, processes

pytestmark = pytest.mark.service

LONG_S = float(os.environ.get("OVERLOAD_S", "180"))
SIDE = 512
"""Of the parts that are asked for: 0.75 MB of PNG that does not compress, so that the decoder is what is short."""
BUSY = 6
"""So many clients, each of whom asks as soon as it is answered, keep a server with one decoder busy."""
MIB = 1 << 20


async def overloaded(tmp_path: Path, *, calm_s: float, flood_s: float, times: int = 2) -> tuple[float, float]:
    """Answers a second at capacity, and under so many times as many requests; prints the rest."""
    folder, chance = tmp_path / "masters", random.Random(1)
    folder.mkdir()
    pictures = {f"{n}.tif": Noise(n, 1024, 1024) for n in range(4)}
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture.file)

    def asked() -> str:
        name = chance.choice(sorted(pictures))
        return address(name, pictures[name].region(chance, SIDE))

    calm, flood = list[Reply](), list[Reply]()

    async def busy(until_s: float) -> None:
        while monotonic() < until_s:
            calm.append(await ask(server.url, asked()))

    async def once() -> None:
        flood.append(await ask(server.url, asked()))

    with live.special(
        folder, home=tmp_path, settings={"SPECIAL_DECODERS": "1", "SPECIAL_DECODER_IDLE_S": "0"}
    ) as server:
        pid = server.process.pid
        await asyncio.gather(*(busy(monotonic() + 2) for _ in range(BUSY)))
        calm.clear()
        await asyncio.gather(*(busy(monotonic() + calm_s) for _ in range(BUSY)))
        capacity = sum(reply.status == 200 for reply in calm) / calm_s
        memory, start_s = processes.resident_bytes(pid), monotonic()
        async with asyncio.TaskGroup() as crowd:
            while (passed_s := monotonic() - start_s) < flood_s:
                crowd.create_task(once())
                await asyncio.sleep(max((len(flood) + 1) / (times * capacity) - passed_s, 1 / (times * capacity)))
        lasted_s, after = monotonic() - start_s, processes.resident_bytes(pid)
    good = [reply for reply in flood if reply.status == 200]
    refused = [reply for reply in flood if reply.status == 503]
    goodput = len(good) / lasted_s
    assert Counter(reply.status for reply in flood).keys() == {200, 503}
    print(
        f"\ncapacity {capacity:.1f}/s; asked {len(flood) / flood_s:.1f}/s for {flood_s:.0f} s: {goodput:.1f}/s "
        f"answered ({goodput / capacity:.0%}), {len(refused)} refused in p50 {percentile(refused, 50):.0f} and p99 "
        f"{percentile(refused, 99):.0f} ms; memory {memory / MIB:.0f} to {after / MIB:.0f} MiB"
    )
    assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)
    assert after < 1.25 * memory
    return capacity, goodput


async def test_what_is_too_much_is_refused_and_the_rest_answered(tmp_path: Path) -> None:
    # Twelve times, since a neighbour that is busy just while the capacity is measured makes it look smaller.
    _, goodput = await overloaded(tmp_path, calm_s=2, flood_s=8, times=12)
    assert goodput > 0


@pytest.mark.long
async def test_twice_as_much_as_can_be_answered(tmp_path: Path) -> None:
    capacity, goodput = await overloaded(tmp_path, calm_s=30, flood_s=LONG_S)
    assert goodput >= 0.9 * capacity
