"""A slow or hung disk holds no request: a reader that is cancelled leaves at once, and nothing leaks."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from special.storage.blob import Span
from special.volume import Volume
from special.volume.blocks import BlockMap
from special.volume.directory import Step
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected

BLOCK = 64 << 10
MIB = 1 << 20
A = blob("a", 20 * BLOCK)
WANTED = [Span(0, 100)]
NAME, HEAD, PART = "pyramid-x", b"sixteen bytes of", b"part" * 1000


class HungStep:
    """Stops the disk thread before a step, until it is released."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.reached = threading.Event()
        self.released = threading.Event()

    def __call__(self, step: Step) -> None:
        if step == self.step:
            self.reached.set()
            assert self.released.wait(60)


@contextmanager
def hung_threads(volume: Volume) -> Iterator[None]:
    """Every thread of the volume waits for the disk."""
    release = threading.Event()
    waits = [asyncio.create_task(volume.disk.write(release.wait, 60))]
    waits += [asyncio.create_task(volume.disk.read(release.wait, 60)) for _ in range(4)]
    try:
        yield
    finally:
        release.set()


def faults(kind: str) -> float:
    return REGISTRY.get_sample_value("special_volume_faults_total", {"kind": kind}) or 0.0


def open_files(directory: Path) -> list[str]:
    """What this process has open of a volume's objects."""
    gc.collect()  # a pyramid's file is closed with its last reference, which a traceback may have
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.islink(link)]
    return [target for target in targets if target.startswith(str(directory / "objects"))]


async def is_cancelled_at_once(work: Awaitable[object]) -> bool:
    """Whether work that cannot go on ends when its time is over."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await work
    return True


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, linger_s=0.0) as opened:
        yield opened
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("step", ["admit", "create"])
async def test_a_reader_leaves_an_opening_that_hangs(tmp_path: Path, step: Step) -> None:
    hung, source = HungStep(step), Made({"a": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, at=hung) as volume:
        try:
            reading = asyncio.create_task(volume.reader(source).read(A, WANTED))
            await until(hung.reached.is_set)
            assert await is_cancelled_at_once(reading)
            assert source.gets == []
        finally:
            hung.released.set()
        await until(lambda: volume.in_use(A))  # the opening went on, for the next reader
        assert await volume.reader(source).read(A, WANTED) == expected(A, WANTED)
        assert source.gets == [Span(0, BLOCK)]
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("step", ["reserve", "write", "publish", "settle"])
async def test_a_reader_does_not_wait_for_what_it_read_to_be_stored(tmp_path: Path, step: Step) -> None:
    hung, source = HungStep(step), Made({"a": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, at=hung) as volume:
        try:
            assert await volume.reader(source).read(A, WANTED) == expected(A, WANTED)
            await until(hung.reached.is_set)
            assert not next(iter(volume.objects)).idle
        finally:
            hung.released.set()
        await until(lambda: next(iter(volume.objects)).idle)
        assert await volume.reader(source).read(A, WANTED) == expected(A, WANTED)
    assert source.gets == [Span(0, BLOCK)]
    assert open_files(tmp_path) == []


async def test_a_reader_leaves_blocks_that_hang(volume: Volume) -> None:
    source = Made({"a": 1})
    assert await volume.objects.open(A) is not None
    with hung_threads(volume):
        assert await is_cancelled_at_once(volume.reader(source).read(A, WANTED))
        assert not next(iter(volume.objects)).idle  # the thread still reads its files
        assert source.gets == []
    await until(lambda: next(iter(volume.objects)).idle)
    assert await volume.reader(source).read(A, WANTED) == expected(A, WANTED)


async def with_a_pyramid(volume: Volume) -> Span:
    async with volume.pyramids.making(A, NAME, head_bytes=len(HEAD)) as making:
        assert making is not None
        (span,) = await making.append([PART])
        await making.publish(HEAD)
    return span


Request = Callable[[Volume], Awaitable[object]]
REQUESTS: dict[str, Request] = {
    "finding a pyramid": lambda volume: volume.pyramids.find(A, NAME),
    "finding metadata": lambda volume: volume.metadata.get([A.url]),
    "the status": lambda volume: volume.stat(),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
async def test_a_request_leaves_what_hangs(volume: Volume, request_of: Request) -> None:
    await with_a_pyramid(volume)
    volume.metadata.put(A, lambda: b"text")
    await volume.metadata.flush()
    with hung_threads(volume):
        assert await is_cancelled_at_once(request_of(volume))
    assert await request_of(volume) is not None


async def test_what_a_reader_left_is_finished_without_it(volume: Volume, tmp_path: Path) -> None:
    span = await with_a_pyramid(volume)
    assert await volume.pyramids.find(A, NAME) is not None
    path = volume.disk.directory.object_directory(BlockMap.of(A, BLOCK).name) / NAME
    data = bytearray(path.read_bytes())
    data[span.start] ^= 1
    path.write_bytes(data)
    before = faults("corrupt")
    with hung_threads(volume):
        assert await is_cancelled_at_once(volume.pyramids.read(A, [span]))
        assert next(iter(volume.objects)).readers == 1
        assert faults("corrupt") == before
    await until(lambda: next(iter(volume.objects)).readers == 0)
    assert faults("corrupt") == before + 1
    assert not path.exists()
    assert volume.pyramids.peek_file(A) is None


async def test_removing_a_pyramid_can_be_left(volume: Volume) -> None:
    await with_a_pyramid(volume)
    assert await volume.pyramids.find(A, NAME) is not None
    with hung_threads(volume):
        assert await is_cancelled_at_once(volume.pyramids.discard(A))
    await until(lambda: next(iter(volume.objects)).readers == 0)
    assert await volume.pyramids.find(A, NAME) is None


async def test_a_disk_that_stays_stuck_is_passed_by_at_once(tmp_path: Path) -> None:
    source, b = Made({"a": 1, "b": 1}), blob("b", 20 * BLOCK)
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(source)
        assert await reader.read(A, WANTED) == expected(A, WANTED)
        await until(lambda: next(iter(volume.objects)).idle)
        slow, elsewhere = faults("slow"), [Span.at(5 * BLOCK, 10)]
        volume.disk.slow_s = 0.1
        with hung_threads(volume):
            assert await reader.read(b, WANTED) == expected(b, WANTED)  # after slow_s, past the volume
            assert faults("slow") == slow + 1
            await until(lambda: volume.disk.is_stuck)
            assert await reader.read(A, WANTED) == expected(A, WANTED)  # in memory
            assert source.gets == [Span(0, BLOCK), *WANTED]
            assert await reader.read(A, elsewhere) == expected(A, elsewhere)
            assert await volume.metadata.get([A.url]) is None
            assert source.gets == [Span(0, BLOCK), *WANTED, *elsewhere]
        await until(lambda: not volume.disk.is_stuck)
        volume.disk.slow_s = 5.0
        assert await reader.read(A, elsewhere) == expected(A, elsewhere)
        assert source.gets[-1] == Span(5 * BLOCK, 6 * BLOCK)


async def test_blocks_that_take_too_long_come_from_the_source(tmp_path: Path) -> None:
    source = Made({"a": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        assert await volume.objects.open(A) is not None
        slow = faults("slow")
        volume.disk.slow_s = 0.1
        with hung_threads(volume):
            assert await volume.reader(source).read(A, WANTED) == expected(A, WANTED)
            assert faults("slow") == slow + 1
        await until(lambda: next(iter(volume.objects)).idle)
    assert source.gets == [Span(0, BLOCK)]
    assert open_files(tmp_path) == []
