"""People who look at pictures: each opens one, walks over it for a while, leaves now and then, opens another."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from tests.soak.crowd import Broken, ask, ask_again, asked
from tests.soak.noise import Noise, address

LEAVES = 0.05
"""Share of requests whose client does not wait for the answer."""
WALK = 12
"""Regions that somebody looks at before the next picture."""


@dataclass
class Load:
    """What a crowd of viewers was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Addresses whose answer showed anything else than they should."""
    refusals: int = 0
    """How often somebody was asked to come again, and did."""
    broken: int = 0
    """How often a connection broke, and was made again."""
    left: int = 0
    """How often somebody left."""

    def __str__(self) -> str:
        return (
            f"{sum(self.statuses.values())} answers {dict(self.statuses)}, {len(self.wrong)} wrong, "
            f"{self.refusals} times asked to come again, {self.broken} broken, {self.left} left"
        )


async def view(
    base: str,
    masters: Mapping[str, Noise],
    *,
    seed: int,
    viewers: int,
    going: Callable[[], bool] = lambda: True,
    load: Load | None = None,
) -> Load:
    """So many viewers for as long as it goes on, or until it is cancelled; `load` is what to count on in."""
    load = load or Load()

    async def viewer(n: int) -> None:
        chance = random.Random(f"{seed} {n}")
        names = sorted(masters)
        while going():
            name = names[int(chance.triangular(0, len(names), 0))]  # some are looked at more than others
            for _ in range(WALK):
                if not going():
                    return
                region = masters[name].region(chance)
                path = address(name, region)
                if chance.random() < LEAVES:
                    load.left += 1
                    try:
                        async with asked(base, path):
                            await asyncio.sleep(chance.random() / 20)
                    except Broken:
                        load.broken += 1
                    continue
                reply = await ask_again(base, path)
                load.statuses[reply.status] += 1
                load.refusals += reply.refusals
                load.broken += reply.broken
                if reply.status != 200 or not masters[name].shows(region, reply.body):
                    load.wrong.append(path)

    async with asyncio.TaskGroup() as crowd:
        for n in range(viewers):
            crowd.create_task(viewer(n))
    return load


def for_seconds(seconds: float) -> Callable[[], bool]:
    """True until then."""
    end_s = monotonic() + seconds
    return lambda: monotonic() < end_s


async def one_of_each(base: str, masters: Mapping[str, Noise], *, seed: int, parallel: int) -> Load:
    """Every master is asked for once, so many of them at the same time."""
    load, chance, turns = Load(), random.Random(seed), asyncio.Semaphore(parallel)

    async def look(name: str) -> None:
        region = masters[name].region(chance)
        async with turns:
            reply = await ask_again(base, address(name, region))
        load.statuses[reply.status] += 1
        load.refusals += reply.refusals
        if reply.status != 200 or not masters[name].shows(region, reply.body):
            load.wrong.append(name)

    await asyncio.gather(*(look(name) for name in masters))
    return load


async def metric(base: str, name: str) -> float:
    """The sum of a counter's or gauge's samples, of all labels where the name has none."""
    reply = await ask(base, "/metrics")
    assert reply.status == 200
    lines = reply.body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
