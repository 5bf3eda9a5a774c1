"""Server processes and decoders that are killed at random, under load: each costs its own requests at the most.

The long form, which prints its figures; KILLS is how many there are:

    KILLS=500 python -m pytest -m long tests/soak/test_kills.py -s
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from special.errors import Crashed
from tests.soak.crowd import ask_again
from tests.soak.noise import Noise, address
from tests.support import live, processes
from tests.support.processes import GONE
from tests.support.waiting import until

pytestmark = pytest.mark.service

KILLS = int(os.environ.get("KILLS", "500"))
CLIENTS = 8
DEADLINE_S = 60.0
"""Whoever has no answer by then hangs."""
SERVERS = 5
"""One of so many that are killed is a server process; the others are decoders."""


async def killed(tmp_path: Path, *, kills: int, pause_s: float) -> None:
    folder, chance = tmp_path / "masters", random.Random(kills)
    folder.mkdir()
    pictures = {f"{n}.tif": Noise(n, 256, 256) for n in range(100 + kills)}
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture.file)
    answers, wrong, over, told = Counter[int](), 0, asyncio.Event(), Counter[str]()

    async def client(n: int) -> None:
        nonlocal wrong
        # Two decoders that die on one and the same picture put it in quarantine: each client has pictures of its own,
        # and leaves alone what has cost one.
        mine, names = random.Random(n), sorted(pictures)[n::CLIENTS]
        while not over.is_set():
            name = mine.choice(names)
            region = pictures[name].region(mine)
            reply = await ask_again(server.url, address(name, region), within_s=DEADLINE_S)
            answers[reply.status] += 1
            told["broken"] += reply.broken
            if reply.status == 200:
                wrong += not pictures[name].shows(region, reply.body)
            else:
                told[reply.body.decode().strip()] += 1
                names.remove(name)

    with live.special(folder, home=tmp_path, settings={"SPECIAL_DECODERS": "1"}, workers=2) as server:
        supervisor = server.process.pid
        crowd = [asyncio.create_task(client(n)) for n in range(CLIENTS)]
        await until(lambda: answers[200] > CLIENTS)
        dead = Counter[str]()
        while dead.total() < kills:
            await asyncio.sleep(chance.uniform(0, 2 * pause_s))
            assert server.process.poll() is None, server.log.read_text()[-2000:]
            serving = processes.servers(supervisor)
            decoding = [child for each in serving for child in processes.children(each)]
            is_server = dead.total() % SERVERS == SERVERS - 1
            kind, among = ("server", serving) if is_server else ("decoder", decoding)
            if among:
                try:
                    os.kill(chance.choice(among), signal.SIGKILL)
                except GONE:
                    continue
                dead[kind] += 1
        before = answers[200]
        async with asyncio.timeout(DEADLINE_S):
            while answers[200] < before + 5 * CLIENTS or len(processes.servers(supervisor)) != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        over.set()
        await asyncio.gather(*crowd)
        assert server.process.poll() is None
    print(f"\n{dict(dead)} killed: {answers.total()} answers {dict(answers)}, {wrong} wrong, 0 hung, {dict(told)}")
    assert wrong == 0
    assert set(answers) <= {200, 500}
    assert set(told) <= {"broken", Crashed.sentence}
    assert answers[500] <= dead["decoder"]


async def test_killed_processes_cost_their_own_requests_alone(tmp_path: Path) -> None:
    await killed(tmp_path, kills=10, pause_s=0.2)


@pytest.mark.long
async def test_hundreds_of_kills(tmp_path: Path) -> None:
    await killed(tmp_path, kills=KILLS, pause_s=0.3)
