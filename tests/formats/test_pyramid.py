"""The grid of a pyramid, which masters get one, and that its directories are TIFF."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from special import formats
from special.formats.layout import Layout
from special.formats.parser import solve
from special.formats.tiff import pyramid
from special.formats.tiff.pyramid import HEAD_BYTES, WANTED, Grid, Place
from special.geometry import Box, Size
from special.storage.blob import Span
from tests.support.live import MASTERS

GRID = Grid(Size(1000, 2049), 512)


def test_levels_end_where_one_tile_holds_all() -> None:
    assert [str(GRID.size(level)) for level in range(GRID.levels)] == ["1000,2049", "500,1025", "250,513", "125,257"]
    assert GRID.tiling.scale_factors == (1, 2, 4, 8)
    assert Grid(Size(512, 512), 512).levels == 1
    assert Grid(Size(513, 1), 512).levels == 2


@pytest.mark.parametrize(
    ("box", "size", "place"),
    [
        pytest.param("0,0,512,512", "512,512", Place(0, 0, 0), id="first"),
        pytest.param("512,1536,488,512", "488,512", Place(0, 1, 3), id="right edge"),
        pytest.param("512,2048,488,1", "488,1", Place(0, 1, 4), id="corner, one row"),
        pytest.param("0,1024,1000,1024", "500,512", Place(1, 0, 1), id="half"),
        pytest.param("0,2048,1000,1", "500,1", Place(1, 0, 2), id="half of one row, rounded up"),
        pytest.param("0,0,1000,2049", "125,257", Place(3, 0, 0), id="all of it"),
        pytest.param("0,0,1000,2048", "250,512", Place(2, 0, 0), id="a quarter"),
        pytest.param("0,0,512,512", "256,256", None, id="at another size"),
        pytest.param("256,0,512,512", "512,512", None, id="off the grid"),
        pytest.param("512,0,487,512", "487,512", None, id="short of the edge"),
        pytest.param("0,1024,1000,1024", "500,511", None, id="a row less"),
        pytest.param("0,0,256,256", "256,256", None, id="a part of a tile"),
    ],
)
def test_a_tile_is_known_by_its_box_and_size(box: str, size: str, place: Place | None) -> None:
    assert GRID.find(Box(*map(int, box.split(","))), Size(*map(int, size.split(",")))) == place


@pytest.mark.parametrize("full", [Size(1000, 2049), Size(512, 513), Size(4097, 3), Size(1025, 1024)])
@pytest.mark.parametrize("tile", [64, 512])
def test_every_tile_is_found_again(full: Size, tile: int) -> None:
    grid = Grid(full, tile)
    for level in range(grid.levels):
        seen = 0
        for chunk in grid.chunks(level, 1, 1):
            box = grid.box(level, chunk)
            found = grid.find(box, grid.shown(level, box))
            assert found is not None
            # One pixel may be the whole tile of several levels: it is the same at all of them.
            assert grid.box(found.level, Box(found.column, found.row, 1, 1)) == box
            assert found == Place(level, chunk.x, chunk.y) or grid.shown(level, box).area <= 2
            seen += grid.shown(level, box).area
        assert seen == grid.size(level).area
        chunks = list(grid.chunks(level, 3, 2))
        assert sum(chunk.size.area for chunk in chunks) == grid.columns(level) * grid.rows(level)


@pytest.mark.parametrize(
    ("box", "size", "exact"),
    [
        pytest.param("3,5,7,9", "7,9", True, id="full size"),
        pytest.param("4,8,12,16", "3,4", True, id="a quarter, in line"),
        pytest.param("4,8,996,2041", "249,511", True, id="a quarter, up to the edges"),
        pytest.param("2,8,12,16", "3,4", False, id="a quarter, between pixels"),
        pytest.param("4,8,13,16", "4,4", False, id="a quarter, ends between pixels"),
        pytest.param("0,0,300,300", "100,100", False, id="a third"),
        pytest.param("0,0,10,10", "20,20", False, id="enlarged"),
    ],
)
def test_what_needs_no_resampling(box: str, size: str, exact: bool) -> None:
    assert GRID.is_exact(Box(*map(int, box.split(","))), Size(*map(int, size.split(",")))) == exact


def layout(name: str) -> Layout:
    data = (MASTERS / name).read_bytes()
    return solve(formats.parse(len(data)), data)


@pytest.mark.parametrize(
    ("name", "expensive"),
    [
        ("map.jp2", True),
        ("mosaic.jp2", True),
        ("manuscript.jpg", True),
        ("seafloor.png", True),
        ("dragon.gif", True),
        ("herbarium.tif", False),
        ("stars.tif", False),
    ],
)
def test_which_masters_are_expensive(name: str, expensive: bool) -> None:
    found = layout(name)
    assert pyramid.is_expensive(found, Grid(found.size, 512)) == expensive
    assert not pyramid.is_expensive(found, Grid(found.size, 4096)), "one tile would hold all of it"


def test_all_that_are_larger_than_a_tile() -> None:
    found = layout("herbarium.tif")
    assert WANTED["all"](found, Grid(found.size, 512))
    assert not WANTED["expensive"](found, Grid(found.size, 512))
    assert not WANTED["all"](found, Grid(found.size, 4096))
    assert not WANTED["all"](strips(Size(2048, 1), None), Grid(Size(2048, 1), 512))


def strips(size: Size, tile: int | None) -> Layout:
    file = io.BytesIO()
    pixels = np.zeros((size.height, size.width), np.uint8)
    tifffile.imwrite(file, pixels, tile=(tile, tile) if tile else None, compression="zlib")
    data = file.getvalue()
    return solve(formats.parse(len(data)), data)


@pytest.mark.parametrize(
    ("size", "tile", "expensive"),
    [
        pytest.param(Size(1000, 1000), None, True, id="strips"),
        pytest.param(Size(1000, 1000), 256, False, id="tiles, and small"),
        pytest.param(Size(2048, 2048), 256, True, id="tiles without smaller levels"),
        pytest.param(Size(2048, 1), None, False, id="one line"),
    ],
)
def test_which_tiffs_are_expensive(size: Size, tile: int | None, expensive: bool) -> None:
    assert pyramid.is_expensive(strips(size, tile), Grid(size, 512)) == expensive


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_its_directories_are_those_of_a_tiff(tmp_path: Path, channels: int, mode: str) -> None:
    grid = Grid(Size(150, 70), 64)
    content = bytearray(HEAD_BYTES)
    tiles: dict[Place, Span] = {}
    for level in range(grid.levels):
        for chunk in grid.chunks(level, 1, 1):
            file = io.BytesIO()
            grey = 40 * level + 10 * chunk.x + 5 * chunk.y
            Image.new(mode, (64, 64), (grey,) * channels if channels > 1 else grey).save(file, "jpeg", quality=95)
            tiles[Place(level, chunk.x, chunk.y)] = Span.at(len(content), file.tell())
            content += file.getvalue()
    at = len(content)
    content += pyramid.directories(grid, tiles, channels=channels, subsampling=2, at=at)
    content[:HEAD_BYTES] = pyramid.head(at)
    path = tmp_path / "pyramid.tif"
    path.write_bytes(content)
    with tifffile.TiffFile(path) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == [(70, 150), (35, 75), (18, 38)]
        assert {page.tile for page in tiff.pages} == {(64, 64)}
    for level in range(grid.levels):
        shown = pyvips.Image.new_from_file(str(path), page=level).numpy()
        last = 40 * level + 10 * (grid.columns(level) - 1) + 5 * (grid.rows(level) - 1)
        assert np.abs(shown[-1, -1].astype(int) - last).max() <= 1
    found = solve(formats.parse(len(content)), bytes(content))
    assert found.levels == (Size(150, 70), Size(75, 35), Size(38, 18))
    stored = found.stored(Box(64, 0, 64, 64), Size(64, 64))
    assert stored is not None
    assert stored.spans == (tiles[Place(0, 1, 0)],)
