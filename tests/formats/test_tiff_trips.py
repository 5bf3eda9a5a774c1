"""How many round trips in series a cold master costs, counted; above all a pyramid as libvips writes it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixtures.tiff_pages import Page, put_together, take_apart
from special import formats
from special.errors import Uncounted
from special.formats.layout import Layout
from special.formats.parser import solve
from special.formats.tiff import ifd_tail
from special.formats.tiff.ifd import header
from special.formats.tiff.ifd_prefetch import MAX_BYTES, ExpectedPyramid
from special.formats.tiff.ifd_tail import LastLevel, expected_directories, last_levels
from special.geometry import Box, Size
from special.images.masters import HEAD_BYTES, TAIL_BYTES, Masters
from special.serving.read_piece import ReadLimits, read_piece
from special.storage.blob import Blob, Span, Suffix, Unless
from special.storage.ranges import read_spans
from special.storage.source import Opened
from tests.support.fakes import CountingSource
from tests.support.live import MASTERS
from tests.support.memory import MemorySource

SIZE = Size(6000, 8000)
THUMBNAIL = Box.whole(SIZE), Size(150, 200)


def photograph(name: str, *, size: Size = SIZE, grain: float = 32.0, **options: object) -> bytes:
    """A sample master in that size and with grain, in a pyramid of 256² tiles."""
    image = pyvips.Image.thumbnail(
        str(MASTERS / name), size.width, height=size.height, size="force", export_profile="srgb"
    )
    noise = pyvips.Image.gaussnoise(size.width, size.height, sigma=grain, mean=0, seed=1)
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


class Together(CountingSource):
    """Answers the head of an object only when its tail has been asked for, too, and the other way round."""

    def __init__(self, source: MemorySource) -> None:
        super().__init__(source)
        self._both = asyncio.Barrier(2)

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        opened = await super().open(key, span=span, pin=pin, unless=unless)
        async with asyncio.timeout(60):  # one that is asked for alone fails
            await self._both.wait()
        return opened


class Uncounting(CountingSource):
    """A store that gives nothing by its place from the end, as Azure's."""

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        if isinstance(span, Suffix):
            raise Uncounted(key)
        return await super().open(key, span=span, pin=pin, unless=unless)


async def cost(source: CountingSource, name: str, box: Box, size: Size) -> tuple[int, int, int]:
    """Round trips in series, GETs and bytes of the first answer from a master that nobody has looked at.

    Of the head and the tail, which are asked for at once, one round trip; see `Together`.
    """
    masters = Masters(source)
    master = await masters.find(name)
    seen = masters.pop_head(master.blob)
    layout = await masters.prepared(master, box, size, source, seen=seen)
    stored = layout.stored(box, size)
    if stored is not None:
        await read_spans(source, master.blob, stored.spans, max_gap_bytes=65536, seen=seen)
    else:
        await read_piece(source, master.blob, layout, box, size, limits=ReadLimits(), seen=seen)
    opened = [span for call in source.of("open") for span in call.spans]
    assert opened in ([Span(0, HEAD_BYTES)], [Span(0, HEAD_BYTES), Suffix(TAIL_BYTES)])
    read = sum(min(len(span), master.blob.size) for span in [*opened, *source.spans()])
    return 1 + len(source.of("read")), source.gets(), read


TILES = [
    pytest.param(Box(2560, 3840, 256, 256), Size(256, 256), id="stored tile at 1:1"),
    pytest.param(Box(2048, 3584, 512, 512), Size(512, 512), id="512 at 1:1"),
    pytest.param(Box(2048, 2048, 1024, 1024), Size(512, 512), id="512 at 1:2"),
    pytest.param(Box(2048, 2048, 2048, 2048), Size(512, 512), id="512 at 1:4"),
    pytest.param(Box(0, 0, 4096, 4096), Size(512, 512), id="512 at 1:8"),
]


@pytest.mark.parametrize(("box", "size"), TILES)
async def test_a_first_tile_costs_three_round_trips(large: bytes, box: Box, size: Size) -> None:
    source = Together(MemorySource({"a.tif": large}))
    trips, gets, read = await cost(source, "a.tif", box, size)
    assert trips <= 3
    assert gets <= 12
    assert read <= 2_000_000


