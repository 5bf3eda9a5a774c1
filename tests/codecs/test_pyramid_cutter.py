"""All tiles of a picture from one decode: the right pixels, every byte asked for once, from first to last."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import simplejpeg
from PIL import Image

from special import formats
from special.codecs import Encoding, FlatPicture, cut_pyramid, prepare
from special.errors import Malformed, Unsupported
from special.formats import solve
from special.formats.tiff import Place, TiffLayout
from special.geometry import Box, Size
from tests.support import oracle
from tests.support.pieces import Pixels, encoded, smooth

TILE = 64
WIDTH, HEIGHT = 403, 277
"""Neither is a multiple of anything, so that halves are rounded at every level."""


def by_vips(kind: str, *, bits: int = 8, **options: Any) -> bytes:
    image = pyvips.Image.new_from_array(smooth(WIDTH, HEIGHT))
    image = (image.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16") if bits == 16 else image
    data: bytes = image.write_to_buffer(f".{kind}", **options)
    return data


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(smooth(WIDTH, HEIGHT), "jpeg", quality=95, exif=exif)


MADE: dict[str, Callable[[], bytes]] = {
    "png": lambda: by_vips("png"),
    "png-grey": lambda: encoded(smooth(WIDTH, HEIGHT, 1), "png"),
    "png-16-bits": lambda: by_vips("png", bits=16),
    "png-interlaced": lambda: by_vips("png", interlace=True),
    "jpeg": lambda: encoded(smooth(WIDTH, HEIGHT), "jpeg", quality=90),
    "jpeg-progressive": lambda: encoded(smooth(WIDTH, HEIGHT), "jpeg", quality=90, progressive=True),
    "jpeg-grey": lambda: encoded(smooth(WIDTH, HEIGHT, 1), "jpeg", quality=90),
    **{f"jpeg-turned-{n}": lambda n=n: turned(n) for n in range(2, 9)},  # type: ignore[misc]
    "tiff-deflate": lambda: by_vips("tif", compression="deflate", predictor="horizontal"),
    "tiff-16-bits": lambda: by_vips("tif", bits=16, compression="lzw"),
    "tiff-tiled": lambda: by_vips("tif", tile=True, tile_width=128, tile_height=64),
    "tiff-one-strip": lambda: encoded(smooth(WIDTH, HEIGHT), "tiff", compression="tiff_lzw", tiffinfo={278: HEIGHT}),
}


@pytest.fixture(scope="module", autouse=True)
def decoder() -> None:
    """This process as a decoder: libvips with one thread."""
    prepare()


class Parent:
    """Answers a job's questions out of one file, and keeps what it is given."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.layout = solve(formats.parse(len(data)), data)
        self.asked: list[tuple[int, ...]] = []
        self.tiles: dict[Place, list[bytes]] = {}

    def ask(self, *numbers: int) -> Any:
        self.asked.append(numbers)
        if not isinstance(self.layout, TiffLayout):
            return self.data[numbers[0] : numbers[1]]
        (y,) = numbers
        size, rows = self.layout.size, self.layout.full.tile.height * math.ceil(50 / self.layout.full.tile.height)
        box = Box(0, y, size.width, min(rows, size.height - y))
        extract = self.layout.extract(box, box.size)
        return self.layout.rebuild(extract, [self.data[span.start : span.stop] for span in extract.spans])

    def give(self, value: Any, parts: Sequence[bytes]) -> None:
        at = 0
        for level, column, row, count in value:
            place = Place(level, column, row)
            assert place not in self.tiles, "each tile comes once"
            self.tiles[place] = list(parts[at : at + count])
            at += count
        assert at == len(parts)

    def cut(self, *, stored: Size | None = None, early_reduce: int = 0) -> int:
        layout: Any = self.layout
        stored = stored or layout.orientation.upright(layout.size)
        return cut_pyramid(
            self,
            FlatPicture(
                layout.format, len(self.data), stored, layout.orientation, TILE, Encoding(), 1 << 30, early_reduce
            ),
        )


