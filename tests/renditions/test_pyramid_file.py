"""A published pyramid: an ordinary TIFF, in which each tile of the grid is a range that is its JPEG."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
import pyvips
import simplejpeg
from PIL import Image

from special import formats
from special.errors import Malformed
from special.formats import solve
from special.formats.tiff import Grid, Place
from special.geometry import Box, Size
from special.iiif import Job
from special.renditions import PublishedIndex, PyramidName, pyramid_file
from special.storage import Blob
from tests.support.pieces import Pixels, smooth

TILE = 64
NAME = PyramidName(512, 85, 1)
MASTER = Blob("s3://masters/", "a/b.tif", '"1"', 1000)


def encoded(pixels: Pixels) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=85, colorsubsampling="420")
    return data


def tiles(size: Size) -> tuple[Grid, dict[Place, Sequence[bytes]]]:
    """A picture's tiles, cut by numpy."""
    found: dict[Place, Sequence[bytes]] = {}
    for level in range(math.ceil(math.log2(math.ceil(size.long_side / TILE))) + 1):
        pixels = smooth(math.ceil(size.width / 2**level), math.ceil(size.height / 2**level), seed=level)
        for row in range(math.ceil(pixels.shape[0] / TILE)):
            for column in range(math.ceil(pixels.shape[1] / TILE)):
                part = pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                filled = np.pad(part, ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)), mode="edge")
                files = [encoded(part)] if part.shape == filled.shape else [encoded(part), encoded(filled)]
                found[Place(level, column, row)] = files
    return Grid(size, TILE), found


@pytest.mark.parametrize("size", [Size(200, 131), Size(128, 128), Size(65, 300), Size(40, 90)], ids=str)
def test_each_tile_is_a_range_of_the_file(size: Size) -> None:
    grid, cut = tiles(size)
    data = pyramid_file.assemble(grid, cut, channels=3, subsampling=2)
    index = PublishedIndex.of(grid, solve(formats.parse(len(data)), data))
    for place, files in cut.items():
        step = TILE << place.level
        x, y = place.column * step, place.row * step
        box = Box(x, y, min(step, size.width - x), min(step, size.height - y))
        shown = Size(math.ceil(box.width / 2**place.level), math.ceil(box.height / 2**place.level))
        span = index.find(Job(box, shown, False, 0.0, "default", "jpg"))
        assert span is not None
        assert data[span.start : span.stop] == files[0], place
    assert index.find(Job(Box(1, 0, 39, 39), Size(39, 39), False, 0.0, "default", "jpg")) is None


def test_other_programs_read_it() -> None:
    grid, cut = tiles(Size(200, 131))
    data = pyramid_file.assemble(grid, cut, channels=3, subsampling=2)
    for level in range(grid.levels):
        page = pyvips.Image.tiffload_buffer(data, page=level)
        assert (page.width, page.height) == (grid.size(level).width, grid.size(level).height)
    whole = pyvips.Image.tiffload_buffer(data).numpy()
    first = np.asarray(Image.open(io.BytesIO(cut[Place(0, 0, 0)][0])))
    assert np.abs(whole[:TILE, :TILE].astype(np.int16) - first).max() <= 2


def test_the_file_is_as_it_was_in_the_first_version() -> None:
    grid = Grid(Size(200, 131), TILE)
    files = {
        place: [b"shown", b"filled up"] if place.column == 3 or place.row == 2 else [b"whole"]
        for place in pyramid_file.places(grid)
    }
    data = pyramid_file.assemble(grid, files, channels=3, subsampling=2)
    assert hashlib.sha256(data).hexdigest() == "fe26ac9c6fb69bda90e39f78c8a2fd2a07420fe36175aa31b8ce45c121bc058d"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Blob("s3://masters/", "a/b.tif", '"2"', 1000), id="tag"),
        pytest.param(Blob("s3://masters/", "a/b.tif", '"1"', 1001), id="length"),
        pytest.param(Blob("s3://masters/", "a/b.jp2", '"1"', 1000), id="key"),
    ],
)
def test_another_version_of_the_master_has_another_key(other: Blob) -> None:
    assert NAME.key("x", MASTER, "open") != NAME.key("x", other, "open")


def test_what_is_restricted_is_in_a_folder_of_its_own() -> None:
    key = NAME.key("1/2/x", MASTER, "open")
    assert key.startswith("1/2/x/pyramid-512-85-1-")
    assert NAME.key("1/2/x", MASTER, "auth") == key.replace("1/2/x/", "1/2/x/auth/")
    assert pyramid_file.is_pyramid("1/2/x", key)
    assert pyramid_file.is_pyramid("1/2/x", NAME.key("1/2/x", MASTER, "auth"))
    assert not pyramid_file.is_pyramid("1/2/x", "1/2/x/open/400.jpg")
    assert not pyramid_file.is_pyramid("1/2/x", "1/2/x/pyramid-notes.tif")


def test_a_file_of_another_picture_is_malformed() -> None:
    grid, cut = tiles(Size(200, 131))
    data = pyramid_file.assemble(grid, cut, channels=3, subsampling=2)
    with pytest.raises(Malformed):
        PublishedIndex.of(Grid(Size(201, 131), TILE), solve(formats.parse(len(data)), data))
