"""P1: one answer never mixes two versions of a master, however often it is overwritten meanwhile.

The long forms, which print their figures:

    python -m pytest -m long tests/soak/test_versions.py -s      # 1,000 overwrites during 10,000 reads
"""

import asyncio
import random
from collections import Counter
from itertools import pairwise

import pytest

from special.geometry import Box
from tests.soak.conftest import Library
from tests.soak.crowd import ask, ask_again
from tests.soak.noise import Noise, address
from tests.soak.proxy import Exchange, Fault, Held
from tests.support.waiting import until

READERS = 16
MOST_ASKED = 4
"""Requests for each that must be answered with a picture, before it is given up."""


def edition(version: int) -> tuple[Noise, bytes]:
    """A version of one picture; the files of three in a row differ in length."""
    master = Noise(1, 768, 512, version)
    return master, master.file + bytes(version % 3)


async def overwritten(library: Library, *, seed: int, overwrites: int, reads: int) -> None:
    """Readers of regions (through the volume) and of the whole (past it), while one writer never stops."""
    master, data = edition(0)
    name = library.put(data)
    chance, asked = random.Random(seed), iter(range(MOST_ASKED * reads))
    outcomes: Counter[str] = Counter()
    shown: list[int] = []

    async def reader() -> None:
        # A busy machine answers some with 503: what counts is what was shown.
        while len(shown) < reads and (n := next(asked, None)) is not None:
            region = Box(0, 0, master.width, master.height) if n % 3 == 0 else master.region(chance)
            reply = await ask(library.url, address(name, region))
            if reply.status == 200:
                version = master.version_shown(region, reply.body)
                assert version is not None, f"seed {seed}: {region} is of two versions"
                shown.append(version)
            outcomes[f"{reply.status} {reply.headers.get('x-special-route', '')}"] += 1

    async def writer() -> None:
        for version in range(1, overwrites + 1):
            await library.put_aside(edition(version)[1], name)
            while len(shown) < version * reads / (overwrites + 1) and not readers.done():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    readers = asyncio.gather(*(reader() for _ in range(READERS)))
    await asyncio.gather(readers, writer())
    gets = Counter(each.status for each in library.between.gets(name))
    print(
        f"\nseed {seed}: {overwrites} overwrites, answers {dict(outcomes)}, {len(set(shown))} versions shown;", end=" "
    )
    print(f"answers of the store {dict(gets)}")
    assert {key.split()[0] for key in outcomes} <= {"200", "503"}
    assert len(shown) >= reads
    assert len(set(shown)) > min(overwrites, reads) / 4
    assert gets[412] > 0
    assert len(shown) > 0.5 * outcomes.total()


async def test_forty_overwrites_during_four_hundred_reads(library: Library) -> None:
    await overwritten(library, seed=1, overwrites=40, reads=400)


@pytest.mark.long
async def test_a_thousand_overwrites_during_ten_thousand_reads(library: Library) -> None:
    await overwritten(library, seed=2, overwrites=1000, reads=10_000)


def held_in_turn(name: str, count: int) -> tuple[list[Held], object]:
    """The first pinned reads of a master, each to be released on its own."""
    held = [Held() for _ in range(count)]
    waiting = iter(held)

    def choose(exchange: Exchange) -> Fault | None:
        return next(waiting, None) if exchange.key == name and exchange.match else None

    return held, choose


@pytest.mark.parametrize(
    ("overwrites", "status", "answers"),
    [
        pytest.param(1, 200, [412, 206, 206], id="once: begun again"),
        pytest.param(2, 503, [412, 206, 412], id="twice: the client is asked to come again"),
    ],
)
async def test_a_read_is_begun_again_once(library: Library, overwrites: int, status: int, answers: list[int]) -> None:
    name, region = library.put(edition(0)[1]), Box(300, 300, 100, 100)
    held, library.between.choose = held_in_turn(name, overwrites)  # type: ignore[assignment]
    reading = asyncio.create_task(ask(library.url, address(name, region)))
    for version, read in enumerate(held, start=1):
        await until(lambda version=version: len(library.pinned(name)) == version)  # type: ignore[misc]
        await library.put_aside(edition(version)[1], name)
        read.released.set()
    reply = await reading
    assert reply.status == status
    _, *log = library.gets(name)
    assert [each.status for each in log[: len(answers)]] == answers
    assert [each.match is None for each in log[: len(answers)]] == [False, True, False]
    for before, after in pairwise([each.match for each in log if each.match and each.status == 412]):
        assert before != after
    if status == 200:
        assert edition(0)[0].version_shown(region, reply.body) == 1
    else:
        assert reply.headers["retry-after"] == "1"
        assert len(log) == len(answers)
        again = await ask_again(library.url, address(name, region))
        assert edition(0)[0].version_shown(region, again.body) == 2


async def test_a_crowd_that_meets_a_new_version_looks_it_up_once(library: Library) -> None:
    name, region = library.put(edition(0)[1]), Box(0, 0, 768, 512)
    held = Held()
    library.between.choose = lambda exchange: held if exchange.key == name and exchange.match else None
    crowd = [asyncio.create_task(ask_again(library.url, address(name, region))) for _ in range(20)]
    await until(lambda: len(library.pinned(name)) >= 4)  # as many whole pictures as are let in by one process
    await library.put_aside(edition(1)[1], name)
    held.released.set()
    replies = await asyncio.gather(*crowd)
    assert {edition(0)[0].version_shown(region, reply.body) for reply in replies} == {1}
    read = [each for each in library.heads(name) if each.status != 304]
    assert len(read) <= 4  # the old one and the new one, by each process
