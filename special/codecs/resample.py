"""Resampling: a frame of a decoded picture to a raster of an exact size, by Lanczos.

Shrinking from whole pixels is what most requests need: libvips does it in a stream and in device
colours, and colours are transformed afterwards, on the smaller picture. (Between gamma-coded device
spaces the order makes less than a level of difference; the cost differs by the square of the scale.)
Where pixels cannot be averaged as they are (alpha, Lab) colours go first.

Everything else is pillow's. Its resampler takes edges between pixels, where libvips' always centres;
and when libvips 8.18 enlarges, the picture ends up half an output pixel too far to the right and down.
Inks are no measure of light at all: they become colours before anything is averaged (averaging them first is
up to 4 levels off in the mean).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image as PillowImage

from special.codecs import colour
from special.codecs.raster import Raster, VipsImage, cut, from_vips, to_vips
from special.geometry import Box, Frame, Size

NEGLIGIBLE_PIXELS: Final = 1 / 64
"""An edge this near to a whole pixel counts as whole: it moves a black-to-white step by 4 levels at most."""
_GAP: Final = 3.0
"""Averaging blocks down to this many times the wanted size leaves Lanczos enough to work with."""


Colours = Callable[[VipsImage], VipsImage]
"""What makes decoded pixels of any kind 8-bit RGB or grey, opacity last."""


def resample(picture: Raster | VipsImage, frame: Frame, size: Size, colours: Colours = colour.to_srgb) -> Raster:
    """The frame's pixels at exactly this size, in 8 bits by `colours`, with alpha where there was any.

    A raster on whole pixels that has the size already is returned as a view; nothing is copied.
    """
    if not isinstance(picture, np.ndarray) and colour.is_ink(picture):
        window = _window(frame)
        picture = colour.from_inks(_crop(picture, window))
        frame = Frame(frame.x - window.x, frame.y - window.y, frame.width, frame.height)
    box = whole_pixels(frame)
    if box is not None and box.size == size:
        return cut(picture, box) if isinstance(picture, np.ndarray) else from_vips(colours(_crop(picture, box)))
    if box is None or not box.size.covers(size):
        return _by_pillow(picture, frame, size, colours)
    if isinstance(picture, np.ndarray):
        return from_vips(_resize(to_vips(cut(picture, box)), size))
    return from_vips(_shrunk(_crop(picture, box), size, colours))


def whole_pixels(frame: Frame) -> Box | None:
    """The box that a frame is, or None where an edge is between pixels."""
    edges = (frame.x, frame.y, frame.x + frame.width, frame.y + frame.height)
    nearest = [round(edge) for edge in edges]
    if any(abs(edge - whole) > NEGLIGIBLE_PIXELS for edge, whole in zip(edges, nearest, strict=True)):
        return None
    return Box.between(*nearest)


def _window(frame: Frame) -> Box:
    """The whole pixels that a frame touches."""
    return Box.between(
        math.floor(frame.x + NEGLIGIBLE_PIXELS),
        math.floor(frame.y + NEGLIGIBLE_PIXELS),
        math.ceil(frame.x + frame.width - NEGLIGIBLE_PIXELS),
        math.ceil(frame.y + frame.height - NEGLIGIBLE_PIXELS),
    )


def _crop(image: VipsImage, box: Box) -> VipsImage:
    return image.crop(box.x, box.y, box.width, box.height)


def _shrunk(image: VipsImage, size: Size, colours: Colours) -> VipsImage:
    """The image in 8 bits, smaller than it was."""
    if colour.averages(image):
        return colours(_resize(image, size))
    image = colours(image)
    if not image.hasalpha():
        return _resize(image, size)
    # Transparent pixels have colours too, mostly black; only multiplied by their opacity do they keep out of the mean.
    return _resize(image.premultiply(), size).unpremultiply().rint().cast("uchar")


def _resize(image: VipsImage, size: Size) -> VipsImage:
    return image.resize(size.width / image.width, vscale=size.height / image.height, kernel="lanczos3")


def _by_pillow(picture: Raster | VipsImage, frame: Frame, size: Size, colours: Colours) -> Raster:
    window = _window(frame)
    across = max(1, math.floor(frame.width / size.width / _GAP))
    down = max(1, math.floor(frame.height / size.height / _GAP))
    if isinstance(picture, np.ndarray) and across == down == 1:
        pixels = cut(picture, window)
    else:
        image = to_vips(cut(picture, window)) if isinstance(picture, np.ndarray) else _crop(picture, window)
        if colour.averages(image):
            image = image.shrink(across, down, ceil=True)
        else:
            across = down = 1
        pixels = from_vips(colours(image))
    height, width, channels = pixels.shape
    left, top = (frame.x - window.x) / across, (frame.y - window.y) / down
    right, bottom = left + frame.width / across, top + frame.height / down
    # pillow multiplies by alpha around resizing by itself.
    source = PillowImage.fromarray(pixels[..., 0] if channels == 1 else pixels)
    resized = source.resize(
        (size.width, size.height),
        PillowImage.Resampling.LANCZOS,
        box=(max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)),
    )
    return np.asarray(resized).reshape(size.height, size.width, channels)
