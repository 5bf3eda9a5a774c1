"""A volume's directory is its user's alone, follows no links, and is made again when it is removed."""

import asyncio
import os
import stat as modes
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest

from special.errors import ConfigurationError
from special.storage.blob import Span
from special.volume import Volume, clear, stat, verify
from special.volume.blocks import BlockMap
from special.volume.directory import LEDGER_NAME, OBJECTS_NAME, VolumeDirectory
from special.volume.membership import SERVERS_NAME
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected

BLOCK = 64 << 10
MIB = 1 << 20
A = blob("a", 20 * BLOCK)
ALL = [Span(0, A.size)]


def home(directory: Path) -> Path:
    return VolumeDirectory(directory, at=lambda step: None).object_directory(BlockMap.of(A, BLOCK).name)


def opened(directory: Path) -> Volume:
    return Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK, failure_memory_s=0.0, maintenance_s=0.05)


async def fill(directory: Path) -> None:
    async with opened(directory) as volume:
        assert await volume.reader(Made({"a": 1})).read(A, ALL) == expected(A, ALL)


async def test_its_folders_are_for_its_user_alone(tmp_path: Path) -> None:
    await fill(tmp_path / "volume")
    folders = [tmp_path / "volume", tmp_path / "volume" / OBJECTS_NAME, home(tmp_path / "volume")]
    assert [modes.S_IMODE(it.stat().st_mode) for it in folders] == [0o700] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("name", ["", OBJECTS_NAME])
async def test_a_folder_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    await fill(tmp_path / "volume")
    os.chown(tmp_path / "volume" / name, 12345, -1)
    with pytest.raises(ConfigurationError, match="belongs to user 12345, and this server runs as user 0"):
        await opened(tmp_path / "volume").open()


async def test_a_link_in_place_of_its_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "volume" / OBJECTS_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        await opened(tmp_path / "volume").open()


def in_place_of(name: str) -> Callable[[Path, Path], None]:
    def link(directory: Path, precious: Path) -> None:
        path = home(directory) / name
        path.unlink(missing_ok=True)
        path.symlink_to(precious)

    return link


def the_object(directory: Path, precious: Path) -> None:
    rmtree(home(directory))
    home(directory).symlink_to(precious.parent)


LINKS = {name: in_place_of(name) for name in ["map", "data", "note", "note.new", "data.new", "pyramid-x"]}


@pytest.mark.parametrize("link", [*LINKS.values(), the_object], ids=[*LINKS, "the object"])
@pytest.mark.parametrize("running", [True, False], ids=["while serving", "before a start"])
async def test_no_link_is_followed(tmp_path: Path, link: Callable[[Path, Path], None], *, running: bool) -> None:
    directory, precious = tmp_path / "volume", tmp_path / "precious" / "file"
    precious.parent.mkdir()
    precious.write_bytes(b"precious" * 10_000)
    await fill(directory)
    if not running:
        link(directory, precious)
    async with opened(directory) as volume:
        reader = volume.reader(Made({"a": 1}))
        assert await reader.read(A, ALL) == expected(A, ALL)
        if running:
            link(directory, precious)
        assert await reader.read(A, ALL) == expected(A, ALL)
        volume.metadata.put(A, lambda: b"text")
        await volume.metadata.flush()
        await volume.metadata.get([A.url])
        await volume.pyramids.find(A, "pyramid-x")
    verify(directory)
    assert clear(directory).kept == 0
    assert not home(directory).exists()
    assert precious.read_bytes() == b"precious" * 10_000


async def test_a_link_in_place_of_the_ledger_is_replaced(tmp_path: Path) -> None:
    directory, precious = tmp_path / "volume", tmp_path / "precious"
    precious.write_bytes(b"precious" * 10_000)
    await fill(directory)
    (directory / LEDGER_NAME).unlink()
    (directory / LEDGER_NAME).symlink_to(precious)
    await fill(directory)
    assert precious.read_bytes() == b"precious" * 10_000
    assert stat(directory).objects == 1


def replaced(directory: Path) -> None:
    directory.rename(directory.with_name("aside"))
    directory.mkdir()


@pytest.mark.parametrize(
    "remove",
    [
        pytest.param(rmtree, id="the directory"),
        pytest.param(replaced, id="another in its place"),
        pytest.param(lambda directory: (directory / SERVERS_NAME).unlink(), id="the settings"),
    ],
)
async def test_it_is_made_again_when_it_is_removed_while_serving(
    tmp_path: Path, remove: Callable[[Path], object]
) -> None:
    directory, source = tmp_path / "volume", Made({"a": 1})
    async with opened(directory) as first, opened(directory) as second:
        for volume in (first, second):
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
        remove(directory)
        for volume in (first, second):
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
        for volume in (first, second):
            while await volume.disk.guarded(lambda volume=volume: volume.disk.directory.is_lost):  # type: ignore[misc]  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await until(lambda: first.broken is None and second.broken is None)
        for volume in (first, second):
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
        gets = len(source.gets)
        for volume in (first, second):
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
        assert len(source.gets) == gets <= 2
        assert home(directory).exists()
        assert stat(directory).objects == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
async def test_one_that_is_replaced_by_another_user_s_is_passed_by(tmp_path: Path) -> None:
    directory, source = tmp_path / "volume", Made({"a": 1})
    async with opened(directory) as volume:
        rmtree(directory)
        directory.mkdir()
        os.chown(directory, 12345, -1)
        await until(lambda: volume.broken is not None and "belongs to user 12345" in volume.broken)
        assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
        os.chown(directory, 0, -1)
        await until(lambda: volume.broken is None)
