"""How many round trips in series a cold TIFF costs, counted, on pyramids as libvips writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import pyvips

from fixtures.tiff_pages import Page, put_together, take_apart
from special import formats
from special.formats.layout import Layout
from special.formats.parser import solve
from special.formats.tiff.ifd_prefetch import MAX_BYTES, ExpectedPyramid
from special.geometry import Box, Size
from special.images.masters import Masters
from special.serving.read_piece import ReadLimits, read_piece
from special.storage.blob import Span
from special.storage.ranges import read_spans
from tests.support.fakes import CountingSource
from tests.support.live import MASTERS
from tests.support.memory import MemorySource

SIZE = Size(6000, 8000)
THUMBNAIL = Box.whole(SIZE), Size(150, 200)


def photograph(name: str, *, grain: float = 32.0, **options: object) -> bytes:
    """48 megapixels of a sample master with grain, in a pyramid of 256² tiles."""
    image = pyvips.Image.thumbnail(
        str(MASTERS / name), SIZE.width, height=SIZE.height, size="force", export_profile="srgb"
    )
    noise = pyvips.Image.gaussnoise(SIZE.width, SIZE.height, sigma=grain, mean=0, seed=1)
    picture = (
        (image.extract_band(0, n=min(3, image.bands)) + noise)
        .cast("uchar")
        .copy(interpretation="srgb" if image.bands >= 3 else "b-w")
    )
    grid = {"tile": True, "tile_width": 256, "tile_height": 256, "pyramid": True, "keep": "none"}
    data: bytes = picture.tiffsave_buffer(**grid | {"compression": "jpeg", "Q": 85} | options)
    return data


@pytest.fixture(scope="module")
def large() -> bytes:
    return photograph("mountains.jpg")


async def cost(data: bytes, box: Box, size: Size) -> tuple[int, int]:
    """Round trips in series and bytes of the first answer from a master that nobody has looked at."""
    source = CountingSource(MemorySource({"a.tif": data}))
    masters = Masters(source)
    master = await masters.find("a.tif")
    seen = masters.pop_head(master.blob)
    layout = await masters.prepared(master, box, size, source, seen=seen)
    stored = layout.stored(box, size)
    if stored is not None:
        await read_spans(source, master.blob, stored.spans, max_gap_bytes=65536, seen=seen)
    else:
        await read_piece(source, master.blob, layout, box, size, limits=ReadLimits(), seen=seen)
    assert len(layout.levels) == 6
    spans = [span for call in source.calls for span in call.spans]
    return len(source.calls), sum(min(len(span), len(data)) for span in spans)


@pytest.mark.parametrize(
    ("box", "size"),
    [
        pytest.param(Box(2560, 3840, 256, 256), Size(256, 256), id="stored tile at 1:1"),
        pytest.param(Box(2048, 3584, 512, 512), Size(512, 512), id="512 at 1:1"),
        pytest.param(Box(2048, 2048, 1024, 1024), Size(512, 512), id="512 at 1:2"),
        pytest.param(Box(2048, 2048, 2048, 2048), Size(512, 512), id="512 at 1:4"),
        pytest.param(Box(0, 0, 4096, 4096), Size(512, 512), id="512 at 1:8"),
    ],
)
async def test_a_first_tile_costs_four_round_trips(large: bytes, box: Box, size: Size) -> None:
    trips, read = await cost(large, box, size)
    assert trips <= 4
    assert read <= 1_500_000


async def test_a_first_thumbnail_costs_four_round_trips_and_little_more_than_its_pixels(large: bytes) -> None:
    trips, read = await cost(large, *THUMBNAIL)
    layout = parsed(large)
    least = sum(len(span) for span in layout.extract(*THUMBNAIL).spans)
    assert trips <= 4
    assert read <= 1.1 * least + (128 << 10)


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"Q": 50}, {"Q": 95}, {"subifd": True}], ids=str)
@pytest.mark.parametrize("grain", [0.0, 6.0, 32.0])
@pytest.mark.parametrize("name", ["manuscript.jpg", "moon.jpg", "stars.tif", "mountains.jpg"])
async def test_all_sorts_of_pictures_cost_six_round_trips_at_most(
    name: str, grain: float, options: dict[str, object]
) -> None:
    """A guess may miss: then the link leads on, and the next guess knows more. One in ten of these takes six."""
    data = photograph(name, grain=grain, **options)
    for box, size in ((Box(2048, 2048, 1024, 1024), Size(512, 512)), THUMBNAIL):
        assert (await cost(data, box, size))[0] <= 6


def parsed(data: bytes) -> Layout:
    return solve(formats.parse(len(data)), data)


def small(**options: object) -> bytes:
    noise = pyvips.Image.gaussnoise(1500, 1100, seed=1).cast("uchar")
    grid = {"tile": True, "tile_width": 64, "tile_height": 64, "pyramid": True}
    data: bytes = noise.tiffsave_buffer(compression="jpeg", **grid | options)
    return data


def padded(pages: list[Page]) -> list[Page]:
    """The third level's tiles ten times as long: what follows is not where it is looked for."""
    return [
        replace(page, tiles=[tile + bytes(9 * len(tile)) for tile in page.tiles] if number == 2 else page.tiles)
        for number, page in enumerate(pages)
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data, id="as it is"),
        pytest.param(lambda data: put_together(padded(take_apart(data)), place="between"), id="where none is expected"),
        pytest.param(lambda data: put_together(take_apart(data), place="front"), id="all in front"),
        pytest.param(lambda data: put_together(take_apart(data), place="back"), id="all at the end"),
        pytest.param(lambda data: put_together(take_apart(data)[:3], place="between"), id="too few of them"),
    ],
)
def test_guesses_change_what_is_read_and_nothing_else(change: Callable[[bytes], bytes]) -> None:
    """Every directory that the links lead to is found, with its own tiles, wherever it lies."""
    data = change(small())
    layout = parsed(data)
    pages = take_apart(data)
    assert len(layout.levels) == len(pages)
    for level, page in zip(layout.levels, pages, strict=True):
        box = Box.whole(layout.size)
        spans = layout.extract(box, level).spans
        assert sum(len(span) for span in spans) == sum(map(len, page.tiles))


