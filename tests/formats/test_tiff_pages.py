"""Pages of a TIFF: which directories are pages, at what cost they are found, and that each has its own pixels."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fixtures.tiff_pages import Page, Placement, put_together
from special import formats
from special.errors import Malformed, NoSuchPage
from special.formats import Layout, PageIndex, drive
from special.formats.parser import solve
from special.geometry import Box, Size
from tests.support.memory import MemorySource

Pixels = npt.NDArray[np.uint8]
REDUCED, PAGE, MASK = 1, 2, 4


def pixels(width: int, height: int, seed: int) -> Pixels:
    """Grey noise, (height, width)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def directory(picture: Pixels, **more: tuple[int, ...]) -> Page:
    """A page of one strip with this picture; `t254=(1,)` and the like add fields."""
    height, width = picture.shape
    fields: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (8,)),
        259: (3, (1,)),
        262: (3, (1,)),
        277: (3, (1,)),
        278: (4, (height,)),
    }
    fields |= {int(name[1:]): (4 if name == "t254" else 3, values) for name, values in more.items()}
    return Page(fields, [picture.tobytes()], tiled=False)


def layout_of(data: bytes, page: int, index: PageIndex | None = None) -> Layout:
    return solve(formats.parse(len(data), page, index), data)


def decoded(data: bytes, layout: Layout) -> Pixels:
    """All of the page, (height, width)."""
    extract = layout.extract(Box.whole(layout.size), layout.size)
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    return np.asarray(Image.open(io.BytesIO(piece.data)))


def count_of(data: bytes) -> int:
    with pytest.raises(NoSuchPage) as caught:
        layout_of(data, 99_999)
    return caught.value.count


@pytest.mark.parametrize(
    ("order", "big", "place"), list(itertools.product(("<", ">"), (False, True), ("front", "between", "back")))
)
def test_each_page_has_its_own_pixels(order: Literal["<", ">"], big: bool, place: Placement) -> None:
    pictures = [pixels(300 - 7 * n, 200 + 3 * n, n) for n in range(5)]
    data = put_together([directory(it) for it in pictures], order=order, big=big, place=place)
    for number, picture in enumerate(pictures, 1):
        layout = layout_of(data, number)
        assert np.array_equal(decoded(data, layout), picture)
        assert np.array_equal(decoded(data, formats.load(layout.dump())), picture)
    with pytest.raises(NoSuchPage, match="no page 6: it has 5 pages"):
        layout_of(data, 6)


FULL, HALF, QUARTER = pixels(400, 320, 1), pixels(200, 160, 2), pixels(100, 80, 3)
OTHER, OTHER_HALF = pixels(400, 320, 4), pixels(200, 160, 5)
SMALL = pixels(123, 45, 6)


