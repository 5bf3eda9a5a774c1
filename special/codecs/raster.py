"""Rasters: decoded pixels in memory, in the one form that everything after resizing understands.

A raster is what a picture becomes once its colours are sRGB and its size is right. It is small by
then, so turning, greying and encoding work on plain arrays: a slice or a flip of an array costs
nothing, where libvips would set up a pipeline and a thread (0.5 ms each, measured).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyvips

from special.geometry import Box, Orientation, Size

Raster = npt.NDArray[np.uint8]
"""(height, width, channels), 8 bits, sRGB. 1: grey, 2: grey and alpha, 3: RGB, 4: RGB and alpha (not premultiplied)."""

VipsImage = Any
"""A `pyvips.Image` (the package has no types): lazy, of any depth and colour space, its profile inside."""

Colour = Literal["grey", "srgb", "cmyk"]
"""What the colour channels of a decoded picture mean."""
CHANNELS: Final[dict[Colour, int]] = {"grey": 1, "srgb": 3, "cmyk": 4}
"""How many there are of each, without opacity."""
INTERPRETATIONS: Final[dict[tuple[Colour, int], str]] = {
    ("grey", 1): "b-w",
    ("grey", 2): "grey16",
    ("srgb", 1): "srgb",
    ("srgb", 2): "rgb16",
    ("cmyk", 1): "cmyk",
    ("cmyk", 2): "cmyk",
}
"""What libvips calls them, by bytes of a sample."""

_FORMATS = {1: "uchar", 2: "ushort"}
_INTERPRETATIONS = {1: "b-w", 2: "b-w", 3: "srgb", 4: "srgb"}


def size_of(raster: Raster) -> Size:
    """Width and height."""
    return Size(raster.shape[1], raster.shape[0])


def has_alpha(raster: Raster) -> bool:
    """Whether the last channel is opacity."""
    return raster.shape[2] in (2, 4)


def cut(raster: Raster, box: Box) -> Raster:
    """A part of a raster. A view; copies nothing."""
    return raster[box.y : box.bottom, box.x : box.right]


def to_vips(pixels: npt.NDArray[np.uint8 | np.uint16]) -> VipsImage:
    """The same pixels for libvips, 8 or 16 bits, which keeps them alive. Copies only what is not contiguous."""
    dense = np.ascontiguousarray(pixels)
    height, width, channels = dense.shape
    image = pyvips.Image.new_from_memory(dense, width, height, channels, _FORMATS[dense.itemsize])
    return image.copy(interpretation=_INTERPRETATIONS.get(channels, "multiband"))


def from_vips(image: VipsImage) -> Raster:
    """Run a pipeline that ends in 8-bit sRGB or grey and take its pixels. One copy."""
    pixels: Raster = np.frombuffer(image.write_to_memory(), np.uint8)
    return pixels.reshape(image.height, image.width, image.bands)


def upright(raster: Raster, orientation: Orientation) -> Raster:
    """Turn a stored picture upright (TIFF 6.0, tag 274). A view; copies nothing."""
    if orientation.swaps_sides:
        raster = raster.transpose(1, 0, 2)
    # The places of the stored picture's first row and column, as tag 274 gives them, after the transposition.
    match orientation:
        case Orientation.MIRROR | Orientation.TURN_90:
            return raster[:, ::-1]
        case Orientation.TURN_180 | Orientation.TRANSVERSE:
            return raster[::-1, ::-1]
        case Orientation.FLIP | Orientation.TURN_270:
            return raster[::-1]
        case _:
            return raster


def mirrored(raster: Raster) -> Raster:
    """Left becomes right. A view; copies nothing."""
    return raster[:, ::-1]


def quarter_turned(raster: Raster, quarters: int) -> Raster:
    """Turned clockwise by `quarters` right angles. A view; copies nothing."""
    return np.rot90(raster, -quarters)


def flattened(raster: Raster) -> Raster:
    """Laid on white; the same raster if it is opaque."""
    if not has_alpha(raster):
        return raster
    return from_vips(to_vips(raster).flatten(background=255))


def grey(raster: Raster) -> Raster:
    """One channel of lightness, and alpha where there was any."""
    if raster.shape[2] < 3:
        return raster
    return from_vips(to_vips(raster).colourspace("b-w"))


def bitonal(raster: Raster) -> Raster:
    """Black (0) and white (255), divided at mid-grey, on white paper. One channel, never alpha."""
    tones = grey(flattened(raster))
    return np.where(tones < 128, np.uint8(0), np.uint8(255))