async def test_a_first_thumbnail_costs_two_round_trips(large: bytes) -> None:
    """Its pixels are in the tail. The directories between that and the first one are read beside that."""
    source = Together(MemorySource({"a.tif": large}))
    trips, gets, read = await cost(source, "a.tif", *THUMBNAIL)
    assert (trips, gets) == (2, 5)
    assert read <= HEAD_BYTES + TAIL_BYTES + ifd_tail.MAX_BYTES


async def test_where_nothing_is_counted_from_the_end_the_first_tile_and_thumbnail_cost_four(large: bytes) -> None:
    layout = parsed(large)
    for box, size in [(Box(2560, 3840, 256, 256), Size(256, 256)), THUMBNAIL]:
        source = Uncounting(MemorySource({"a.tif": large}))
        trips, _, read = await cost(source, "a.tif", box, size)
        least = sum(len(span) for span in layout.extract(box, size).spans)
        assert trips <= 4
        assert read <= 1.1 * least + (192 << 10)


@pytest.mark.parametrize("pages", ["chain", "sub-directories", "big", "big sub-directories"])
async def test_every_way_in_which_libvips_links_its_pages(pages: str) -> None:
    """With a profile in every directory, too."""
    of, links = Size(3000, 4000), {"bigtiff": "big" in pages, "subifd": "sub" in pages}
    data = photograph("mountains.jpg", size=of, keep="icc", profile="srgb", **links)
    for trips, box, size in ((3, Box(1024, 1792, 512, 512), Size(512, 512)), (2, Box.whole(of), Size(150, 200))):
        assert (await cost(Together(MemorySource({"a.tif": data})), "a.tif", box, size))[0] == trips


def strips(width: int, height: int) -> bytes:
    """A TIFF as libtiff writes strips: its directory behind them."""
    image = pyvips.Image.gaussnoise(width, height, seed=1).cast("uchar")
    data: bytes = image.tiffsave_buffer(compression="deflate")
    assert header(data[:16])[1] > len(data) - 8192
    return data


def jpeg(width: int, height: int, kind: str = "jpeg") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def others() -> dict[str, bytes]:
    """Masters of other writers than libvips, all longer than a head."""
    pages = take_apart(small())
    found = {
        "front.tif": put_together(pages, place="front"),
        "back.tif": put_together(pages, place="back"),
        "strips.tif": strips(1500, 1100),
        **{name: (MASTERS / name).read_bytes() for name in ("map.jp2", "mosaic.jp2")},
        "noise.jpg": jpeg(800, 600),
        "noise.png": jpeg(800, 600, "png"),
    }
    assert all(len(data) > HEAD_BYTES for data in found.values())
    return found


@pytest.mark.parametrize(
    ("name", "tile", "thumbnail"),
    [
        pytest.param("front.tif", (2, 5), (1, 2), id="TIFF, all directories in front"),
        pytest.param("back.tif", (2, 5), (1, 2), id="TIFF, all directories behind"),
        pytest.param("strips.tif", (2, 3), (2, 3), id="TIFF of strips, directory behind"),
        pytest.param("mosaic.jp2", (2, 2), (2, 2), id="JPEG 2000"),
        pytest.param("map.jp2", (4, 5), (1, 1), id="JPEG 2000 of three tile-parts that no TLM lists"),
        pytest.param("noise.jpg", (2, 2), (2, 2), id="JPEG"),
        pytest.param("noise.png", (2, 3), (2, 3), id="PNG"),
    ],
)
async def test_what_masters_of_others_cost(
    others: dict[str, bytes], name: str, tile: tuple[int, int], thumbnail: tuple[int, int]
) -> None:
    """Round trips in series and GETs, exactly."""
    size = parsed(others[name]).size
    for expected, box, shown in (
        (tile, Box(256, 256, 256, 256), Size(256, 256)),
        (thumbnail, Box.whole(size), Size(size.width // 8, size.height // 8)),
    ):
        source = CountingSource(MemorySource(others))
        trips, gets, _ = await cost(source, name, box, shown)
        assert (trips, gets) == expected


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"Q": 50}, {"Q": 95}, {"subifd": True}], ids=str)
@pytest.mark.parametrize("grain", [0.0, 6.0, 32.0])
@pytest.mark.parametrize("name", ["manuscript.jpg", "moon.jpg", "stars.tif", "mountains.jpg"])
async def test_all_sorts_of_pictures_cost_one_round_trip_more_at_most(
    name: str, grain: float, options: dict[str, object]
) -> None:
    """A guess may miss: then the link leads on, and the next guess knows more. One in four of these costs one more."""
    data = photograph(name, grain=grain, **options)
    for trips, box, size in ((3, Box(2048, 2048, 1024, 1024), Size(512, 512)), (2, *THUMBNAIL)):
        source = CountingSource(MemorySource({"a.tif": data}))
        assert (await cost(source, "a.tif", box, size))[0] <= trips + 1


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
@pytest.mark.parametrize("tail_bytes", [0, 40_000, TAIL_BYTES])
def test_guesses_change_what_is_read_and_nothing_else(change: Callable[[bytes], bytes], tail_bytes: int) -> None:
    """Every directory that the links lead to is found, with its own tiles, wherever it lies."""
    data = change(small())
    layout = solve(formats.parse(len(data), tail_bytes=min(tail_bytes, len(data))), data)
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


