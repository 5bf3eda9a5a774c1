"""What is drawn over pictures: by an oracle of whole-image arithmetic, at any size and in any tile."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from special.catalogue import text_picture
from special.codecs.marks import drawn
from special.codecs.raster import Raster
from special.geometry import Box, Size
from special.iiif import Mark

WHITE = (255, 255, 255)


def png(colour: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def white(width: int, height: int, channels: int = 3) -> Raster:
    return np.full((height, width, channels), 255, np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_black_covers_its_rectangle_and_a_margin(channels: int) -> None:
    raster = white(100, 50, channels)
    result = drawn(raster, [Mark(10, 20, 30, 40)])
    colours = result[..., : channels - (channels % 2 == 0)]
    assert (colours[10:30, 10:40] == 0).all()
    assert (colours[9:31, 9:41] == 0).all()
    assert (colours[:9] == 255).all()
    assert (colours[31:] == 255).all()
    assert (colours[:, :9] == 255).all()
    assert (colours[:, 41:] == 255).all()
    assert (raster == 255).all(), "the raster itself is left alone"


def test_nothing_of_a_rectangle_is_left_however_edges_fall() -> None:
    for width in range(1, 60):
        result = drawn(white(width, 7), [Mark(33.3, 0, 12.7, 100)])
        first, last = int(width * 0.333), int(np.ceil(width * 0.46))
        assert (result[:, first:last] == 0).all()


@pytest.mark.parametrize(
    ("channels", "picture", "expected"),
    [
        pytest.param(3, (255, 0, 0), (255, 0, 0), id="opaque"),
        pytest.param(3, (255, 0, 0, 51), (255, 204, 204), id="a fifth"),
        pytest.param(3, (255, 0, 0, 0), WHITE, id="nothing"),
        pytest.param(1, (0, 0, 0, 51), (204,), id="on grey"),
        pytest.param(4, (0, 0, 0, 51), (204, 204, 204, 255), id="on what has opacity"),
    ],
)
def test_a_picture_is_laid_on_with_its_opacity(
    channels: int, picture: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    result = drawn(white(100, 100, channels), [Mark(10, 10, 50, 50, png(picture))])
    assert np.abs(result[30, 30].astype(int) - expected).max() <= 1
    assert (result[70:] == 255).all()


def test_what_is_black_stays_black_under_a_picture() -> None:
    result = drawn(white(10, 10), [Mark(0, 0, 50, 100), Mark(0, 0, 100, 100, png((255, 0, 0)))])
    assert (result[:, :5] == 0).all()


def test_tiles_show_together_what_the_whole_shows() -> None:
    image, marks = Size(300, 200), [Mark(20, 30, 50, 40, png((0, 0, 255, 128), (64, 16))), Mark(60, 60, 10, 10)]
    whole = drawn(white(300, 200), [it for it in (m.of_region(Box.whole(image), image) for m in marks) if it])
    for box in (Box(0, 0, 100, 100), Box(100, 50, 100, 100), Box(150, 100, 150, 100), Box(0, 100, 60, 100)):
        inside = [it for it in (mark.of_region(box, image) for mark in marks) if it]
        tile = drawn(white(box.width, box.height), inside)
        same = whole[box.y : box.bottom, box.x : box.right]
        assert np.abs(tile.astype(int) - same).max() <= 3


def test_a_region_that_a_mark_does_not_touch_has_none() -> None:
    image, mark = Size(1000, 1000), Mark(10, 10, 10, 10)
    assert mark.of_region(Box(0, 0, 100, 1000), image) is None
    assert mark.of_region(Box(200, 0, 100, 1000), image) is None
    assert mark.of_region(Box(0, 200, 100, 100), image) is None
    assert mark.of_region(Box(0, 0, 101, 1000), image) is not None
    assert mark.of_region(Box(100, 100, 100, 100), image) == Mark(0, 0, 100, 100)


@pytest.mark.parametrize("numbers", [(0, 0, 0, 5), (0, 0, 5, -1), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)])
def test_what_is_no_rectangle(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="no rectangle"):
        Mark(*numbers)


def test_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="no PNG"):
        Mark(0, 0, 5, 5, b"GIF89a")


def test_a_line_of_text() -> None:
    picture = Image.open(io.BytesIO(text_picture("© A library", colour="red", opacity=0.5, height=40)))
    assert picture.height == 40
    assert picture.width > 80
    pixels = np.asarray(picture)
    assert pixels[..., 3].max() == 128
    assert (pixels[pixels[..., 3] > 0][:, :3] == (255, 0, 0)).all()
    result = drawn(white(200, 50), [Mark(0, 0, 100, 100, text_picture("A"))])
    assert text_picture("A") is text_picture("A")
    assert (result == 255).all(), "white on white"
