"""Pyramids as the volume has them: whole or not there, checked, counted, evicted, made once."""

import asyncio
import hashlib
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from special.storage.blob import Blob, Span
from special.volume import Elsewhere, NoSpace, PackFile, PyramidWriter, Verified, Volume, stat, verify
from special.volume.blocks import BlockMap, Damaged
from special.volume.directory import VolumeDirectory
from special.volume.pack_file import NAMES, NEW, PackDraft, PackWriter
from tests.support.waiting import until
from tests.volume.made import Made, blob, surely_taken_bytes, taken_bytes
from tests.volume.sketcher import PARTS, SIZE_BYTES, A

HERE = Path(__file__).parents[2]
NAME = "pyramid-x"
HEAD = b"sixteen bytes of"
MIB = 1 << 20


async def make(volume: Volume, of: Blob = A, parts: list[bytes] = PARTS, name: str = NAME) -> list[Span]:
    async with volume.pyramids.making(of, name, head_bytes=len(HEAD)) as making:
        assert making is not None
        spans = await making.append(parts)
        await making.publish(HEAD)
    assert await volume.pyramids.find(of, name) is not None
    return spans


async def is_offered(volume: Volume, of: Blob = A, name: str = NAME) -> bool:
    """Whether this volume would make one now. Raises `Elsewhere`."""
    async with volume.pyramids.making(of, name, head_bytes=len(HEAD)) as making:
        return making is not None


async def is_made_elsewhere(volume: Volume) -> bool:
    try:
        await is_offered(volume)
    except Elsewhere:
        return True
    return False


@asynccontextmanager
async def opened(directory: Path, count: int = 1, size_bytes: int = SIZE_BYTES) -> AsyncIterator[list[Volume]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Volume(directory, size_bytes=size_bytes)) for _ in range(count)]


def home(directory: Path, of: Blob = A) -> Path:
    return VolumeDirectory(directory, at=lambda step: None).object_directory(BlockMap.of(of, 64 << 10).name)


def weight(directory: Path) -> int:
    """What the ledger says that the one object takes."""
    (entry,) = stat(directory).top
    return entry.disk_bytes


async def test_what_is_published_is_read_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as (volume,):
        spans = await make(volume)
        assert spans == [Span.at(16 + n * 300_000, 300_000) for n in range(4)]
        assert await volume.pyramids.read(A, [Span(0, 16), *spans]) == [HEAD, *PARTS]
        assert volume.pyramids.peek(A, spans[2]) == PARTS[2]
        assert volume.pyramids.peek(A, Span(spans[1].start, spans[2].stop)) == PARTS[1] + PARTS[2]
        parts = volume.pyramids.peek_file(A)
        assert parts is not None
        assert (len(parts), parts.size_bytes, parts.last) == (5, 16 + 1_200_000, spans[3])
        assert parts.before(spans[3].start) == spans[2]
    async with opened(tmp_path) as (volume,):
        assert volume.pyramids.peek_file(A) is None
        assert await volume.pyramids.find(A, NAME) is not None
        assert volume.pyramids.peek(A, spans[0]) == PARTS[0]


async def test_one_makes_it_and_others_find_it(tmp_path: Path) -> None:
    async with opened(tmp_path, 2) as (one, other):
        async with one.pyramids.making(A, NAME, head_bytes=16) as making:
            assert making is not None
            await making.append(PARTS)
            assert await is_made_elsewhere(other)
            assert await is_made_elsewhere(one)
            assert await other.pyramids.find(A, NAME) is None
            await making.publish(HEAD)
        assert await other.pyramids.find(A, NAME) is not None
        assert not await is_offered(other)
        assert await other.pyramids.find(A, "pyramid-by-other-settings") is None


async def test_parts_with_a_name_are_read_by_others_while_it_is_made(tmp_path: Path) -> None:
    async with opened(tmp_path, 2) as (one, other):
        assert await other.pyramids.find_draft(A, NAME) is None
        async with one.pyramids.making(A, NAME, head_bytes=16) as making:
            assert making is not None
            draft = await other.pyramids.find_draft(A, NAME)
            assert draft is not None
            assert draft.parts == {}
            await making.append(PARTS[:3], [b"a", b"", b"c"])
            draft = await other.pyramids.find_draft(A, NAME)
            assert draft is not None
            read = [await other.pyramids.read_draft(A, draft, name) for name in (b"a", b"b", b"c")]
            assert read == [PARTS[0], None, PARTS[2]]
            assert await other.pyramids.find_draft(A, "pyramid-by-other-settings") is None
            await making.append(PARTS[3:], [b"d"])
            draft = await other.pyramids.find_draft(A, NAME)
            assert draft is not None
            assert await other.pyramids.read_draft(A, draft, b"d") == PARTS[3]
            await making.publish(HEAD)
        assert await other.pyramids.read_draft(A, draft, b"d") is None, "it is read from the whole file from now on"
        assert await other.pyramids.find_draft(A, NAME) is None
        assert sorted(path.name for path in home(tmp_path).iterdir()) == ["data", "map", NAME]


