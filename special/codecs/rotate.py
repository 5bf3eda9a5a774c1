"""Turning by any angle: the corners that come into being are transparent.

Quarter turns need none of this; see `raster.quarter_turned`.
"""

from __future__ import annotations

import math

import pyvips

from special import geometry
from special.codecs.raster import Raster, from_vips, has_alpha, size_of, to_vips


def rotated(raster: Raster, angle: float) -> Raster:
    """The raster turned clockwise about its middle, as large as `geometry.rotated_bounds` says, with alpha.

    Bicubic; edges are smoothed, since colours are multiplied by opacity meanwhile.
    """
    image = to_vips(raster)
    if not has_alpha(raster):
        image = image.bandjoin(255)
    bounds = geometry.rotated_bounds(size_of(raster), angle)
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    # Both grids count from their middles, so that middle goes to middle whatever the rounding of the bounds.
    turned = image.premultiply().affine(
        [cos, -sin, sin, cos],
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, bounds.width, bounds.height],
        idx=-(raster.shape[1] - 1) / 2,
        idy=-(raster.shape[0] - 1) / 2,
        odx=(bounds.width - 1) / 2,
        ody=(bounds.height - 1) / 2,
        background=[0] * image.bands,
        extend="background",
        premultiplied=True,
    )
    return from_vips(turned.unpremultiply().rint().cast("uchar"))
