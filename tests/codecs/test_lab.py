"""CIE L*a*b* as LittleCMS converts it."""

from __future__ import annotations

import numpy as np
import pytest

from special.codecs import lab
from tests.support.pieces import Pixels, smooth
from tests.sweep.pictures import from_lab, to_lab

LEVELS = 1.5
"""Largest difference that is allowed of colours that sRGB has."""


@pytest.fixture
def stored() -> Pixels:
    """L*, a*, b* of 8 bits, a* and b* two's complement, of colours inside of sRGB's."""
    return to_lab(64 + smooth(120, 90) // 2)


def test_eight_bits(stored: Pixels) -> None:
    difference = np.abs(lab.to_srgb(stored, is_offset=False).astype(int) - from_lab(stored))
    assert difference.max() <= LEVELS


def test_eight_bits_from_minus_128(stored: Pixels) -> None:
    moved = stored ^ np.array([0, 128, 128], np.uint8)
    assert np.array_equal(lab.to_srgb(moved, is_offset=True), lab.to_srgb(stored, is_offset=False))


@pytest.mark.parametrize(("is_offset", "light"), [(False, 257), (True, 256)], ids=["TIFF", "ICC"])
def test_sixteen_bits(stored: Pixels, is_offset: bool, light: int) -> None:
    moved = stored ^ np.array([0, 128, 128], np.uint8) if is_offset else stored
    deep = moved.astype(np.uint16)
    deep = np.stack((deep[..., 0] * light, deep[..., 1] << 8, deep[..., 2] << 8), axis=-1).astype(np.uint16)
    difference = np.abs(lab.to_srgb(deep, is_offset=is_offset).astype(int) - from_lab(stored))
    assert difference.max() <= LEVELS


def test_greys_are_grey() -> None:
    greys = np.stack((np.arange(256), np.zeros(256), np.zeros(256)), axis=-1).astype(np.uint8)[None]
    shown = lab.to_srgb(greys, is_offset=False)
    assert (np.ptp(shown.astype(int), axis=2) <= 1).all()
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, -1].tolist() == [255, 255, 255]
