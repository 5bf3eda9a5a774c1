"""Small pictures and the pieces that hold them, made as each test needs them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from special.formats.layout import Format, Piece
from special.geometry import Box, Frame, Orientation, Size
from special.iiif import Job, OutputFormat, Quality

Pixels = npt.NDArray[np.uint8]


def smooth(width: int, height: int, channels: int = 3, *, seed: int = 1) -> Pixels:
    """A soft picture with all tones, which survives lossy codecs: (height, width, channels)."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 256, (height // 64 + 3, width // 64 + 3, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(few[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
        for channel in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def encoded(pixels: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """A file of pillow's making."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def piece(
    data: bytes,
    kind: Format,
    crop: Frame | tuple[float, float, float, float],
    *,
    reduce: int = 0,
    orientation: Orientation = Orientation.UPRIGHT,
) -> Piece:
    """A piece whose crop may be written as a tuple."""
    frame = crop if isinstance(crop, Frame) else Frame(*crop)
    return Piece(data, kind, frame, reduce, None, orientation)


def job(
    width: int,
    height: int,
    *,
    mirror: bool = False,
    angle: float = 0.0,
    quality: Quality = "default",
    output: OutputFormat = "png",
) -> Job:
    """A job of that size; its box is of no matter to rendering."""
    return Job(Box(0, 0, 1, 1), Size(width, height), mirror, angle, quality, output)


def opened(data: bytes) -> Image.Image:
    """A rendered answer as pillow sees it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels_of(data: bytes, mode: str = "RGB") -> Pixels:
    """A rendered answer's pixels: (height, width[, channels])."""
    return np.asarray(opened(data).convert(mode))


def mean_difference(ours: Pixels, theirs: Pixels) -> float:
    """Mean absolute difference in levels. Both must have the same shape."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.int16) - theirs.astype(np.int16)).mean())
