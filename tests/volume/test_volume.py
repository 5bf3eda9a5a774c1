import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from special.errors import ConfigurationError
from special.storage.blob import Blob, Span
from special.volume import Volume, admin
from tests.volume.made import Made, blob, expected

BLOCK = 64 << 10
MIB = 1 << 20


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    async with Volume(tmp_path / "volume", size_bytes=16 * MIB, block_bytes=BLOCK) as opened:
        yield opened


SPANS = {
    "first-byte": [Span(0, 1)],
    "inside-a-block": [Span(100, 5000)],
    "whole-block": [Span(BLOCK, 2 * BLOCK)],
    "across-an-edge": [Span(BLOCK - 1, BLOCK + 1)],
    "across-three": [Span(BLOCK - 1, 3 * BLOCK + 7)],
    "last-byte": [Span(999_999, 1_000_000)],
    "all": [Span(0, 1_000_000)],
    "unsorted": [Span(500_000, 500_100), Span(7, 9)],
    "twice": [Span(7, 9), Span(7, 9)],
    "overlapping": [Span(0, BLOCK), Span(100, BLOCK + 100)],
    "none": [],
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
async def test_gives_exactly_the_bytes_of_the_source_cold_and_warm(volume: Volume, spans: list[Span]) -> None:
    source = Made({"a": 1})
    reader, a = volume.reader(source), blob("a", 1_000_000)
    assert await reader.read(a, spans) == expected(a, spans)
    gets = len(source.gets)
    assert await reader.read(a, spans) == expected(a, spans)
    assert len(source.gets) == gets


async def test_adjacent_missing_blocks_are_one_get(volume: Volume) -> None:
    source = Made({"a": 1})
    reader, a = volume.reader(source), blob("a", 10 * BLOCK + 5)
    await reader.read(a, [Span(3 * BLOCK, 4 * BLOCK)])
    await reader.read(a, [Span(0, a.size)])
    assert sorted(source.gets) == [
        Span(0, 3 * BLOCK),
        Span(3 * BLOCK, 4 * BLOCK),
        Span(4 * BLOCK, a.size),
    ]


async def test_a_thousand_readers_of_one_cold_object_get_each_block_once(volume: Volume) -> None:
    async def pause(*_: object) -> None:
        await asyncio.sleep(0.02)

    source = Made({"a": 1}, before=pause)
    reader, a = volume.reader(source), blob("a", 64 * BLOCK)
    spans = [[Span.at(n % 50 * BLOCK, 12_000), Span.at(n % 7 * BLOCK, 10)] for n in range(1000)]
    answers = await asyncio.gather(*(reader.read(a, wanted) for wanted in spans))
    assert answers == [expected(a, wanted) for wanted in spans]
    fetched = [index for span in source.gets for index in range(span.start // BLOCK, span.stop // BLOCK)]
    assert sorted(fetched) == list(range(50))


async def test_an_object_larger_than_the_volume_goes_past_it(volume: Volume) -> None:
    source = Made({"a": 1})
    reader, a = volume.reader(source), blob("a", 100 * MIB)
    wanted = [Span(5, 10), Span(70 * MIB, 70 * MIB + 5)]
    assert await reader.read(a, wanted) == expected(a, wanted)
    assert source.gets == wanted


class Zeros:
    """A store that has an object of the same name, entity tag and length as another's."""

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        return [bytes(len(span)) for span in spans]


async def test_stores_that_share_a_volume_and_the_name_of_a_bucket_are_kept_apart(tmp_path: Path) -> None:
    a, spans = blob("a", 1_000_000), SPANS["across-three"]
    async with (
        Volume(tmp_path, size_bytes=16 * MIB, name_of=lambda url: f"http://one:9000 {url}") as one,
        Volume(tmp_path, size_bytes=16 * MIB) as other,
    ):
        assert await other.read(Zeros(), a, spans) == [bytes(len(span)) for span in spans]
        assert await one.read(Made({"a": 1}), a, spans) == expected(a, spans)
        gone = Made()  # what follows is read from the disk alone
        assert await other.read(gone, a, spans) == [bytes(len(span)) for span in spans]
        assert await one.read(gone, a, spans) == expected(a, spans)
        other.metadata.put(a, lambda: b"of the other")
        await other.metadata.flush()
        assert await one.metadata.get([a.url]) is None
        assert admin.find(tmp_path, a.url, keys=[]) == [f"http://one:9000 {a.url}", a.url]
        async with asyncio.timeout(60):
            while admin.find(tmp_path, a.url, keys=[]) != [a.url]:
                await one.remove(a.url)  # but while it is being read
        assert await other.read(gone, a, spans) == [bytes(len(span)) for span in spans]


async def test_what_is_stored_survives_a_restart(tmp_path: Path) -> None:
    source, a = Made({"a": 1}), blob("a", 1_000_000)
    for _ in range(2):
        async with Volume(tmp_path, size_bytes=16 * MIB) as volume:
            assert await volume.reader(source).read(a, [Span(0, 9)]) == expected(a, [Span(0, 9)])
    assert len(source.gets) == 1


@pytest.mark.parametrize(
    ("size_bytes", "block_bytes"),
    [pytest.param(1000, BLOCK, id="volume-too-small"), pytest.param(16 * MIB, 1000, id="block-not-in-pages")],
)
async def test_refuses_settings_that_cannot_work(tmp_path: Path, size_bytes: int, block_bytes: int) -> None:
    with pytest.raises(ConfigurationError):
        Volume(tmp_path, size_bytes=size_bytes, block_bytes=block_bytes)
