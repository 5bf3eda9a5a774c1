"""Some tiles of a TIFF, rebuilt and decoded, are exactly that part of the whole file decoded."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from fixtures.make_tiff import Encoding, encodings
from special import formats
from special.errors import Unsupported
from special.geometry import Box, Frame, Orientation, Size
from special.layout import Layout
from special.spans import Span, solve

ALL = list(encodings())
COMMON = [encoding for encoding in ALL if encoding.is_common]
Pixels = npt.NDArray[np.generic]


def full_decodes(data: bytes) -> dict[tuple[int, int], Pixels]:
    """Every page and sub-directory of the file as libvips gives it: (height, width, bands), by width and height."""
    found: dict[tuple[int, int], Pixels] = {}
    count = pyvips.Image.tiffload_buffer(data).get("n-pages")
    for number in range(count):
        add(found, pyvips.Image.tiffload_buffer(data, page=number, fail_on="error"))
    for number in range(8):
        try:
            page = pyvips.Image.tiffload_buffer(data, subifd=number, fail_on="error")
        except pyvips.Error:
            break
        add(found, page)
    return found


def add(found: dict[tuple[int, int], Pixels], image: pyvips.Image) -> None:
    found.setdefault((image.width, image.height), decoded(image))


def decoded(image: pyvips.Image) -> Pixels:
    return image.numpy().reshape(image.height, image.width, image.bands)


def requests(size: Size, *, count: int, seed: str) -> Iterator[tuple[Box, Size]]:
    """Boxes with the size that they are asked for: corners, edges, aligned tiles, the whole, and at random."""
    whole, width, height = Box.whole(size), size.width, size.height
    yield whole, size
    yield whole, Size(-(-width // 2), -(-height // 2))
    yield whole, Size(width // 4, height // 4)
    yield whole, Size(50, 50 * height // width)
    yield Box(0, 0, 64, 64), Size(64, 64)
    yield Box(128, 128, 128, 128), Size(64, 64)
    yield Box(width - 1, height - 1, 1, 1), Size(1, 1)
    yield Box(256, 256, width - 256, height - 256), Size(-(-(width - 256) // 4), -(-(height - 256) // 4))
    draw = random.Random(seed)
    for _ in range(count - 8):
        x, y = draw.randrange(width), draw.randrange(height)
        box = Box(x, y, draw.randint(1, width - x), draw.randint(1, height - y))
        shrink = draw.choice((1, 1, 2, 3, 4, 7, 8, 16))
        yield box, Size(max(1, box.width // shrink), max(1, box.height // shrink))


def check(encoding: Encoding, *, count: int) -> None:
    data = encoding.write()
    if encoding.refusal:
        with pytest.raises(Unsupported, match=encoding.refusal):
            solve(formats.parse(len(data)), data)
        return
    layout = solve(formats.parse(len(data)), data)
    assert formats.load(layout.dump()) == layout
    oracle = full_decodes(data)
    for box, size in requests(layout.size, count=count, seed=encoding.name):
        check_one(layout, data, oracle, box, size)


def check_one(layout: Layout, data: bytes, oracle: dict[tuple[int, int], Pixels], box: Box, size: Size) -> None:
    extract = layout.extract(box, size)
    assert all(before.stop < after.start for before, after in zip(extract.spans, extract.spans[1:], strict=False))
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    part = decoded(pyvips.Image.tiffload_buffer(piece.data, fail_on="error"))

    level = layout.levels[extract.level]
    stored = level.turned if piece.orientation.swaps_sides else level
    scale = 1 << round(np.log2(layout.size.long_side / level.long_side))
    full_size = layout.size.turned if piece.orientation.swaps_sides else layout.size
    wanted = Frame.of(piece.orientation.to_stored(box, full_size), 1 / scale, 1 / scale).within(stored)
    x, y = wanted.x - piece.crop.x, wanted.y - piece.crop.y
    assert (x, y) == (int(x), int(y))
    assert (wanted.width, wanted.height) == (piece.crop.width, piece.crop.height)
    assert piece.crop.x + piece.crop.width <= part.shape[1]
    assert piece.crop.y + piece.crop.height <= part.shape[0]
    whole = oracle[stored.width, stored.height]
    np.testing.assert_array_equal(part, whole[int(y) : int(y) + part.shape[0], int(x) : int(x) + part.shape[1]])

    tile = layout.stored(box, size)
    if tile is not None:
        passed = tile.assemble([data[span.start : span.stop] for span in tile.spans])
        image = decoded(pyvips.Image.jpegload_buffer(passed, fail_on="error"))
        np.testing.assert_array_equal(
            image, whole[int(wanted.y) : int(wanted.y) + size.height, int(wanted.x) : int(wanted.x) + size.width]
        )


@pytest.mark.parametrize("encoding", COMMON, ids=lambda encoding: encoding.name)
def test_a_part_decodes_to_what_the_whole_decodes_to(encoding: Encoding) -> None:
    check(encoding, count=12)


@pytest.mark.long
@pytest.mark.parametrize("encoding", ALL, ids=lambda encoding: encoding.name)
def test_every_part_of_every_encoding(encoding: Encoding) -> None:
    check(encoding, count=24)


def test_the_matrix_is_as_large_as_it_is_said_to_be() -> None:
    assert len({encoding.name for encoding in ALL}) == len(ALL) >= 100


@pytest.mark.parametrize("orientation", list(Orientation), ids=lambda orientation: orientation.name.lower())
def test_a_turned_master_is_shown_upright(orientation: Orientation) -> None:
    """A part turned as its piece says is a part of what libvips makes by the Orientation field."""
    data = next(e for e in ALL if e.name == f"orientation-{max(2, orientation)}").write()
    if orientation is Orientation.UPRIGHT:
        data = next(e for e in ALL if e.name == "jpeg-ycbcr-pyramid").write()
    layout = solve(formats.parse(len(data)), data)
    upright = pyvips.Image.tiffload_buffer(data).autorot()
    assert layout.size == Size(upright.width, upright.height)
    box = Box(37, 101, 211, 150)
    extract = layout.extract(box, box.size)
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    crop = piece.crop
    part = pyvips.Image.tiffload_buffer(piece.data).crop(crop.x, crop.y, crop.width, crop.height).copy()
    assert part.get_typeof("orientation") == 0 or part.get("orientation") == 1
    part.set_type(pyvips.GValue.gint_type, "orientation", int(piece.orientation))
    np.testing.assert_array_equal(decoded(part.autorot()), decoded(upright.crop(box.x, box.y, box.width, box.height)))


def test_a_span_is_read_for_each_tile_and_nothing_else() -> None:
    data = next(e for e in ALL if e.name == "jpeg-backwards").write()
    layout = solve(formats.parse(len(data)), data)
    one = layout.extract(Box(64, 64, 64, 64), Size(64, 64)).spans
    assert len(one) == 1
    assert data[one[0].start : one[0].start + 2] == b"\xff\xd8"
    assert data[one[0].stop - 2 : one[0].stop] == b"\xff\xd9"
    assert layout.extract(Box(64, 64, 65, 64), Size(65, 64)).spans != one
    assert Span(one[0].start, one[0].stop) == one[0]