def directories(data: bytes) -> list[int]:
    """The offsets of a file's directories, by their links."""
    dialect, at = header(data[:16])
    found = []
    while at:
        found.append(at)
        _, at = dialect.directory(data, at, data_at=0, end=len(data))
    return found


def test_the_end_of_a_file_tells_where_the_directories_between_are(large: bytes) -> None:
    """From the tail the small levels are known; the one above them exactly, those between roughly."""
    dialect, first = header(large[:16])
    at = directories(large)
    known = last_levels(dialect, large[-TAIL_BYTES:], size_bytes=len(large))
    assert [level.at for level in known] == at[-len(known) :]
    assert 1 < len(known) < len(at) - 1
    expected = expected_directories(known, first)
    between = at[1 : -len(known)]
    assert len(expected.others) == len(between)
    for place in between:
        assert any(span.start <= place < span.stop for span in expected.others)
    assert sum(map(len, expected.others)) <= ifd_tail.MAX_BYTES
    assert first + expected.first_bytes >= at[0] + 8 * 768  # the lists of 24 × 32 tiles


def test_an_end_that_is_no_pyramid_tells_nothing(large: bytes) -> None:
    dialect, first = header(large[:16])
    for tail in (bytes(TAIL_BYTES), strips(1500, 1100)[-TAIL_BYTES:], large[:TAIL_BYTES]):
        known = last_levels(dialect, tail, size_bytes=len(large))
        assert expected_directories(known, first).others == []


@pytest.fixture(scope="module")
def medium() -> bytes:
    """A pyramid that is longer than `TAIL_BYTES`, with its first directory in front of that."""
    data = small()
    assert header(data[:16])[1] < len(data) - TAIL_BYTES
    return data


@settings(deadline=None, max_examples=200)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 8000),
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"]),
            ),
        ),
        max_size=6,
    ),
    first=st.integers(32_769, 2**33),
)
def test_whatever_a_tail_says_what_is_read_for_it_is_bounded_and_inside(
    medium: bytes, changes: list[tuple[int, bytes]], first: int
) -> None:
    """Directories at the end that were tampered with: nothing is raised, and no more is read than is allowed."""
    data = bytearray(medium)
    for from_end, value in changes:
        at = len(data) - from_end - len(value)
        data[at : at + len(value)] = value
    dialect, at = header(bytes(data[:16]))
    known = last_levels(dialect, bytes(data[-TAIL_BYTES:]), size_bytes=len(data))
    for place in (at, first):
        expected = expected_directories(known, place)
        assert expected.first_bytes <= ifd_tail.MAX_FIRST_BYTES
        assert sum(map(len, expected.others)) <= ifd_tail.MAX_BYTES
        assert all(place < span.start and span.stop <= len(data) for span in expected.others)


def test_lists_of_millions_of_tiles_are_not_read_at_once() -> None:
    size = Size(60_000, 60_000)
    last = [LastLevel(size, Size(16, 16), 900_000_000, 901_000_000, 8, 1000)]
    expected = expected_directories(last, 500_000_000)
    assert expected.first_bytes == 0
    assert sum(map(len, expected.others)) <= ifd_tail.MAX_BYTES