async def test_one_by_other_settings_takes_its_place(tmp_path: Path) -> None:
    async with opened(tmp_path) as (volume,):
        await make(volume)
        await make(volume, name="pyramid-y")
        assert sorted(path.name for path in home(tmp_path).iterdir()) == ["data", "map", "pyramid-y"]


@pytest.mark.parametrize("fault", ["given up", "failed"])
async def test_what_is_not_published_leaves_nothing(tmp_path: Path, fault: str) -> None:
    async with opened(tmp_path) as (volume,):
        await volume.objects.open(A)
        before = weight(tmp_path)

        async def attempt() -> None:
            async with volume.pyramids.making(A, NAME, head_bytes=16) as making:
                assert making is not None
                await making.append(PARTS)
                assert weight(tmp_path) >= before + 1_200_000
                if fault == "failed":
                    raise ArithmeticError
                await asyncio.sleep(600)

        task = asyncio.create_task(attempt())
        await until(lambda: weight(tmp_path) > before or task.done())
        if fault == "given up":
            task.cancel()
        with pytest.raises(ArithmeticError if fault == "failed" else asyncio.CancelledError):
            await task
        assert sorted(path.name for path in home(tmp_path).iterdir()) == ["data", "map"]
        assert weight(tmp_path) == before
        assert await is_offered(volume)


async def append_for_ever(making: PyramidWriter, directory: Path) -> None:
    while True:
        await making.append(PARTS)
        assert taken_bytes(directory) <= 8 * MIB


async def test_one_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, size_bytes=8 * MIB) as (volume,):
        with pytest.raises(NoSpace):
            await make(volume, parts=PARTS * 6)
        async with volume.pyramids.making(A, NAME, head_bytes=16) as making:
            assert making is not None
            with pytest.raises(NoSpace):
                await append_for_ever(making, tmp_path)
            assert taken_bytes(tmp_path) <= 8 * MIB
        assert [path.name for path in home(tmp_path).glob("pyramid*")] == []
        assert weight(tmp_path) < 1_000_000


async def test_it_is_evicted_with_its_object(tmp_path: Path) -> None:
    others = {f"{n}": 2 * MIB for n in range(8)}
    async with opened(tmp_path, 2, size_bytes=12 * MIB) as (volume, beside):
        spans = await make(volume)
        await beside.pyramids.find(A, NAME)
        assert weight(tmp_path) > 1_200_000
        reader = volume.reader(Made(dict.fromkeys(others, 1)))
        opened_objects = [each.objects.get(A) for each in (volume, beside)]
        for each in opened_objects:
            assert each is not None
            each.files.release()  # as maintenance does, a second after it was read
        for key, size_bytes in others.items():
            await reader.read(blob(key, size_bytes), [Span(0, size_bytes)])
            assert surely_taken_bytes(tmp_path) <= 12 * MIB
        assert not home(tmp_path).exists()
        for each in (volume, beside):
            assert each.pyramids.peek_file(A) is None
            assert await each.pyramids.read(A, spans) is None
            assert await each.pyramids.find(A, NAME) is None


async def test_one_that_is_made_or_read_is_not_evicted(tmp_path: Path) -> None:
    others = {f"{n}": 2 * MIB for n in range(8)}
    async with opened(tmp_path, size_bytes=12 * MIB) as (volume,):
        async with volume.pyramids.making(A, NAME, head_bytes=16) as making:
            assert making is not None
            await making.append(PARTS)
            for key, size_bytes in others.items():
                await volume.reader(Made(dict.fromkeys(others, 1))).read(blob(key, size_bytes), [Span(0, size_bytes)])
            await making.publish(HEAD)
        assert await volume.pyramids.find(A, NAME) is not None


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda data: data[:500_000] + b"!" + data[500_001:], id="a wrong byte"),
        pytest.param(lambda data: data[:500_000], id="cut off"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:16] + bytes(len(data) - 16), id="a hole"),
    ],
)
async def test_a_broken_one_is_removed_and_made_again(tmp_path: Path, break_it: type) -> None:
    async with opened(tmp_path, 2) as (volume, fresh):
        spans = await make(volume)
        path = home(tmp_path) / NAME
        path.write_bytes(break_it(path.read_bytes()))
        # One that has it open finds out when it reads the part, one that opens it by the table or when it reads.
        await fresh.pyramids.find(A, NAME)
        assert volume.pyramids.peek(A, spans[1]) is None
        assert await volume.pyramids.read(A, spans) is None
        assert await fresh.pyramids.read(A, spans) is None
        assert not path.exists()
        assert volume.pyramids.peek_file(A) is None
        await make(volume)
        assert await volume.pyramids.read(A, spans) == PARTS


async def test_one_of_another_object_is_not_believed(tmp_path: Path) -> None:
    other = blob("b", 1000)
    async with opened(tmp_path) as (volume,):
        await make(volume)
        assert await volume.pyramids.find(other, NAME) is None
        (home(tmp_path, other) / NAME).write_bytes((home(tmp_path) / NAME).read_bytes())
        assert await volume.pyramids.find(other, NAME) is None
        assert not (home(tmp_path, other) / NAME).exists()


