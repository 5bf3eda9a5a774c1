"""Metadata as the volume has it: found by its object's URL, checked, counted, evicted with the object."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from special.observability.metrics import VOLUME_FAULTS
from special.storage.blob import Blob, Span
from special.volume import StoredMetadata, Verified, Volume, stat, verify
from special.volume.blocks import BlockMap
from special.volume.directory import VolumeDirectory
from special.volume.metadata import MAGIC, MAX_BYTES, NAME
from tests.volume.made import Made, blob, surely_taken_bytes, taken_bytes

MIB = 1 << 20
A, B = blob("a", 3 * MIB), blob("b", MIB)
TEXT = bytes(range(256)) * 40


def opened(directory: Path, size_bytes: int = 16 * MIB) -> Volume:
    return Volume(directory, size_bytes=size_bytes)


def path_of(directory: Path, of: Blob = A) -> Path:
    return VolumeDirectory(directory, at=lambda step: None).object_directory(BlockMap.of(of, 64 << 10).name) / NAME


async def store(volume: Volume, of: Blob = A, text: bytes = TEXT) -> None:
    volume.metadata.put(of, lambda: text)
    await volume.metadata.flush()


def corrupt() -> float:
    return VOLUME_FAULTS.labels("corrupt")._value.get()


async def test_pages_have_notes_of_their_own_and_go_with_the_object(tmp_path: Path) -> None:
    pages = [replace(A, page=number) for number in (1, 2, 12)]
    other = replace(B, key=f"{A.key}#pages")
    async with opened(tmp_path) as volume:
        for page in (*pages, other):
            await store(volume, page, f"page {page.page}".encode())
        for page in pages:
            stored = await volume.metadata.get([A.url], page.page)
            assert stored == StoredMetadata(A.url, A.etag, A.size, f"page {page.page}".encode())
        assert await volume.metadata.get([A.url], 3) is None
        await volume.remove(A.url)
        assert [await volume.metadata.get([A.url], page.page) for page in pages] == [None] * 3
        assert await volume.metadata.get([other.url]) is not None


async def test_what_is_noted_is_recalled_by_url_here_in_another_process_and_after_a_restart(tmp_path: Path) -> None:
    stored = StoredMetadata(A.url, A.etag, A.size, TEXT)
    async with opened(tmp_path) as volume:
        assert await volume.metadata.get([A.url]) is None
        await store(volume)
        assert await volume.metadata.get([A.url]) == stored
        async with opened(tmp_path) as beside:
            assert await beside.metadata.get([B.url, A.url]) == stored
    async with opened(tmp_path) as again:
        assert await again.metadata.get([A.url]) == stored
        assert await again.metadata.get([B.url]) is None


async def test_another_text_takes_its_place(tmp_path: Path) -> None:
    async with opened(tmp_path) as volume:
        await store(volume)
        await store(volume, text=b"more")
        stored = await volume.metadata.get([A.url])
        assert stored is not None
        assert stored.text == b"more"
        assert sorted(path.name for path in path_of(tmp_path).parent.iterdir()) == ["data", "map", NAME]


async def test_of_many_in_a_row_the_last_one_stays(tmp_path: Path) -> None:
    made: list[int] = []

    def text(number: int) -> bytes:
        made.append(number)
        return b"%d" % number

    async with opened(tmp_path) as volume:
        for number in range(100):
            volume.metadata.put(A, lambda number=number: text(number))
        await volume.metadata.flush()
        stored = await volume.metadata.get([A.url])
    assert stored is not None
    assert stored.text == b"99"
    assert made == [99]


async def test_the_same_text_is_not_written_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as volume:
        await store(volume)
        inode = path_of(tmp_path).stat().st_ino
        await store(volume)
        assert path_of(tmp_path).stat().st_ino == inode


async def test_the_version_that_was_read_last_is_recalled(tmp_path: Path) -> None:
    newer = blob("a", 2 * MIB, version=2)
    async with opened(tmp_path) as volume:
        await store(volume)
        await store(volume, newer, b"newer")
        assert await volume.metadata.get([A.url]) == StoredMetadata(A.url, newer.etag, newer.size, b"newer")


async def test_metadata_is_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as volume:
        await store(volume, text=b"")
        (before,) = stat(tmp_path).top
        await store(volume, text=bytes(300_000))
        (after,) = stat(tmp_path).top
        assert 296_000 <= after.disk_bytes - before.disk_bytes <= 310_000
        assert taken_bytes(tmp_path) <= stat(tmp_path).disk_bytes


async def test_metadata_is_evicted_with_its_object(tmp_path: Path) -> None:
    others = {f"{number}": 2 * MIB for number in range(8)}
    async with opened(tmp_path, 12 * MIB) as volume:
        await store(volume)
        open_object = volume.objects.get(A)
        assert open_object is not None
        open_object.files.release()  # as maintenance does, a second after it was read
        reader = volume.reader(Made(dict.fromkeys(others, 1)))
        for key, size_bytes in others.items():
            await reader.read(blob(key, size_bytes), [Span(0, size_bytes)])
            assert surely_taken_bytes(tmp_path) <= 12 * MIB
        assert not path_of(tmp_path).exists()
        assert await volume.metadata.get([A.url]) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + 50] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


def age(path: Path) -> None:
    path.write_bytes(b"special-note\0\0\0\0" + path.read_bytes()[len(MAGIC) :])


@pytest.mark.parametrize("damage", [flip, cut, age])
async def test_broken_metadata_is_none_and_is_counted(tmp_path: Path, damage: type) -> None:
    async with opened(tmp_path) as volume:
        await store(volume)
        damage(path_of(tmp_path))
        before = corrupt()
        assert await volume.metadata.get([A.url]) is None
        assert corrupt() == before + 1
        assert verify(tmp_path) == Verified(1, 0, 0, 0, dropped_notes=1)
        assert verify(tmp_path) == Verified(1, 0, 0, 0)
        await store(volume)
        assert (await volume.metadata.get([A.url])) is not None


async def test_metadata_of_another_object_is_not_believed(tmp_path: Path) -> None:
    async with opened(tmp_path) as volume:
        await store(volume)
        await store(volume, B)
        path_of(tmp_path, B).write_bytes(path_of(tmp_path, A).read_bytes())
        assert await volume.metadata.get([B.url]) is None


async def test_what_is_too_long_or_has_no_room_is_not_noted(tmp_path: Path) -> None:
    async with opened(tmp_path, 8 * MIB) as volume:
        await store(volume, text=bytes(MAX_BYTES + 1))
        assert await volume.metadata.get([A.url]) is None
        huge = blob("huge", 100 * MIB)
        await store(volume, huge)
        assert await volume.metadata.get([huge.url]) is None
        assert taken_bytes(tmp_path) <= 8 * MIB


async def test_a_volume_that_is_not_open_or_broken_notes_nothing(tmp_path: Path) -> None:
    volume = opened(tmp_path / "never")
    volume.metadata.put(A, lambda: TEXT)
    await volume.metadata.flush()
    assert await volume.metadata.get([A.url]) is None
    (tmp_path / "file").write_text("in the way")
    async with opened(tmp_path / "file") as broken:
        await store(broken)
        assert await broken.metadata.get([A.url]) is None


async def test_closing_waits_for_the_text_that_is_being_written_and_for_no_other(tmp_path: Path) -> None:
    started, allowed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> bytes:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(allowed.wait(), loop).result()
        return TEXT

    async with opened(tmp_path) as volume:
        volume.metadata.put(A, slow)
        volume.metadata.put(B, lambda: TEXT)
        await started.wait()
        loop.call_later(0.01, allowed.set)
    async with opened(tmp_path) as again:
        assert await again.metadata.get([A.url]) is not None
        assert await again.metadata.get([B.url]) is None
