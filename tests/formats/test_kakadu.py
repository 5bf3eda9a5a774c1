"""A master that Kakadu encoded, which no tool of Debian's does: the reference image of the IIIF validator.

It is not ours to ship. The tests take it from `shared/images/` in a folder that this clone lies in:

    python -m pytest -m long tests/formats/test_kakadu.py
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from special import formats
from special.formats import jp2
from special.formats.jp2 import Jp2Layout
from special.formats.layout import Layout
from special.formats.parser import drive, solve
from special.geometry import Box, Size
from special.storage.blob import Span
from special.storage.ranges import read_spans
from tests.formats.test_jp2_oracle import check
from tests.support.memory import MemorySource

NAME = Path("shared") / "images" / "validator-squares.jp2"
FOUND = next((folder / NAME for folder in Path(__file__).parents if (folder / NAME).exists()), None)
HEAD_BYTES = 64 << 10

pytestmark = [pytest.mark.long, pytest.mark.skipif(FOUND is None, reason=f"{NAME} lies in no folder above this clone")]


@pytest.fixture(scope="module")
def data() -> bytes:
    assert FOUND is not None
    return FOUND.read_bytes()


def indexed(data: bytes) -> Jp2Layout:
    """Its layout out of its serial form, with all of its index."""
    layout: Layout = solve(formats.parse(len(data)), data)
    missing = layout.complete()
    layout = solve(missing, data) if missing else layout
    return jp2.load(layout.dump())


def test_what_it_is(data: bytes) -> None:
    layout = indexed(data)
    assert layout.size == Size(1000, 1000)
    assert [size.width for size in layout.levels] == [1000, 500, 250, 125, 63]
    assert layout.advice == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_part_is_exactly_that_part_of_the_whole(data: bytes, seed: int) -> None:
    check(data, count=40, seed=f"kakadu {seed}")


async def cost(data: bytes, layout: Layout | None, box: Box, size: Size) -> tuple[int, int, int]:
    """Round trips, bytes read, and bytes of the packets needed."""
    source = MemorySource({"x": data})
    blob = source.blob("x")
    seen: list[tuple[Span, bytes]] = []
    known = layout or await drive(formats.parse(len(data)), source, blob, seen=seen)
    missing = known.prepare(box, size)
    if missing is not None:
        known = await drive(missing, source, blob, first_bytes=0, chunk_bytes=0, seen=seen)
    extract = known.extract(box, size)
    known.rebuild(extract, await read_spans(source, blob, extract.spans, max_gap_bytes=0, seen=seen))
    reads = [call[2] for call in source.calls if call[0] == "read"]
    read = sum(len(span) for spans in reads for span in spans)  # type: ignore[attr-defined]
    return len(reads), read, sum(len(span) for span in extract.spans)


@pytest.mark.parametrize("level", range(1, 5))
def test_a_small_size_costs_its_packets(data: bytes, level: int) -> None:
    layout = indexed(data)
    whole, size = Box.whole(layout.size), layout.levels[level]
    trips, read, needed = asyncio.run(cost(data, layout, whole, size))
    assert (trips, read) == (1, needed)
    assert needed < len(data)
    trips, read, _ = asyncio.run(cost(data, None, whole, size))
    assert trips == 1
    assert read <= min(len(data), HEAD_BYTES)


def test_a_tile_costs_a_part_of_the_object(data: bytes) -> None:
    box = Box(512, 0, 256, 256)
    trips, read, needed = asyncio.run(cost(data, indexed(data), box, box.size))
    assert (trips, read) == (1, needed)
    assert needed < 0.7 * len(data)  # low resolutions are needed for any part
