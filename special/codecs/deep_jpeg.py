"""JPEG of 12 bits and lossless JPEG, by imagecodecs, an extra: libvips' wheel decodes neither."""

from __future__ import annotations

from typing import Final

import numpy as np

from special.codecs import colour
from special.codecs.jpeg import JpegHeader
from special.codecs.raster import INTERPRETATIONS, Colour, VipsImage, to_vips
from special.errors import Malformed
from special.formats import require_extra

_COLOURS: Final[dict[int, Colour]] = {1: "grey", 3: "srgb"}


def decode(data: bytes, head: JpegHeader) -> VipsImage:
    """All pixels, as 8 or 16 bits at full range, with the file's profile. Two copies in memory. Raises `Malformed`."""
    require_extra("imagecodecs", f"a JPEG of {head.bits} bits")
    import imagecodecs

    try:
        samples = np.atleast_3d(imagecodecs.jpeg8_decode(data))
    except (RuntimeError, ValueError) as error:
        raise Malformed(f"imagecodecs does not decode a JPEG of {head.bits} bits: {error}") from error
    if samples.shape != (head.size.height, head.size.width, head.components):
        raise Malformed(f"a JPEG of {head.size} pixels was decoded to {samples.shape[1]}×{samples.shape[0]}")
    depth = np.uint8 if head.bits <= 8 else np.uint16
    highest = np.iinfo(depth).max
    steps = np.rint(np.arange(1 << head.bits) * (highest / ((1 << head.bits) - 1))).astype(depth)
    pixels = steps.take(samples, mode="clip")
    image = to_vips(pixels).copy(interpretation=INTERPRETATIONS[_COLOURS[head.components], pixels.itemsize])
    return colour.with_profile(image, head.profile) if head.profile else image
