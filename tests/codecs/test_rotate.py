"""Turning: about the middle, to the exact bounds, with corners that are not there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from special.codecs.raster import Raster, mirrored, quarter_turned, upright
from special.codecs.rotate import rotated
from special.geometry import Orientation, Size, rotated_bounds
from tests.support.pieces import mean_difference, smooth


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("sides", [(60, 40), (61, 40), (61, 41)], ids=str)
def test_right_angles_are_those_of_a_quarter_turn(channels: int, quarters: int, sides: tuple[int, int]) -> None:
    picture = smooth(*sides, channels)
    if channels in (2, 4):
        picture[..., -1] = 255
    ours = rotated(picture, 90.0 * quarters)
    colours = 1 if channels < 3 else 3
    theirs = quarter_turned(picture, quarters)
    assert (ours[2:-2, 2:-2, -1] == 255).all()
    assert np.array_equal(ours[2:-2, 2:-2, :colours], theirs[2:-2, 2:-2, :colours])


@pytest.mark.parametrize("angle", [1, 22.5, 45, 89.5, 133, 200, 270.25, 359.9])
def test_turning_is_as_pillow_has_it(angle: float) -> None:
    picture = smooth(120, 80)
    ours = rotated(picture, angle)
    bounds = rotated_bounds(Size(120, 80), angle)
    assert ours.shape == (bounds.height, bounds.width, 4)
    # pillow turns counter-clockwise within the picture's own size: compare the middle
    theirs = np.asarray(Image.fromarray(picture).rotate(-angle, Image.Resampling.BICUBIC))
    middle = Image.fromarray(ours[..., :3])
    box = ((bounds.width - 40) / 2, (bounds.height - 40) / 2, (bounds.width + 40) / 2, (bounds.height + 40) / 2)
    cut = np.asarray(middle.resize((40, 40), Image.Resampling.BICUBIC, box=box))
    assert mean_difference(cut, theirs[20:60, 40:80]) < 1.0


def test_corners_are_transparent_and_the_middle_is_not() -> None:
    ours = rotated(np.full((50, 80, 3), 200, np.uint8), 30)
    assert (ours[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()
    middle = ours[ours.shape[0] // 2, ours.shape[1] // 2]
    assert middle.tolist() == [200, 200, 200, 255]
    # No edge is darkened by the nothing beside it.
    assert (ours[ours[..., 3] > 32][:, :3] >= 190).all()


@pytest.mark.parametrize("orientation", Orientation)
def test_upright_is_as_pillow_has_it(orientation: Orientation) -> None:
    methods = {
        Orientation.MIRROR: Image.Transpose.FLIP_LEFT_RIGHT,
        Orientation.TURN_180: Image.Transpose.ROTATE_180,
        Orientation.FLIP: Image.Transpose.FLIP_TOP_BOTTOM,
        Orientation.TRANSPOSE: Image.Transpose.TRANSPOSE,
        Orientation.TURN_90: Image.Transpose.ROTATE_270,
        Orientation.TRANSVERSE: Image.Transpose.TRANSVERSE,
        Orientation.TURN_270: Image.Transpose.ROTATE_90,
    }
    picture = smooth(30, 20)
    image = Image.fromarray(picture)
    theirs: Raster = np.asarray(image.transpose(methods[orientation]) if orientation in methods else image)
    assert np.array_equal(upright(picture, orientation), theirs)


def test_mirrored() -> None:
    picture = smooth(30, 20)
    assert np.array_equal(mirrored(picture)[:, 0], picture[:, 29])