@pytest.mark.parametrize(
    ("chain", "pages"),
    [
        pytest.param(
            [directory(FULL), directory(HALF, t254=(REDUCED,)), directory(OTHER), directory(OTHER_HALF, t254=(1,))],
            [(FULL, HALF), (OTHER, OTHER_HALF)],
            id="a level after each page, which says so",
        ),
        pytest.param(
            [directory(FULL), directory(HALF), directory(QUARTER), directory(OTHER), directory(OTHER_HALF)],
            [(FULL, HALF, QUARTER), (OTHER, OTHER_HALF)],
            id="levels that say nothing",
        ),
        pytest.param(
            [directory(FULL, t254=(PAGE,)), directory(HALF, t254=(PAGE,)), directory(QUARTER, t254=(PAGE,))],
            [(FULL,), (HALF,), (QUARTER,)],
            id="pages that look like levels, by NewSubfileType",
        ),
        pytest.param(
            [directory(FULL, t297=(0, 2)), directory(HALF, t297=(1, 2))],
            [(FULL,), (HALF,)],
            id="a page that looks like a level, by PageNumber",
        ),
        pytest.param(
            [directory(FULL), directory(HALF, t254=(PAGE,)), directory(QUARTER, t254=(REDUCED,))],
            [(FULL,), (HALF, QUARTER)],
            id="the level of a page that looks like one",
        ),
        pytest.param(
            [directory(FULL), directory(HALF, t254=(REDUCED,), t297=(1, 2)), directory(OTHER)],
            [(FULL, HALF), (OTHER,)],
            id="a level with a page number",
        ),
        pytest.param(
            [directory(FULL), directory(OTHER, t254=(MASK,)), directory(OTHER)],
            [(FULL,), (OTHER,)],
            id="a mask",
        ),
        pytest.param(
            [directory(FULL), directory(HALF), directory(OTHER_HALF)],
            [(FULL, HALF), (OTHER_HALF,)],
            id="a second picture of a level's size",
        ),
        pytest.param(
            [directory(FULL), directory(HALF, t262=(0,))],
            [(FULL,), (255 - HALF,)],
            id="half the size, in other colours",
        ),
        pytest.param(
            [directory(FULL), directory(SMALL), directory(HALF), directory(OTHER)],
            [(FULL, HALF), (SMALL,), (OTHER,)],
            id="a thumbnail before the levels, as slide scanners have it",
        ),
        pytest.param(
            [directory(SMALL, t254=(REDUCED,)), directory(FULL, t254=(PAGE,)), directory(OTHER, t254=(PAGE,))],
            [(FULL,), (OTHER,)],
            id="a thumbnail in front",
        ),
    ],
)
@pytest.mark.parametrize("place", ["front", "between", "back"])
def test_what_is_a_page_and_what_is_a_level(
    chain: list[Page], pages: list[tuple[Pixels, ...]], place: Placement
) -> None:
    data = put_together(chain, place=place)
    assert count_of(data) == len(pages)
    for number, (full, *levels) in enumerate(pages, 1):
        layout = layout_of(data, number)
        assert layout.levels == tuple(Size(it.shape[1], it.shape[0]) for it in (full, *levels))
        assert np.array_equal(decoded(data, layout), full)


def test_levels_in_sub_directories_belong_to_their_page() -> None:
    first, second = directory(FULL), directory(OTHER)
    first.subs, second.subs = [directory(HALF, t254=(REDUCED,))], [directory(OTHER_HALF, t254=(REDUCED,))]
    alone = directory(HALF)
    data = put_together([first, second, alone])
    found = [layout_of(data, number).levels for number in (1, 2, 3)]
    assert found == [(Size(400, 320), Size(200, 160))] * 2 + [(Size(200, 160),)]
    assert count_of(data) == 3


async def test_a_search_goes_on_from_the_last_one() -> None:
    data = put_together([directory(pixels(200, 200, n)) for n in range(12)], place="between")
    source, index = MemorySource({"a": data}), PageIndex()
    blob = await source.stat("a")

    async def read_for(page: int) -> int:
        before = len(source.calls)
        layout = await drive(formats.parse(blob.size, page, index), source, blob, first_bytes=64, chunk_bytes=64)
        assert np.array_equal(decoded(data, layout), pixels(200, 200, page - 1))
        return len(source.calls) - before

    # The header and each directory on the way; then the page's own with its values, and the next, which may be a level.
    assert [await read_for(page) for page in (8, 9, 9, 3)] == [1 + 8 + 2, 1 + 1 + 2, 1 + 2, 1 + 2]


def test_a_circle_ends() -> None:
    data = bytearray(put_together([directory(pixels(8, 8, n)) for n in range(3)], place="back"))
    (first,) = struct.unpack_from("<I", data, 4)
    at, count = first, 0
    while (following := struct.unpack_from("<I", data, link_at(data, at))[0]) and count < 3:
        at, count = following, count + 1
    struct.pack_into("<I", data, link_at(data, at), first)
    with pytest.raises(Malformed, match="circle"):
        layout_of(bytes(data), 4)
    assert layout_of(bytes(data), 3).size == Size(8, 8)


def link_at(data: bytes | bytearray, at: int) -> int:
    """Where a directory of a classic TIFF names the next one."""
    (entries,) = struct.unpack_from("<H", data, at)
    return at + 2 + 12 * int(entries)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "avif"])
def test_other_formats_have_one_page(kind: str) -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(pixels(20, 10, n)) for n in range(3)]
    frames[0].save(file, kind, **({"save_all": True, "append_images": frames[1:]} if kind == "gif" else {}))
    data = file.getvalue()
    assert layout_of(data, 1).size == Size(20, 10)
    with pytest.raises(NoSuchPage, match=r"no page 2: it has 1 page$"):
        layout_of(data, 2)
