"""P13: servers that are told to stop, or to start anew, under load finish what they have begun.

The long forms, which print their figures:

    python -m pytest -m long tests/soak/test_stops.py -s
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.soak.crowd import Broken, ask
from tests.soak.noise import Noise, address
from tests.support import live, processes
from tests.support.live import LiveServer
from tests.support.waiting import until

pytestmark = pytest.mark.service

CLIENTS = 8


@dataclass
class Told:
    """What clients of a server that stops were told."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    cut: list[int] = field(default_factory=list)
    """Statuses of answers that broke off after their headers."""
    turned_away: int = 0
    """Connections that were not made, or closed before anything was said."""


def masters(folder: Path) -> dict[str, Noise]:
    """A few of them, in a folder that is made."""
    folder.mkdir()
    found = {f"{n}.tif": Noise(n, 512, 512) for n in range(4)}
    for name, master in found.items():
        (folder / name).write_bytes(master.file)
    return found


async def keep_asking(
    url: str, pictures: dict[str, Noise], told: Told, *, seed: int, going: Callable[[], bool]
) -> None:
    """Clients that ask for parts as long as it goes on, a connection for each request."""

    async def client(n: int) -> None:
        chance = random.Random(f"{seed} {n}")
        while going():
            name = chance.choice(sorted(pictures))
            region = pictures[name].region(chance)
            try:
                reply = await ask(url, address(name, region))
            except Broken as broken:
                if broken.status is None:
                    told.turned_away += 1
                    await asyncio.sleep(0.01)
                else:
                    told.cut.append(broken.status)
                continue
            told.statuses[reply.status] += 1
            told.wrong += reply.status == 200 and not pictures[name].shows(region, reply.body)

    async with asyncio.TaskGroup() as crowd:
        for n in range(CLIENTS):
            crowd.create_task(client(n))


async def stopped(server: LiveServer, pictures: dict[str, Noise], *, seed: int) -> Told:
    """SIGTERM at some moment under load, until the server has ended."""
    told, chance = Told(), random.Random(seed)
    over = asyncio.Event()
    asking = asyncio.create_task(keep_asking(server.url, pictures, told, seed=seed, going=lambda: not over.is_set()))
    await until(lambda: told.statuses[200] >= CLIENTS)
    await asyncio.sleep(chance.uniform(0, 0.5))
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, 60) in (0, -signal.SIGTERM)
    over.set()
    await asking
    return told


async def stops(tmp_path: Path, *, times: int) -> None:
    pictures, answered = masters(tmp_path / "masters"), 0
    for turn in range(times):
        home = tmp_path / f"{turn}"
        home.mkdir()
        with live.special(
            tmp_path / "masters", home=home, settings={"SPECIAL_DECODERS": "1"}, workers=1 + turn % 2
        ) as server:
            told = await stopped(server, pictures, seed=turn)
        assert told.cut == []
        assert told.wrong == 0
        assert set(told.statuses) <= {200, 503}
        assert told.turned_away > 0  # it has stopped, indeed
        answered += told.statuses.total()
    print(f"\n{times} × SIGTERM under load: {answered} answers, 0 truncated, 0 wrong")


async def test_answers_are_finished_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    await stops(tmp_path, times=2)


@pytest.mark.long
async def test_twenty_stops_under_load_truncate_nothing(tmp_path: Path) -> None:
    await stops(tmp_path, times=20)


async def restarts(tmp_path: Path, *, times: int) -> None:
    pictures, told, over = masters(tmp_path / "masters"), Told(), asyncio.Event()
    with live.special(tmp_path / "masters", home=tmp_path, settings={"SPECIAL_DECODERS": "1"}, workers=2) as server:
        supervisor = server.process.pid
        await until(lambda: len(processes.servers(supervisor)) == 2)
        asking = asyncio.create_task(keep_asking(server.url, pictures, told, seed=1, going=lambda: not over.is_set()))
        for _ in range(times):
            before, answers = set(processes.servers(supervisor)), told.statuses.total()
            os.kill(supervisor, signal.SIGHUP)
            async with asyncio.timeout(120):
                while before & set(now := processes.servers(supervisor)) or len(now) != 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await until(lambda answers=answers: told.statuses.total() > answers + CLIENTS)  # type: ignore[misc]
        over.set()
        await asking
    print(f"\n{times} rolling restarts under load: {told}")
    assert (told.cut, told.wrong) == ([], 0)
    assert told.turned_away <= CLIENTS * times  # uvicorn closes connections whose requests it has not read
    assert set(told.statuses) <= {200, 503}  # a busy machine refuses some, in so many words
    assert told.statuses[200] > 0


async def test_a_rolling_restart_drops_nothing(tmp_path: Path) -> None:
    await restarts(tmp_path, times=1)


@pytest.mark.long
async def test_ten_rolling_restarts_drop_nothing(tmp_path: Path) -> None:
    await restarts(tmp_path, times=10)
