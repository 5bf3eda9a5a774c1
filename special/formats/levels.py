"""Which sizes are believable, and which smaller level of a picture is enough. Pure."""

from __future__ import annotations

from special.errors import Malformed, Unsupported
from special.geometry import Box, Size

MAX_SIDE = 100_000_000
"""libvips' own limit for a width or a height, in pixels."""
SHORTFALL = 17 / 16
"""How far a level may be enlarged where rounding alone made it too small."""


def checked(what: str, width: int, height: int) -> Size:
    """A size out of a file. Raises `Malformed` if a side is 0, `Unsupported` if one is beyond all bounds."""
    if width < 1 or height < 1:
        raise Malformed(f"the {what} says it is {width}×{height} pixels")
    if max(width, height) > MAX_SIDE:
        raise Unsupported(f"the {what} says it is {width}×{height} pixels; {MAX_SIDE} is the longest side possible")
    return Size(width, height)


def serves(box: Box, factor: int, size: Size) -> bool:
    """Whether a level at 1/factor has the pixels to show `box` at `size`.

    A tile at the picture's edge is asked for at its size rounded up (IIIF Image API 3.0,
    implementation notes, section 8): 487 columns at 1/8 as 61, where the level has 60.875. Less than
    a pixel and less than 1/16 short is therefore enough; the next level has four times the bytes.
    """
    return _reaches(box.width / factor, size.width) and _reaches(box.height / factor, size.height)


def _reaches(have: float, want: int) -> bool:
    return have > want - 1 and have * SHORTFALL >= want
