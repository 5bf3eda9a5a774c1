"""Frames land where they should, to a fraction of a pixel, and whole ones are not touched."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips
from PIL import Image

from special.codecs.raster import Raster, to_vips
from special.codecs.resample import resample, whole_pixels
from special.geometry import Box, Frame, Size
from tests.support.pieces import mean_difference, smooth

SPOT = (101.3, 83.7, 20.0)
"""The middle of a soft white spot on black, between pixels, and its radius."""


def spot(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The spot's light at the crossings of these columns and rows: (rows, columns)."""
    x, y, radius = SPOT
    return 255 * np.exp(-(((down[:, None] - y) / radius) ** 2)) * np.exp(-(((across[None, :] - x) / radius) ** 2))


def displacement(raster: Raster, frame: Frame) -> tuple[float, float]:
    """How far from its place the spot is, in pixels of the frame, by least squares.

    Every pixel weighs by the light's slope there, so that rounding to 8 bits in the faint skirts weighs nothing.
    """
    height, width, _ = raster.shape
    across = frame.x + (np.arange(width) + 0.5) * frame.width / width
    down = frame.y + (np.arange(height) + 0.5) * frame.height / height
    expected = spot(across, down)
    x, y, radius = SPOT
    slopes = [
        (2 / radius**2 * (across[None, :] - x) * expected).ravel(),
        (2 / radius**2 * (down[:, None] - y) * expected).ravel(),
    ]
    error = (raster[..., 0] - expected).ravel()
    (right, below), *_ = np.linalg.lstsq(np.stack(slopes, axis=1), error, rcond=None)
    return float(right), float(below)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(Frame(0, 0, 200, 160), id="all of it"),
        pytest.param(Frame(20, 10, 160, 140), id="whole pixels"),
        pytest.param(Frame(20.25, 10.6, 160, 140), id="shifted"),
        pytest.param(Frame(19.5, 10.5, 161.7, 140.3), id="between pixels"),
        pytest.param(Frame(0, 0, 199.25, 159.5), id="a last column in part"),
    ],
)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(160, 140), id="about as large"),
        pytest.param(Size(80, 70), id="half"),
        pytest.param(Size(47, 41), id="a third"),
        pytest.param(Size(21, 18), id="an eighth"),
        pytest.param(Size(321, 281), id="enlarged"),
        pytest.param(Size(160, 35), id="squeezed"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True], ids=["raster", "image"])
def test_a_spot_lands_where_the_frame_says(frame: Frame, size: Size, lazy: bool) -> None:
    picture = np.round(spot(np.arange(200) + 0.5, np.arange(160) + 0.5)).astype(np.uint8)[..., None]
    ours = resample(to_vips(picture) if lazy else picture, frame, size)
    assert ours.shape == (size.height, size.width, 1)
    assert displacement(ours, frame) == pytest.approx((0, 0), abs=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_pixels_of_the_right_size_are_a_view(channels: int) -> None:
    picture = smooth(64, 48, channels)
    ours = resample(picture, Frame(10, 20, 30, 25), Size(30, 25))
    assert np.array_equal(ours, picture[20:45, 10:40])
    assert np.shares_memory(ours, picture)


@pytest.mark.parametrize(
    "size", [pytest.param(Size(150, 100), id="half"), pytest.param(Size(97, 61), id="a third"), Size(290, 150)]
)
@pytest.mark.parametrize(
    "frame",
    [pytest.param(Frame(0, 0, 300, 200), id="whole"), pytest.param(Frame(3.4, 2.3, 290.2, 190.9), id="between")],
)
def test_resampling_is_as_pillow_has_it(frame: Frame, size: Size) -> None:
    picture = smooth(300, 200)
    box = (frame.x, frame.y, frame.x + frame.width, frame.y + frame.height)
    theirs = np.asarray(Image.fromarray(picture).resize((size.width, size.height), Image.Resampling.LANCZOS, box))
    assert mean_difference(resample(picture, frame, size), theirs) < 0.5


@pytest.mark.parametrize(
    ("frame", "box"),
    [
        pytest.param(Frame(0, 0, 10, 10), Box(0, 0, 10, 10), id="whole"),
        pytest.param(Frame(2.999999, 1.0000001, 9.99999, 7), Box(3, 1, 10, 7), id="whole but for arithmetic"),
        pytest.param(Frame(2.01, 0, 10, 10), Box(2, 0, 10, 10), id="a hundredth off"),
        pytest.param(Frame(2.02, 0, 10, 10), None, id="a fiftieth off"),
        pytest.param(Frame(0, 0, 10, 9.5), None, id="half a row"),
        pytest.param(Frame(0, 0, 1.0, 1.0), Box(0, 0, 1, 1), id="one pixel"),
    ],
)
def test_whole_pixels(frame: Frame, box: Box | None) -> None:
    assert whole_pixels(frame) == box


@pytest.mark.parametrize("frame", [Frame(0, 0, 64, 64), Frame(0.5, 0.5, 63, 63)], ids=["whole", "between"])
@pytest.mark.parametrize("size", [Size(17, 17), Size(101, 101)], ids=["smaller", "larger"])
def test_transparent_colours_do_not_bleed(frame: Frame, size: Size) -> None:
    # Red on the right; on the left invisible green, which must not be seen anywhere.
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, :32] = (0, 255, 0, 0)
    picture[:, 32:] = (255, 0, 0, 255)
    ours = resample(to_vips(picture), frame, size)
    visible = ours[ours[..., 3] > 16]
    assert len(visible)
    assert visible[:, 1].max() <= 8
    assert visible[:, 0].min() >= 247


@pytest.mark.parametrize("sides", [(1, 1), (1, 500), (500, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("size", [Size(1, 1), Size(7, 300), Size(300, 7)], ids=str)
def test_extreme_shapes_are_exact(sides: tuple[int, int], size: Size) -> None:
    width, height = sides
    picture = np.full((height, width, 3), 77, np.uint8)
    ours = resample(picture, Frame(0, 0, width, height), size)
    assert ours.shape == (size.height, size.width, 3)
    assert (ours == 77).all()


def test_sixteen_bits_between_pixels() -> None:
    deep = (smooth(120, 90).astype(np.uint16) * 257).astype(np.uint16)
    image = pyvips.Image.new_from_memory(deep.tobytes(), 120, 90, 3, "ushort").copy(interpretation="rgb16")
    frame = Frame(1.5, 2.5, 110.3, 80.2)
    assert mean_difference(resample(image, frame, Size(60, 50)), resample(smooth(120, 90), frame, Size(60, 50))) < 0.5
