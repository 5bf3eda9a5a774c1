"""How far two pictures of one size are apart. CPU alone: some 20 ms for each megapixel, decoding included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from special.geometry import Box, Size

BLOCK = 32
"""Side of the squares of which the worst is found, in pixels."""
MAX_PIXELS = 200_000_000
"""Larger pictures are not decoded."""


class Unreadable(Exception):
    """What was sent as a picture is none that can be decoded."""


@dataclass(frozen=True, slots=True)
class PixelDifference:
    """Two pictures, compared as RGB with 8 bits."""

    psnr_db: float
    """Peak signal-to-noise ratio: infinite where they are the same, above 40 where no eye sees a difference."""
    mean: float
    """Mean absolute difference of a sample, 0 to 255."""
    worst: Box
    """The square with the largest mean difference."""
    worst_mean: float


def size_of(data: bytes) -> Size:
    """Width and height by the picture's own header. Raises `Unreadable`."""
    with _opened(data) as picture:
        return Size(*picture.size)


def difference(old: bytes, new: bytes) -> PixelDifference:
    """Compare two encoded pictures of one size. Raises `Unreadable`."""
    before, after = rgb(old), rgb(new)  # (height, width, 3) uint8
    height, width, _ = before.shape
    columns = np.arange(0, width, BLOCK)
    widths = np.diff(np.append(columns, width))
    squares, total = 0, 0
    worst, worst_mean = Box(0, 0, min(BLOCK, width), min(BLOCK, height)), 0.0
    for y in range(0, height, BLOCK):  # a strip at a time: differences take twice the memory of the pictures
        apart = np.abs(before[y : y + BLOCK].astype(np.int16) - after[y : y + BLOCK])
        rows = apart.shape[0]
        squares += int(np.square(apart, dtype=np.int64).sum())
        sums = np.add.reduceat(apart.sum(axis=(0, 2), dtype=np.int64), columns)  # (blocks,)
        total += int(sums.sum())
        means = sums / (widths * rows * 3)
        at = int(means.argmax())
        if means[at] > worst_mean:
            worst, worst_mean = Box(int(columns[at]), y, int(widths[at]), rows), float(means[at])
    samples = before.size
    psnr_db = 10 * math.log10(255**2 * samples / squares) if squares else math.inf
    return PixelDifference(psnr_db, total / samples, worst, worst_mean)


def rgb(data: bytes) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """A picture's samples, (height, width, 3); transparent parts as their colour. Raises `Unreadable`."""
    try:
        with _opened(data) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(str(error)) from None


def _opened(data: bytes) -> Image.Image:
    try:
        picture = Image.open(BytesIO(data))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(str(error)) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise Unreadable(f"{picture.width}×{picture.height} pixels are too many")
    return picture
