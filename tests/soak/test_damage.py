"""P5 and P6: what is done to a volume while servers use it, and to servers, never shows in an answer.

The long forms, which print their figures:

    python -m pytest -m long tests/soak/test_damage.py -s
"""

import asyncio
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from special.storage.blob import Span
from special.volume import verify
from special.volume.directory import LEDGER_NAME, VolumeDirectory
from special.volume.object_files import DATA_NAME, MAP_NAME, read_block_map
from tests.soak.conftest import Library, started
from tests.soak.noise import Noise
from tests.soak.viewers import Load, for_seconds, metric, view
from tests.support.servers import S3Server
from tests.support.waiting import until
from tests.volume.made import taken_bytes

MIB = 1 << 20
Damage = Callable[[Path, random.Random], None]


def files(volume: Path, name: str) -> list[Path]:
    return sorted(volume.glob(f"objects/*/*/{name}"))


def flip(volume: Path, chance: random.Random) -> None:
    """One bit in each of many places."""
    for path in files(volume, DATA_NAME):
        with path.open("r+b") as file:
            for _ in range(20):
                place = chance.randrange(path.stat().st_size)
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 1 << chance.randrange(8)]))


def punch(volume: Path, chance: random.Random) -> None:
    """Zeros where data was."""
    for path in files(volume, DATA_NAME):
        with path.open("r+b") as file:
            file.seek(chance.randrange(path.stat().st_size // 2))
            file.write(bytes(300_000))


def truncate(volume: Path, chance: random.Random) -> None:
    """Files that end too early."""
    for name in (DATA_NAME, MAP_NAME):
        path = chance.choice(files(volume, name))
        os.truncate(path, chance.randrange(path.stat().st_size))


def swap(volume: Path, chance: random.Random) -> None:
    """Each of two masters has the other one's data."""
    one, other = chance.sample(files(volume, DATA_NAME), 2)
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def scribble(volume: Path, chance: random.Random) -> None:
    """Nonsense in the maps and in the books."""
    for path in [*files(volume, MAP_NAME), volume / LEDGER_NAME]:
        with path.open("r+b") as file:
            file.seek(chance.randrange(path.stat().st_size))
            file.write(chance.randbytes(64))


def lose(volume: Path, chance: random.Random) -> None:
    """Files that are gone."""
    for path in (chance.choice(files(volume, MAP_NAME)), chance.choice(files(volume, DATA_NAME))):
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def breakable(seaweed_s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A server whose volume may be broken: nobody else uses it."""
    with started(seaweed_s3, tmp_path_factory.mktemp("breakable"), "--volume-size", "64MiB", workers=1) as library:
        yield library


DAMAGES: list[Damage] = [flip, punch, truncate, swap, lose, scribble]


async def test_a_disk_that_takes_nothing_more_is_passed_by(breakable: Library) -> None:
    """Every write of the server fails (EFBIG, for want of a disk that is full), and then none does."""
    masters = {f"full-{n}.tif": Noise(n, 768, 768) for n in range(4)}
    for name, master in masters.items():
        breakable.put(master.file, name)
    faults = "special_volume_faults_total"
    before = await metric(breakable.url, faults)
    pid, limit = breakable.server.process.pid, resource.RLIMIT_FSIZE
    unlimited = resource.prlimit(pid, limit, (4096, resource.RLIM_INFINITY))
    try:
        load = await view(breakable.url, masters, seed=1, viewers=4, going=for_seconds(3))
        stored = files(breakable.volume, DATA_NAME)
    finally:
        resource.prlimit(pid, limit, unlimited)
    assert load.wrong == []
    assert set(load.statuses) == {200}
    assert await metric(breakable.url, faults) > before
    assert stored == []
    load = await view(breakable.url, masters, seed=2, viewers=4, going=for_seconds(3))
    assert load.wrong == []
    assert files(breakable.volume, DATA_NAME) != []  # it is used again


async def damaged(breakable: Library, *, seed: int, seconds: float) -> None:
    """Viewers walk over eight masters while their volume is broken in one way after the other."""
    masters = {f"{seed}-{n}.tif": Noise(n, 768, 768) for n in range(8)}
    for name, master in masters.items():
        breakable.put(master.file, name)
    chance, faults = random.Random(seed), "special_volume_faults_total"
    before = await metric(breakable.url, faults)

    async def break_it() -> None:
        for damage in DAMAGES:
            await asyncio.sleep(seconds / (len(DAMAGES) + 1))
            damage(breakable.volume, chance)

    load, _ = await asyncio.gather(
        view(breakable.url, masters, seed=seed, viewers=6, going=for_seconds(seconds)), break_it()
    )
    counted = await metric(breakable.url, faults) - before
    print(f"\nseed {seed}: {load}; {counted:.0f} faults of the volume counted")
    assert load.wrong == []
    assert set(load.statuses) == {200}
    assert counted > 0


async def test_a_volume_that_is_damaged_while_it_serves(breakable: Library) -> None:
    await damaged(breakable, seed=1, seconds=7)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 7))
async def test_a_volume_that_is_damaged_for_a_minute(breakable: Library, seed: int) -> None:
    await damaged(breakable, seed=seed, seconds=60)


def wrong_blocks(volume: Path, masters: dict[str, Noise]) -> list[str]:
    """Blocks that are valid by their checksum and hold anything else than the master."""
    directory, found, seen = VolumeDirectory(volume, at=lambda step: None), [], 0
    directory.join(None)
    try:
        for home in directory.object_directories():
            blocks = read_block_map(home)
            data = masters[blocks.url.rpartition("/")[2]].file
            opened = directory.find(blocks)
            assert opened is not None
            for index, block in opened.read_blocks(opened.published()).items():
                span: Span = blocks.span(range(index, index + 1))
                seen += 1
                if block != data[span.start : span.stop]:
                    found.append(f"{blocks.url} {index}")
            opened.close()
    finally:
        directory.leave()
    assert seen > 0
    return found


async def restarted(s3: S3Server, home: Path, *, seed: int, kills: int) -> None:
    """A server that is killed at random moments under viewers, and started again."""
    size_bytes, chance = 12 * MIB, random.Random(seed)
    bucket = s3.bucket()
    masters = {f"{n}.tif": Noise(n, 768, 768) for n in range(8)}
    for name, master in masters.items():
        s3.client().put_object(Bucket=bucket, Key=name, Body=master.file)
    for kill in range(kills):
        load = Load()
        with started(s3, home, "--volume-size", str(size_bytes), bucket=bucket, workers=1) as library:
            viewing = asyncio.create_task(view(library.url, masters, seed=100 * seed + kill, viewers=6, load=load))
            await until(lambda load=load: load.statuses.total() > 0)  # type: ignore[misc]
            await asyncio.sleep(chance.uniform(0, 1.0))
            library.server.process.kill()
            library.server.process.wait()
            viewing.cancel()
            await asyncio.gather(viewing, return_exceptions=True)
        assert load.wrong == []
        assert taken_bytes(home / "volume") <= size_bytes
        assert wrong_blocks(home / "volume", masters) == []
    found = verify(home / "volume")
    print(f"\nseed {seed}: {kills} kills; at the end {found}")
    assert found.blocks > 0
    assert (found.dropped_blocks, found.dropped_objects) == (0, 0)


async def test_servers_that_are_killed_and_started_again(seaweed_s3: S3Server, tmp_path: Path) -> None:
    await restarted(seaweed_s3, tmp_path, seed=1, kills=2)


@pytest.mark.long
async def test_servers_that_are_killed_a_hundred_times(seaweed_s3: S3Server, tmp_path: Path) -> None:
    await restarted(seaweed_s3, tmp_path, seed=2, kills=100)
