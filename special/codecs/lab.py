"""CIE L*a*b* to sRGB, as LittleCMS does it: from white D50 by colorimetric intent.

libvips takes every Lab for one of white D65 and so makes greys yellow or blue.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from special.codecs.raster import Raster

WHITE: Final = (0.9642, 1.0, 0.8249)
"""D50 as profiles have it (ICC.1:2022, 7.2.16)."""
TO_LINEAR: Final = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ],
    np.float32,
)
"""From XYZ of white D50 to linear sRGB: the inverse of the colorants in the profile of IEC 61966-2-1."""
_BAND_PIXELS: Final = 1 << 20


def to_srgb(pixels: npt.NDArray[np.uint8 | np.uint16], *, is_offset: bool) -> Raster:
    """L*, a*, b* of 8 or 16 bits, (height, width, 3), as sRGB.

    `is_offset`: a* and b* start at -128, as in profiles (ICCLab); else they are two's complement, as in TIFF 6.0
    section 23.
    """
    deep = pixels.itemsize == 2
    lightest = (65280 if is_offset else 65535) if deep else 255
    chroma = pixels[..., 1:] ^ (1 << 15 if deep else 1 << 7) if not is_offset else pixels[..., 1:]
    result: Raster = np.empty(pixels.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for at in range(0, len(pixels), rows):
        light = pixels[at : at + rows, :, 0].astype(np.float32) * (100 / lightest)
        a, b = np.moveaxis(chroma[at : at + rows].astype(np.float32) / (256 if deep else 1) - 128, -1, 0)
        result[at : at + rows] = from_values(light, a, b)
    return result


def from_values(light: npt.NDArray[np.float32], a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> Raster:
    """L* from 0 to 100, a* and b*, each (height, width), as sRGB."""
    middle = (light + 16) / 116
    edges = np.stack((middle + a / 500, middle, middle - b / 200), axis=-1)
    # CIE 15:2004, 8.2.1: a cube, and below 6/29 a line
    xyz = np.where(edges > 6 / 29, edges**3, (edges - 4 / 29) * (108 / 841)) * np.array(WHITE, np.float32)
    linear = (xyz @ TO_LINEAR.T).clip(0, 1)
    coded = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    shown: Raster = np.rint(coded * 255).astype(np.uint8)
    return shown