def test_where_the_next_directories_should_lie() -> None:
    pyramid = ExpectedPyramid.of(Size(6144, 8192), Size(256, 256), number_bytes=8)
    assert pyramid.tiles == (768, 192, 48, 12, 4, 1)
    links = [24_000_000, 30_000_000]  # a quarter of the bytes for a quarter of the pixels
    size_bytes = 32_000_000
    third, fourth, *_, last = pyramid.offsets(links, size_bytes=size_bytes)
    assert third == pytest.approx(31_500_000, rel=0.001)
    assert fourth == pytest.approx(31_875_000, rel=0.001)
    assert last == size_bytes - pyramid.directory_bytes(5)
    windows = pyramid.windows(links, size_bytes=size_bytes, tail=size_bytes - 32768)
    assert any(window.covers(Span.at(third, pyramid.directory_bytes(2))) for window in windows)
    assert sum(len(window) for window in windows) <= MAX_BYTES


@pytest.mark.parametrize(
    "links",
    [
        pytest.param([24_000_000, 24_004_000], id="one behind the other"),
        pytest.param([8, 4_000], id="at the front"),
        pytest.param([24_000_000, 8_000_000], id="backwards"),
        pytest.param([8_000_000, 31_000_000], id="a large one after a small one"),
        pytest.param([24_000_000, 25_000_000], id="a quarter as wide"),
    ],
)
def test_nothing_is_guessed_where_pages_do_not_follow_each_other(links: list[int]) -> None:
    pyramid = ExpectedPyramid.of(Size(6000, 8000), Size(256, 256), number_bytes=8)
    assert pyramid.offsets(links, size_bytes=32_000_000) == []