def by_jpeg(pixels: Pixels) -> bytes:
    """As the server encodes tiles: quality 85, colours at half the resolution."""
    grey = pixels.shape[2] == 1
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=85,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else "420",
    )
    return data


@pytest.mark.parametrize(
    ("name", "early_reduce"), [*((name, 0) for name in MADE), *((it, 1) for it in MADE if "jpeg" in it)]
)
def test_tiles_have_the_right_pixels(tmp_path: Path, name: str, early_reduce: int) -> None:
    parent = Parent(MADE[name]())
    channels = parent.cut(early_reduce=early_reduce)
    path = tmp_path / f"master.{'tif' if name.startswith('tiff') else name.split('-')[0].replace('jpeg', 'jpg')}"
    path.write_bytes(parent.data)
    whole = oracle.upright(path).numpy()
    whole = whole if whole.ndim == 3 else whole[..., np.newaxis]
    assert channels == whole.shape[2]
    height, width = whole.shape[:2]
    levels = math.ceil(math.log2(math.ceil(max(width, height) / TILE))) + 1
    expected = {
        Place(level, column, row)
        for level in range(levels)
        for column in range(math.ceil(math.ceil(width / 2**level) / TILE))
        for row in range(math.ceil(math.ceil(height / 2**level) / TILE))
    }
    assert parent.tiles.keys() == expected
    for place, files in parent.tiles.items():
        step = TILE << place.level
        part = whole[place.row * step : (place.row + 1) * step, place.column * step : (place.column + 1) * step]
        size = tuple(math.ceil(side / 2**place.level) for side in (part.shape[1], part.shape[0]))
        shown = Image.open(io.BytesIO(files[0]))
        assert shown.size == size
        assert [Image.open(io.BytesIO(it)).size for it in files[1:]] == [(TILE, TILE)] * (size != (TILE, TILE))
        if place.level == 0:
            assert files[0] == by_jpeg(part)
        else:
            image = Image.fromarray(part.squeeze(2) if channels == 1 else part)
            halved = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).reshape(size[1], size[0], channels)
            truth = np.asarray(Image.open(io.BytesIO(by_jpeg(halved)))).astype(np.int16)
            assert np.abs(np.asarray(shown).astype(np.int16) - truth).mean() < 2.0, place


@pytest.mark.parametrize(
    ("name", "early_reduce", "times"), [("png", 1, 1), ("png-interlaced", 1, 1), ("jpeg", 0, 1), ("jpeg", 1, 2)]
)
def test_every_byte_is_asked_for_in_order_once_for_each_decode(name: str, early_reduce: int, times: int) -> None:
    parent = Parent(MADE[name]())
    parent.cut(early_reduce=early_reduce)
    assert parent.asked == [(0, len(parent.data))] * times


def test_the_small_levels_of_a_jpeg_come_first() -> None:
    parent = Parent(MADE["jpeg"]())
    parent.cut(early_reduce=1)
    levels = [place.level for place in parent.tiles]
    small = [level >= 2 for level in levels]
    assert set(levels) == {0, 1, 2, 3}
    assert small == sorted(small, reverse=True)


def test_bands_follow_each_other() -> None:
    parent = Parent(MADE["tiff-deflate"]())
    parent.cut()
    rows = [y for (y,) in parent.asked]
    assert rows == sorted(set(rows))
    assert rows[0] == 0
    assert len(rows) == math.ceil(HEIGHT / 128)


def test_opacity_is_refused() -> None:
    with pytest.raises(Unsupported, match="opacity"):
        Parent(encoded(smooth(WIDTH, HEIGHT, 4), "png")).cut()


def test_a_file_that_ends_early_is_malformed() -> None:
    parent = Parent(MADE["png"]())
    parent.data = parent.data[: len(parent.data) // 2]
    with pytest.raises(Malformed):
        parent.cut()


def test_a_picture_of_another_size_than_its_headers_said_is_malformed() -> None:
    with pytest.raises(Malformed, match="headers said"):
        Parent(MADE["png"]()).cut(stored=Size(WIDTH, HEIGHT + 1))
