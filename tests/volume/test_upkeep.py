import os
from pathlib import Path
from time import time

import pytest

from special.errors import ConfigurationError
from special.spans import Span
from special.volume import Cleared, Verified, Volume, clear, stat, verify
from special.volume.blocks import BlockMap
from special.volume.stacks import Stacks
from tests.volume.made import Made, blob, expected, taken_bytes, until

BLOCK = 64 << 10
MIB = 1 << 20
A, B = blob("a", 10 * BLOCK), blob("b", 5 * BLOCK)
SOURCE = Made({"a": 1, "b": 1})


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A volume with two objects, which nobody uses."""
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(SOURCE)
        await reader.read(A, [Span(0, 4 * BLOCK)])
        await reader.read(B, [Span(0, BLOCK)])
        await reader.read(B, [Span(0, BLOCK)])
        await reader.read(B, [Span(5, 6)])
    return tmp_path


def home(directory: Path) -> Path:
    return Stacks(directory, at=lambda step: None).home(BlockMap.of(A, BLOCK).name)


async def test_stat(directory: Path) -> None:
    found = stat(directory, top=1)
    assert (found.size_bytes, found.block_bytes, found.objects) == (16 * MIB, BLOCK, 2)
    assert (found.hits, found.misses, found.evictions) == (2, 5, 0)
    assert found.hit_rate == pytest.approx(2 / 7)
    assert taken_bytes(directory) <= found.disk_bytes <= 16 * MIB
    assert [(entry.url, entry.hits, entry.misses) for entry in found.top] == [(A.url, 0, 4)]
    assert 0 <= found.oldest_s < 60
    assert time() - 60 < found.top[0].made_s <= found.top[0].used_s <= time()


async def test_stat_of_an_open_volume(directory: Path) -> None:
    async with Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        found = await volume.stat(top=5)
        assert found is not None
        assert [entry.url for entry in found.top] == [A.url, B.url]
        assert stat(directory).top == found.top


async def test_stat_of_an_empty_volume(tmp_path: Path) -> None:
    async with Volume(tmp_path, size_bytes=16 * MIB):
        found = stat(tmp_path)
    assert (found.objects, found.hits, found.hit_rate, found.oldest_s, found.top) == (0, 0, 0.0, 0.0, ())


async def test_verify_finds_nothing_wrong(directory: Path) -> None:
    assert verify(directory) == Verified(objects=2, blocks=5, dropped_blocks=0, dropped_objects=0)


async def test_verify_drops_what_is_wrong(directory: Path) -> None:
    with (home(directory) / "data").open("r+b") as file:
        file.seek(2 * BLOCK + 5)
        file.write(b"wrong")
    async with Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        assert verify(directory) == Verified(objects=2, blocks=4, dropped_blocks=1, dropped_objects=0)
        assert verify(directory) == Verified(objects=2, blocks=4, dropped_blocks=0, dropped_objects=0)
        source = Made({"a": 1})
        assert await volume.reader(source).read(A, [Span(0, 4 * BLOCK)]) == expected(A, [Span(0, 4 * BLOCK)])
        assert source.gets == [Span(2 * BLOCK, 3 * BLOCK)]
        sound = Verified(objects=2, blocks=5, dropped_blocks=0, dropped_objects=0)
        await until(lambda: verify(directory) == sound)  # what was read is written after it was answered


async def test_verify_removes_an_object_that_cannot_be_read(directory: Path) -> None:
    async with Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK):
        os.truncate(home(directory) / "map", 100)
        assert verify(directory) == Verified(objects=1, blocks=1, dropped_blocks=0, dropped_objects=1)
        assert not home(directory).exists()


async def test_clear_one(directory: Path) -> None:
    assert clear(directory, A.url) == Cleared(objects=1, kept=0)
    assert [entry.url for entry in stat(directory).top] == [B.url]
    assert clear(directory, A.url) == Cleared(objects=0, kept=0)


async def test_clear_all(directory: Path) -> None:
    assert clear(directory) == Cleared(objects=2, kept=0)
    assert stat(directory).objects == 0
    assert stat(directory).evictions == 0
    assert list((directory / "objects").iterdir()) == []


async def test_clear_beside_a_server_keeps_what_it_reads(directory: Path) -> None:
    async with Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(SOURCE)
        await reader.read(A, [Span(0, 1)])
        assert clear(directory) == Cleared(objects=1, kept=1)
        assert await reader.read(A, [Span(0, 1)]) == expected(A, [Span(0, 1)])
        assert await reader.read(B, [Span(0, 1)]) == expected(B, [Span(0, 1)])


@pytest.mark.parametrize("work", [stat, verify, clear])
def test_there_has_to_be_a_volume(tmp_path: Path, work: object) -> None:
    assert callable(work)
    with pytest.raises(ConfigurationError, match="holds no volume"):
        work(tmp_path)
    with pytest.raises(ConfigurationError, match="holds no volume"):
        work(tmp_path / "nowhere")
