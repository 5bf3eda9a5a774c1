"""Far more masters than there is space for: the size is never exceeded, and every reader is answered."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from special.storage.blob import Blob, Span
from special.volume import Volume
from tests.volume.made import Made, blob, expected, surely_taken_bytes

MIB = 1 << 20


@contextmanager
def sampled(directory: Path, every_s: float) -> Iterator[list[int]]:
    """What a directory takes, again and again."""
    samples, stop = [surely_taken_bytes(directory)], threading.Event()

    def sample() -> None:
        while not stop.wait(every_s):
            samples.append(surely_taken_bytes(directory))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
        samples.append(surely_taken_bytes(directory))


async def flood(directory: Path, *, seed: int, masters: int, reads: int, parallel: int, servers: int) -> list[int]:
    """Random reads of many masters through a volume that holds three. What it took on disk meanwhile."""
    chance = random.Random(seed)
    sizes = {f"{n}": chance.randrange(3 * MIB, 4 * MIB) for n in range(masters)}

    async def pause(of: Blob, span: Span) -> None:
        await asyncio.sleep(0.005)

    source = Made(dict.fromkeys(sizes, 1), before=pause)
    turns = asyncio.Semaphore(parallel)
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(servers):
            volume = await stack.enter_async_context(Volume(directory, size_bytes=14 * MIB))
            readers.append(volume.reader(source))

        async def read(n: int) -> bool:
            key = f"{n % masters}" if n < masters else f"{int(chance.triangular(0, masters, 0))}"
            of, start = blob(key, sizes[key]), chance.randrange(sizes[key] - 1)
            wanted = [Span(start, min(of.size, start + chance.choice([1000, 100_000, 2 * MIB])))]
            async with turns:
                return await chance.choice(readers).read(of, wanted) == expected(of, wanted)

        with sampled(directory, 0.01) as samples:
            assert all(await asyncio.gather(*(read(n) for n in range(reads))))
    assert source.running == 0
    return samples


@pytest.mark.parametrize("seed", [1, 2])
async def test_two_hundred_masters_at_once_on_a_volume_for_three(tmp_path: Path, seed: int) -> None:
    samples = await flood(tmp_path, seed=seed, masters=200, reads=600, parallel=200, servers=2)
    assert len(samples) > 10
    assert max(samples) <= 14 * MIB
    assert max(samples) > 8 * MIB  # it was used, too


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
async def test_a_long_flood(tmp_path: Path, seed: int) -> None:
    samples = await flood(tmp_path, seed=seed, masters=200, reads=20_000, parallel=200, servers=2)
    assert max(samples) <= 14 * MIB
