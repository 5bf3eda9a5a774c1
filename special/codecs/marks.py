"""Draws marks on a raster: pictures with their opacity, and black that covers more rather than less."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np

from special.codecs import colour, vips
from special.codecs import raster as rasters
from special.codecs.raster import Raster
from special.codecs.resample import resample
from special.errors import Unsupported
from special.geometry import Box, Frame, Size
from special.iiif import Mark

MARGIN: Final = 1
"""Pixels that black covers around its rectangle: resampling spreads what is inside."""
MAX_PICTURE_PIXELS: Final = 4_000_000


def drawn(raster: Raster, marks: Iterable[Mark]) -> Raster:
    """The raster with its marks, pictures first: what is black stays black. Copies it. Raises `Unsupported`."""
    marked = raster.copy()
    for mark in sorted(marks, key=lambda it: it.picture is None):
        if mark.picture is None:
            _blacken(marked, mark)
        else:
            _lay_on(marked, mark, mark.picture)
    return marked


def _blacken(raster: Raster, mark: Mark) -> None:
    left, top, right, bottom = _edges(mark, rasters.size_of(raster))
    visible = _visible((left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN), rasters.size_of(raster))
    if visible is not None:
        covered = rasters.cut(raster, visible)
        covered[:] = 0
        if rasters.has_alpha(raster):
            covered[..., -1] = 255


def _lay_on(raster: Raster, mark: Mark, data: bytes) -> None:
    size = rasters.size_of(raster)
    left, top, right, bottom = _edges(mark, size)
    visible = _visible((left, top, right, bottom), size)
    if visible is None:
        return
    with vips.reading("png"):
        picture = vips.load(data, "png")
        if picture.width * picture.height > MAX_PICTURE_PIXELS:
            raise Unsupported(f"the picture of a mark has {picture.width} × {picture.height} pixels")
        pixels = rasters.from_vips(colour.to_srgb(picture))
    across, down = picture.width / (right - left), picture.height / (bottom - top)
    frame = Frame(
        (visible.x - left) * across, (visible.y - top) * down, visible.width * across, visible.height * down
    ).within(rasters.size_of(pixels))
    shown = resample(pixels, frame, visible.size)
    opacity = shown[..., -1:].astype(np.float32) / 255 if rasters.has_alpha(shown) else np.float32(1)
    colours = rasters.grey(shown) if raster.shape[2] < 3 else shown
    count = 1 if raster.shape[2] < 3 else 3
    below = rasters.cut(raster, visible)
    mixed = below[..., :count] * (1 - opacity) + colours[..., :count] * opacity
    below[..., :count] = np.rint(mixed)
    if rasters.has_alpha(raster):
        below[..., -1:] = np.rint(255 - (255 - below[..., -1:]) * (1 - opacity))


def _edges(mark: Mark, size: Size) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in pixels of the raster."""
    across, down = size.width / 100, size.height / 100
    return mark.x * across, mark.y * down, (mark.x + mark.width) * across, (mark.y + mark.height) * down


def _visible(edges: tuple[float, float, float, float], size: Size) -> Box | None:
    """The pixels that a rectangle touches."""
    left, top = max(0, math.floor(edges[0])), max(0, math.floor(edges[1]))
    right, bottom = min(size.width, math.ceil(edges[2])), min(size.height, math.ceil(edges[3]))
    return Box.between(left, top, right, bottom) if left < right and top < bottom else None