async def test_verify_reads_pyramids_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as (volume,):
        await make(volume)
        assert verify(tmp_path) == Verified(1, 0, 0, 0, pyramids=1)
        path = home(tmp_path) / NAME
        with path.open("r+b") as file:
            file.seek(700_000)
            file.write(b"wrong")
        found = verify(tmp_path)
        assert found == Verified(1, 0, 0, 0, dropped_pyramids=1)
        assert not found.sound
        assert verify(tmp_path).sound
        assert weight(tmp_path) < 1_000_000


@pytest.mark.service
async def test_killed_in_the_middle_leaves_nothing_half_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.volume.sketcher", str(tmp_path)]
    victim = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=HERE)
    try:
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"sketched\n"
        async with opened(tmp_path) as (volume,):
            assert await is_made_elsewhere(volume)
            victim.kill()
            await victim.wait()
            assert await volume.pyramids.find(A, NAME) is None
            spans = await make(volume)
            assert await volume.pyramids.read(A, spans) == PARTS
    finally:
        if victim.returncode is None:
            victim.kill()
            await victim.wait()


@pytest.mark.service
async def test_the_first_to_come_clears_up_what_the_dead_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.volume.sketcher", str(tmp_path)]
    victim = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=HERE)
    try:
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"sketched\n"
    finally:
        victim.kill()
        await victim.wait()
    assert sorted(path.name for path in home(tmp_path).glob("pyramid*")) == [NAME + NAMES + NEW, NAME + NEW]
    async with opened(tmp_path):
        assert [path.name for path in home(tmp_path).glob("pyramid*")] == []
        assert weight(tmp_path) < 1_000_000


def test_the_format_on_disk(tmp_path: Path) -> None:
    """Golden: a change of it must change its magic."""
    draft = PackWriter(tmp_path / NAME, b"d" * 32, head_bytes=4)
    draft.append([b"one", b"three"])
    draft.seal(b"head")
    assert not (tmp_path / NAME).exists()
    draft.publish()
    draft.close()
    data = (tmp_path / NAME).read_bytes()
    assert data[:12] == b"headonethree"
    assert data[36:52] == b"special-parts\0\0\1"
    assert hashlib.sha256(data).hexdigest() == "d21a00812885ad6161d86e4e1fe9041f049530acef5019d965165c318d5aa572"
    parts = PackFile.open(tmp_path / NAME, b"d" * 32)
    assert parts is not None
    parts.check()
    with pytest.raises(Damaged, match="another object"):
        PackFile.open(tmp_path / NAME, b"e" * 32)
    with pytest.raises(Damaged, match="byte 1"):
        parts.read(Span(1, 4))


def test_the_format_of_names_on_disk(tmp_path: Path) -> None:
    """Golden: a change of it must change its magic."""
    path, digest = tmp_path / NAME, b"d" * 32
    draft = PackWriter(path, digest, head_bytes=4)
    draft.append([b"one", b"two", b"three"], [b"first", b"", b"third"])
    draft.append([b"four"], [b"fourth"])
    names = path.with_name(NAME + NAMES + NEW)
    data = names.read_bytes()
    assert (data[:16], len(data)) == (b"special-draft\0\0\1", 16 + 3 * 32)
    assert hashlib.sha256(data).hexdigest() == "65e67cc2150d6265d7f8320d79b36953da77e01b9fe5a168b8c0575a18b99808"
    whole = PackDraft.open(path, digest)
    assert whole is not None
    assert [whole.read(name) for name in (b"first", b"third", b"fourth")] == [b"one", b"three", b"four"]
    other = PackDraft.open(path, b"e" * 32)
    assert other is not None
    assert other.read(b"first") is None, "of another object"
    names.write_bytes(data[:-1])
    cut = PackDraft.open(path, digest)
    assert cut is not None
    assert (cut.read(b"third"), b"fourth" in cut) == (b"three", False)
    names.write_bytes(data.replace(b"first", b"worst"))
    wrong = PackDraft.open(path, digest)
    assert wrong is not None
    assert wrong.read(b"worst") is None
    path.with_name(NAME + NEW).write_bytes(b"headon")
    assert whole.read(b"first") is None, "begun again"
    names.write_bytes(b"special-draft\0\0\2" + data[16:])
    assert PackDraft.open(path, digest) is None, "of another version"
    draft.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_can_be_read_until_it_is_closed(tmp_path: Path) -> None:
    draft = PackWriter(tmp_path / "pyramid", b"digest", head_bytes=4)
    draft.append([b"first", b"second"])
    assert draft.read(Span(4, 9)) == b"first"
    draft.seal(b"head")
    draft.publish()
    assert draft.read(Span(4, 9)) == b"first"
    draft.close()
    assert (tmp_path / "pyramid").exists()
    (tmp_path / "other").write_bytes(b"another file, which may get the same descriptor")
    with (tmp_path / "other").open("rb"):
        assert draft.read(Span(4, 9)) is None
