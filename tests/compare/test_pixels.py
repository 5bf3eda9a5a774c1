"""How far pictures are apart, by arrays that were made to be so."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from special.compare import pixels
from special.compare.pixels import Unreadable
from special.geometry import Box, Size


def png(samples: np.ndarray) -> bytes:
    packed = BytesIO()
    Image.fromarray(samples).save(packed, "PNG")
    return packed.getvalue()


GREY = np.full((75, 100, 3), 100, np.uint8)


def test_the_same_pixels_in_other_bytes() -> None:
    packed = BytesIO()
    Image.fromarray(GREY).save(packed, "PNG", compress_level=0)
    seen = pixels.difference(png(GREY), packed.getvalue())
    assert (seen.psnr_db, seen.mean, seen.worst_mean) == (math.inf, 0, 0)


def test_a_shift_of_all_samples() -> None:
    seen = pixels.difference(png(GREY), png(GREY + 10))
    assert seen.mean == 10
    assert seen.psnr_db == pytest.approx(20 * math.log10(255 / 10))  # one difference everywhere: MSE is its square
    assert seen.worst_mean == 10


def test_the_worst_place_is_found_in_a_strip_that_is_not_whole() -> None:
    other = GREY.copy()
    other[70:75, 97:100] = 220  # in the last block: columns 96 to 99 of rows 64 to 74
    other[0:4, 0:4] = 120
    seen = pixels.difference(png(GREY), png(other))
    assert seen.worst == Box(96, 64, 4, 11)
    assert seen.worst_mean == pytest.approx(120 * 15 / 44)
    assert seen.mean == pytest.approx((120 * 15 + 20 * 16) / 7500)


def test_a_darker_picture_is_as_far_as_a_lighter_one() -> None:
    assert pixels.difference(png(GREY), png(GREY + 10)) == pixels.difference(png(GREY + 10), png(GREY))


@pytest.mark.parametrize("data", [b"", b"<html>", png(GREY)[:60]])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(Unreadable):
        pixels.difference(data, png(GREY))


def test_the_size_is_read_of_the_header_alone() -> None:
    assert pixels.size_of(png(GREY)[:100]) == Size(100, 75)
