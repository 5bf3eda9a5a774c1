"""Sizes and boxes in pixels, and the one place where anything is rounded.

info.json `sizes`, the derivative generator, the sizes file and the matcher all call the
functions here, so a size that one of them names is never missed by another.

Coordinates grow right and down; boxes are half-open. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """A width and a height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a size needs at least 1×1 pixels, not {self.width}×{self.height}")

    def __str__(self) -> str:
        return f"{self.width},{self.height}"

    @property
    def long_side(self) -> int:
        """The longer of width and height."""
        return max(self.width, self.height)

    @property
    def area(self) -> int:
        """Width times height, in pixels."""
        return self.width * self.height

    @property
    def turned(self) -> Size:
        """Height before width: the size after a quarter turn."""
        return Size(self.height, self.width)

    def reduced(self, count: int) -> Size:
        """Both sides divided by 2**count and rounded up, as codecs and pyramids do."""
        return Size(ceil_div(self.width, 1 << count), ceil_div(self.height, 1 << count))

    def covers(self, other: Size) -> bool:
        """Whether both sides are at least as long as the other's."""
        return self.width >= other.width and self.height >= other.height


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of whole pixels: `x <= column < right`, `y <= row < bottom`."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a box needs at least 1×1 pixels, not {self.width}×{self.height}")

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    @classmethod
    def whole(cls, size: Size) -> Box:
        """The box of a whole image."""
        return cls(0, 0, size.width, size.height)

    @classmethod
    def between(cls, x: int, y: int, right: int, bottom: int) -> Box:
        """The box from one corner to the other."""
        return cls(x, y, right - x, bottom - y)

    @property
    def right(self) -> int:
        """The first column that is outside."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The first row that is outside."""
        return self.y + self.height

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.width, self.height)

    def within(self, size: Size) -> Box | None:
        """The part inside an image, or None where there is none."""
        right, bottom = min(self.right, size.width), min(self.bottom, size.height)
        x, y = max(self.x, 0), max(self.y, 0)
        return Box.between(x, y, right, bottom) if x < right and y < bottom else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle in the pixels of one decoded picture; its edges may be between pixels.

    A box of a master seldom falls on whole pixels of a smaller pyramid level: column 3 of
    the master is column 0.75 at a quarter of its size. Rounding that would shift the picture.
    """

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def whole(cls, size: Size) -> Frame:
        """The frame of a whole picture."""
        return cls(0.0, 0.0, float(size.width), float(size.height))

    @classmethod
    def of(cls, box: Box, scale_x: float, scale_y: float, *, origin: tuple[int, int] = (0, 0)) -> Frame:
        """A box scaled into another pixel grid, relative to `origin` in that grid."""
        return cls(
            box.x * scale_x - origin[0],
            box.y * scale_y - origin[1],
            box.width * scale_x,
            box.height * scale_y,
        )

    def within(self, size: Size) -> Frame:
        """Clipped to a picture of this size, by less than a pixel in all sane cases."""
        x, y = min(max(self.x, 0.0), size.width - 1.0), min(max(self.y, 0.0), size.height - 1.0)
        return Frame(
            x,
            y,
            max(min(self.x + self.width, float(size.width)) - x, 1.0),
            max(min(self.y + self.height, float(size.height)) - y, 1.0),
        )


class Orientation(IntEnum):
    """The EXIF/TIFF orientation tag: how a stored picture is turned upright.

    Source: TIFF 6.0, tag 274. The name says what the *stored* picture needs.
    """

    UPRIGHT = 1
    MIRROR = 2
    TURN_180 = 3
    FLIP = 4
    TRANSPOSE = 5
    TURN_90 = 6
    TRANSVERSE = 7
    TURN_270 = 8

    @classmethod
    def of(cls, value: object) -> Orientation:
        """The tag's value; whatever is not 1 to 8 counts as upright."""
        return cls(value) if isinstance(value, int) and 1 <= value <= 8 else cls.UPRIGHT

    @property
    def swaps_sides(self) -> bool:
        """Whether the upright picture is as wide as the stored one is high."""
        return self >= Orientation.TRANSPOSE

    def upright(self, stored: Size) -> Size:
        """The size as people see it, from the size as it is stored."""
        return stored.turned if self.swaps_sides else stored

    def to_stored(self, box: Box, stored: Size) -> Box:
        """A box of the upright picture in the coordinates of the stored picture."""
        x, y, w, h = box.x, box.y, box.width, box.height
        if self.swaps_sides:
            x, y, w, h = y, x, h, w
        if self in (Orientation.MIRROR, Orientation.TURN_180, Orientation.TRANSVERSE, Orientation.TURN_270):
            x = stored.width - x - w
        if self in (Orientation.TURN_180, Orientation.FLIP, Orientation.TURN_90, Orientation.TRANSVERSE):
            y = stored.height - y - h
        return Box(x, y, w, h)


def ceil_div(number: int, divisor: int) -> int:
    """`number / divisor`, rounded up."""
    return -(-number // divisor)


def half_up(number: int, divisor: int) -> int:
    """`number / divisor` rounded to the nearest whole number, halves up, at least 1.

    Integer arithmetic throughout: a float would round 2.5 to 2 and lose the last digit of long sides.
    """
    return max(1, (2 * number + divisor) // (2 * divisor))


def to_width(shape: Size, width: int) -> Size:
    """The size with exactly this width and the shape's proportions."""
    return Size(width, half_up(shape.height * width, shape.width))


def to_height(shape: Size, height: int) -> Size:
    """The size with exactly this height and the shape's proportions."""
    return Size(half_up(shape.width * height, shape.height), height)


def to_fit(shape: Size, bounds: Size) -> Size:
    """The largest size of the shape's proportions inside `bounds`; exact on the side that binds."""
    # width binds where bounds.width / shape.width <= bounds.height / shape.height
    if bounds.width * shape.height <= bounds.height * shape.width:
        return to_width(shape, bounds.width)
    return to_height(shape, bounds.height)


def to_area(shape: Size, area: int) -> Size:
    """The largest size of the shape's proportions with at most `area` pixels."""
    if shape.area <= area:
        return shape
    width = max(1, math.isqrt(area * shape.width // shape.height))
    size = to_width(shape, width)
    while size.area > area and size.width > 1:
        size = to_width(shape, size.width - 1)
    return size


def rotated_bounds(size: Size, angle: float) -> Size:
    """The bounding box of a picture turned by `angle` degrees.

    `|w cos a| + |h sin a|` by `|h cos a| + |w sin a|`, each rounded half up.
    """
    if angle % 180 == 0:
        return size
    if angle % 90 == 0:
        return size.turned
    turn = math.radians(angle)
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    return Size(
        max(1, math.floor(size.width * cos + size.height * sin + 0.5)),
        max(1, math.floor(size.height * cos + size.width * sin + 0.5)),
    )
