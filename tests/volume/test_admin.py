import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from special.errors import ConfigurationError, Missing
from special.storage.blob import Span
from special.volume import Cleared, Verified, Volume, clear, stat, verify
from special.volume.admin import find
from special.volume.blocks import BlockMap
from special.volume.directory import VolumeDirectory
from tests.support.waiting import until
from tests.volume.made import ROOT, Made, blob, expected, taken_bytes

BLOCK = 64 << 10
MIB = 1 << 20
A, B = blob("a", 10 * BLOCK), blob("b", 5 * BLOCK)
SOURCE = Made({"a": 1, "b": 1})


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A volume with two objects, which no server uses."""
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(SOURCE)
        await reader.read(A, [Span(0, 4 * BLOCK)])
        await reader.read(B, [Span(0, BLOCK)])
        await reader.read(B, [Span(0, BLOCK)])
        await reader.read(B, [Span(5, 6)])
    return tmp_path


def home(directory: Path) -> Path:
    return VolumeDirectory(directory, at=lambda step: None).object_directory(BlockMap.of(A, BLOCK).name)


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
    assert clear(directory, [A.url]) == Cleared(objects=1, kept=0)
    assert [entry.url for entry in stat(directory).top] == [B.url]
    assert clear(directory, [A.url]) == Cleared(objects=0, kept=0)


@pytest.mark.parametrize(
    ("image", "keys", "root", "found"),
    [
        pytest.param("a", ["a"], None, ["a"], id="an identifier"),
        pytest.param("p/b", ["p/b"], None, ["p/b"], id="with a slash"),
        pytest.param("c", ["c.tif", "c.jp2"], None, ["c.jp2"], id="by its second key"),
        pytest.param("d", ["d.tif", "d.jp2"], None, ["d.jp2", "d.tif"], id="by both keys"),
        pytest.param(ROOT + "a", [ROOT + "a.tif"], None, ["a"], id="a URL"),
        pytest.param("e", ["e"], ROOT + "p/", ["p/e"], id="of a certain source"),
    ],
)
async def test_find(tmp_path: Path, image: str, keys: list[str], root: str | None, found: list[str]) -> None:
    await hold(tmp_path, ["a", "p/b", "c.jp2", "d.jp2", "d.tif", "e", "p/e"])
    assert find(tmp_path, image, keys=keys, root=root) == [ROOT + key for key in found]


async def hold(directory: Path, keys: list[str]) -> None:
    """A volume with these objects, which no server uses."""
    async with Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        for key in keys:
            await volume.reader(Made(dict.fromkeys(keys, 1))).read(blob(key, 5), [Span(0, 5)])


async def test_find_says_what_there_is_instead(tmp_path: Path) -> None:
    await hold(tmp_path, ["a.jp2", "p/a.jp2"])
    with pytest.raises(Missing, match=r"nothing of 'a' by the keys a.tif; it has 2 masters, such as s3://made/a.jp2"):
        find(tmp_path, "a", keys=["a.tif"])
    with pytest.raises(ConfigurationError, match=r"any of s3://made/a.jp2, s3://made/p/a.jp2: name one by its URL"):
        find(tmp_path, "a.jp2", keys=["a.jp2"])
    with pytest.raises(Missing, match="nothing of 'jp2'"):  # a part of a name is none
        find(tmp_path, "jp2", keys=["jp2"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["a"], 0, '{"objects": 1, "kept": 0}', id="an identifier"),
        pytest.param(["zz"], 1, "has nothing of 'zz'", id="unknown"),
        pytest.param(["a", "--source", "s3://elsewhere"], 1, "has nothing of 'a'", id="of another source"),
        pytest.param([], 0, '{"objects": 2, "kept": 0}', id="all"),
        pytest.param(["--help"], 0, "special volume clear /var/cache/special map.jp2", id="help"),
    ],
)
@pytest.mark.service
async def test_clear_from_the_command_line(directory: Path, arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "special", "volume", "clear", str(directory), "--json", *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SPECIAL_")}
    environ |= {"COLUMNS": "200", "AWS_REGION": "eu-west-1"}
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=environ)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


async def test_an_image_of_which_only_a_page_is_kept_is_found_and_cleared(tmp_path: Path) -> None:
    async with Volume(tmp_path, size_bytes=16 << 20) as volume:
        volume.metadata.put(replace(A, page=2), lambda: b"text")
        await volume.metadata.flush()
    assert find(tmp_path, "x", keys=[A.key]) == [A.url]
    assert clear(tmp_path, [A.url]) == Cleared(objects=1, kept=0)


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
