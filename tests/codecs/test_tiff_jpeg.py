"""JPEG tiles of a TIFF: pixel for pixel what libtiff makes of them."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import pyvips
import simplejpeg
import tifffile

from special.codecs import tiff_jpeg
from special.errors import Malformed
from special.formats.tiff import Page, read_page
from special.geometry import Size
from tests.support.pieces import smooth


def by_vips(width: int, height: int, channels: int = 3, **options: Any) -> bytes:
    picture = smooth(width, height, channels)
    image = pyvips.Image.new_from_memory(picture.tobytes(), width, height, channels, "uchar")
    image = image.copy(interpretation="b-w" if channels == 1 else "srgb")
    defaults = {"compression": "jpeg", "tile": True, "tile_width": 64, "tile_height": 48}
    data: bytes = image.tiffsave_buffer(**(defaults | options))
    return data


def by_hand(order: str, tile: bytes = b"") -> bytes:
    """One 64×48 tile of YCbCr without tables, in a classic TIFF of that byte order."""
    tile = tile or simplejpeg.encode_jpeg(smooth(64, 48), quality=90)
    tags = [(256, 64), (257, 48), (258, 8), (259, 7), (262, 6), (277, 3), (284, 1)]
    tags += [(322, 64), (323, 48), (324, 8 + 2 + 12 * 11 + 4), (325, len(tile))]
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIH", 42, 8, len(tags)) + entries + bytes(4) + tile


def by_tifffile(width: int, height: int, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, smooth(width, height), **options)
    return file.getvalue()


def ordinary(data: bytes) -> Page | None:
    page = read_page(data)
    return page if tiff_jpeg.is_ordinary(page) else None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(by_vips(200, 150), id="YCbCr with halved colours"),
        pytest.param(by_vips(200, 150, Q=95), id="RGB"),
        pytest.param(by_vips(200, 150, 1), id="grey"),
        pytest.param(by_vips(128, 96), id="whole tiles only"),
        pytest.param(by_vips(64, 48), id="one tile"),
        pytest.param(by_vips(30, 20), id="less than a tile"),
        pytest.param(by_vips(200, 150, bigtiff=True), id="BigTIFF"),
        pytest.param(by_hand("<"), id="by hand, little-endian"),
        pytest.param(by_hand(">"), id="by hand, big-endian"),
        pytest.param(by_vips(200, 150, pyramid=True), id="pyramid, first page"),
    ],
)
def test_pixels_equal_libtiffs(data: bytes) -> None:
    theirs = pyvips.Image.tiffload_buffer(data)
    page = ordinary(data)
    assert page is not None
    assert page.size == Size(theirs.width, theirs.height)
    ours = tiff_jpeg.decode(data, page)
    assert ours is not None
    assert np.array_equal(ours, theirs.numpy().reshape(theirs.height, theirs.width, theirs.bands))


def test_a_tile_of_several_scans_is_left_to_libtiff_which_stops_after_100() -> None:
    progressive = pyvips.Image.new_from_array(smooth(64, 48)).jpegsave_buffer(interlace=True)
    scans = progressive[progressive.index(b"\xff\xda") : -2]
    assert 2 < scans.count(b"\xff\xda\x00") < 20
    shown = []
    for times in (0, 200, 400):
        data = by_hand("<", progressive[:-2] + times * scans + b"\xff\xd9")
        page = ordinary(data)
        assert page is not None
        assert tiff_jpeg.decode(data, page) is None
        shown.append(pyvips.Image.tiffload_buffer(data).avg())
    assert shown[1] == shown[2]


def test_the_profile_is_found() -> None:
    profile = bytes(pyvips.Image.profile_load("p3"))
    page = ordinary(by_vips(64, 48, profile="p3"))
    assert page is not None
    assert page.profile == profile


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(by_vips(200, 150, compression="deflate"), id="deflate"),
        pytest.param(by_vips(200, 150, tile=False), id="strips"),
        pytest.param(by_vips(640, 480, tile_width=16, tile_height=16), id="too many tiles"),
        pytest.param(by_tifffile(64, 64, tile=(64, 64), photometric="rgb"), id="no compression"),
        pytest.param(
            by_tifffile(64, 64, tile=(64, 64), photometric="rgb", byteorder=">"), id="no compression, big-endian"
        ),
    ],
)
def test_what_is_left_to_libvips(data: bytes) -> None:
    assert ordinary(data) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"II*\0", id="no directory"),
        pytest.param(b"II*\0\xff\xff\xff\x7f" + bytes(64), id="a directory beyond the end"),
        pytest.param(by_vips(64, 48)[:300], id="cut in the tiles"),
        pytest.param(by_hand("<")[:100], id="cut in the directory"),
        pytest.param(
            by_hand("<").replace(b"\x44\x01\x04\0\1\0", b"\x44\x01\x04\0\x60\xea"), id="values beyond the end"
        ),
    ],
)
def test_a_page_that_is_not_there_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_page(data)


@pytest.mark.parametrize("stop", [0.3, 0.6, 0.9])
def test_missing_tiles_are_left_to_libvips(stop: float) -> None:
    data = by_vips(200, 150)
    page = ordinary(data)
    assert page is not None
    last = max(stored.offset for stored in page.tiles())
    torn = data[: int(last * stop)] + bytes(len(data) - int(last * stop))
    assert tiff_jpeg.decode(torn, page) is None
