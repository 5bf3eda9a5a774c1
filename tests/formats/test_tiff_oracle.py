"""Some tiles of a TIFF, rebuilt and decoded, are exactly that part of the whole file decoded."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import pyvips
from PIL import Image

from fixtures.make_tiff import Encoding, encodings
from fixtures.tiff_pages import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    HEIGHT,
    PHOTOMETRIC,
    PLANAR,
    SAMPLES,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    Page,
    put_together,
    take_apart,
)
from special import formats
from special.codecs.decode import decode
from special.formats.layout import Layout
from special.formats.parser import solve
from special.geometry import Box, Frame, Orientation, Size
from special.storage.blob import Span

ALL = list(encodings())
COMMON = [encoding for encoding in ALL if encoding.is_common]
Pixels = npt.NDArray[np.generic]


def full_decodes(data: bytes) -> dict[tuple[int, int], Pixels]:
    """Every page and sub-directory of the file: (height, width, bands), by width and height. The first of a size."""
    found: dict[tuple[int, int], Pixels] = {}
    for page in everyone(take_apart(data)):
        pixels = full_decode(page, data[:2])
        found.setdefault((pixels.shape[1], pixels.shape[0]), pixels)
    return found


def everyone(pages: Sequence[Page]) -> Iterator[Page]:
    for page in pages:
        yield page
        yield from everyone(page.subs)


def full_decode(page: Page, mark: bytes) -> Pixels:
    """All of a page as libvips gives it; where it cannot, plane by plane or tile by tile."""
    if page.fields[COMPRESSION][1][0] in (33003, 33004, 33005, 34712):
        return by_pillow(page)
    order: Literal["<", ">"] = "<" if mark == b"II" else ">"
    alone = replace(page, subs=[])
    if page.fields.get(PLANAR, (3, (1,)))[1] == (2,) and page.tiled:
        (samples,) = page.fields[SAMPLES][1]
        count = len(page.tiles) // int(samples)
        grey = {SAMPLES: (3, (1,)), BITS: (3, page.fields[BITS][1][:1]), PHOTOMETRIC: (3, (1,)), PLANAR: (3, (1,))}
        fields = {tag: value for tag, value in page.fields.items() if tag != EXTRA_SAMPLES} | grey
        planes = [page.tiles[first : first + count] for first in range(0, len(page.tiles), count)]
        return np.concatenate([full_decode(replace(alone, fields=fields, tiles=plane), mark) for plane in planes], -1)
    return decoded(pyvips.Image.tiffload_buffer(put_together([alone], order=order), fail_on="error"))


def by_pillow(page: Page) -> Pixels:
    """JPEG 2000 tiles, each decoded by pillow, put together; luma and chroma made RGB as JFIF says."""
    ((width,), (height,)), ((across,), (down,)) = (
        [page.fields[tag][1] for tag in tags] for tags in ((WIDTH, HEIGHT), (TILE_WIDTH, TILE_HEIGHT))
    )
    columns, rows = -(-int(width) // int(across)), -(-int(height) // int(down))
    planes = []
    for first in range(0, len(page.tiles), columns * rows):
        tiles = [pillow_tile(tile) for tile in page.tiles[first : first + columns * rows]]
        like = next(tile for tile in tiles if tile is not None)
        dense = [np.zeros_like(like) if tile is None else tile for tile in tiles]
        lines = [np.concatenate(dense[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
        planes.append(np.concatenate(lines)[: int(height), : int(width)])
    pixels = np.concatenate(planes, axis=-1)
    if page.fields[COMPRESSION][1] == (33003,) or page.fields[PHOTOMETRIC][1] == (6,):
        luma, blue, red = (pixels[..., channel].astype(np.float64) for channel in range(3))
        blue, red = blue - 128, red - 128
        rgb = np.stack((luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), axis=-1)
        return np.rint(rgb).clip(0, 255).astype(np.uint8)
    return pixels


def pillow_tile(tile: bytes) -> Pixels | None:
    return np.atleast_3d(np.asarray(Image.open(io.BytesIO(tile)))) if tile else None


def decoded(picture: Pixels | pyvips.Image) -> Pixels:
    if isinstance(picture, np.ndarray):
        return picture
    return picture.numpy().reshape(picture.height, picture.width, picture.bands)


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
    layout = solve(formats.parse(len(data)), data)
    assert formats.load(layout.dump()) == layout
    oracle = full_decodes(data)
    for box, size in requests(layout.size, count=count, seed=encoding.name):
        check_one(layout, data, oracle, box, size)


def check_one(layout: Layout, data: bytes, oracle: dict[tuple[int, int], Pixels], box: Box, size: Size) -> None:
    extract = layout.extract(box, size)
    assert all(before.stop < after.start for before, after in zip(extract.spans, extract.spans[1:], strict=False))
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    part = decoded(decode(piece, max_pixels=10**8))

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
