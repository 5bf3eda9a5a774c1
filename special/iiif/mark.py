"""What is drawn over a part of an image for one caller: a picture, or black over what the caller may not see."""

from __future__ import annotations

import math
from dataclasses import dataclass

from special.geometry import Box, Size

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Mark:
    """A rectangle, in percent of the image's width and height, as `pct:x,y,w,h` has it, whatever its size is.

    It moves and scales with the image, so that all tiles of a viewer together show it once.
    """

    x: float
    y: float
    width: float
    height: float
    picture: bytes | None = None
    """A PNG, with opacity if it has any, which fills the rectangle; None: all of it is black."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x, self.y, self.width, self.height))) or min(self.width, self.height) <= 0:
            raise ValueError(f"a mark of {self.width} × {self.height} percent at {self.x}, {self.y} is no rectangle")
        if self.picture is not None and not self.picture.startswith(_PNG):
            raise ValueError("the picture of a mark is no PNG")

    def of_region(self, box: Box, image: Size) -> Mark | None:
        """The same rectangle in percent of a region of the image; None where they have nothing in common."""
        x, y = self.x * image.width / box.width, self.y * image.height / box.height
        x, y = x - 100 * box.x / box.width, y - 100 * box.y / box.height
        width, height = self.width * image.width / box.width, self.height * image.height / box.height
        if x >= 100 - _NEAR or y >= 100 - _NEAR or x + width <= _NEAR or y + height <= _NEAR:
            return None
        return Mark(x, y, width, height, self.picture)


_NEAR = 1e-6
"""In percent: two that only touch have nothing in common, however their edges are rounded."""
