"""What the sweep's inputs show: arrays that every file is written from, and that every answer is compared with."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Real = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

PRECISE = ImageCms.Flags.NOOPTIMIZE
"""LittleCMS computes each pixel; else it would take Lab by a coarse table."""
Sizes = tuple[tuple[int, int], ...]
"""Widths and heights."""
SIZES: Sizes = ((600, 540), (533, 417), (1100, 90), (90, 1100), (300, 230))
"""Larger than a tile and smaller, upright and not, odd and even."""


@dataclass(frozen=True)
class Input:
    """A file, and what must come of it."""

    name: str
    data: bytes
    pixels: Pixels | None
    """Upright, 8 bits, (height, width, channels): grey, grey and opacity, RGB, RGB and opacity. None: to be refused."""
    tolerance: float = 1.0
    """Largest difference of a sample at full size."""
    mean_tolerance: float = 0.6
    refusal: str = ""
    """What the refusal must name."""
    is_wavelet: bool = False
    """Whether the file has smaller levels by a wavelet: see `half_a_pixel`."""


def shades(width: int, height: int, channels: int, rng: np.random.Generator) -> Real:
    """Soft shades with a few hard edges, from 0 to 1: (height, width, channels). Nothing in it is symmetric."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        across, down, phase = rng.uniform(0.3, 1.5), rng.uniform(0.3, 1.5), rng.uniform(0, 6)
        plane = (
            0.5 + 0.3 * np.sin(across * x / width * 6 + phase) * np.cos(down * y / height * 6) + 0.2 * (x / width - 0.5)
        )
        planes.append(plane)
    picture = np.stack(planes, axis=-1)
    top, left = height // 5, width // 7
    picture[top : top + height // 4, left : left + width // 5] = rng.uniform(0, 1, channels)
    picture[-height // 3 : -height // 6, -width // 4 : -width // 8] = rng.uniform(0, 1, channels)
    picture[: height // 16 + 1, : width // 16 + 1] = 1.0
    return picture.clip(0, 1)


def steps(shown: Real, bits: int) -> npt.NDArray[np.int64]:
    """From 0 to 1 in whole numbers of `bits` bits."""
    return np.rint(shown * ((1 << bits) - 1)).astype(np.int64)


def shown_8(numbers: npt.NDArray[np.int64], bits: int) -> Pixels:
    """Numbers of `bits` bits at 8 bits."""
    return np.rint(numbers * (255 / ((1 << bits) - 1))).astype(np.uint8)


def by_profile(pixels: Pixels, profile: bytes, mode: str = "RGB") -> Pixels:
    """What LittleCMS makes of grey, RGB or CMYK pixels with a profile."""
    source = Image.fromarray(pixels.squeeze(), "CMYK") if mode == "CMYK" else Image.fromarray(pixels.squeeze())
    moved = ImageCms.profileToProfile(
        source,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    return np.asarray(moved)


def to_lab(pixels: Pixels) -> Pixels:
    """SRGB as L*, a*, b* of 8 bits, a* and b* two's complement, as LittleCMS writes them."""
    transform = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="LAB",
        flags=PRECISE,
    )
    return np.asarray(transform)


def from_lab(lab: Pixels) -> Pixels:
    """The way back."""
    moved = ImageCms.profileToProfile(
        Image.frombytes("LAB", (lab.shape[1], lab.shape[0]), lab.tobytes()),
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=PRECISE,
    )
    return np.asarray(moved)


def to_ycc(pixels: Pixels) -> Pixels:
    """RGB as luma and chroma of full range (ITU-T T.871)."""
    red, green, blue = (pixels[..., channel].astype(np.float64) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    ycc = np.stack((luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128), axis=-1)
    return np.rint(ycc).clip(0, 255).astype(np.uint8)


def from_ycc(ycc: Pixels) -> Pixels:
    """The way back."""
    luma, blue, red = (ycc[..., channel].astype(np.float64) for channel in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack((luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), axis=-1)
    return np.rint(rgb).clip(0, 255).astype(np.uint8)


def stored(upright: npt.NDArray[np.generic], orientation: int) -> npt.NDArray[np.generic]:
    """The picture as a file with this Orientation keeps it (TIFF 6.0 section 8, table of tag 274)."""
    match orientation:
        case 2:
            return upright[:, ::-1]
        case 3:
            return upright[::-1, ::-1]
        case 4:
            return upright[::-1]
        case 5:
            return upright.swapaxes(0, 1)
        case 6:  # its first row is the right side, its first column the top
            return upright.swapaxes(0, 1)[::-1]
        case 7:
            return upright.swapaxes(0, 1)[::-1, ::-1]
        case 8:
            return upright.swapaxes(0, 1)[:, ::-1]
    return upright


def on_white(pixels: Pixels) -> Real:
    """RGB, with opacity laid on white."""
    real = pixels.astype(np.float64)
    if real.shape[2] in (2, 4):
        opacity = real[..., -1:] / 255
        real = real[..., :-1] * opacity + 255 * (1 - opacity)
    return np.repeat(real, 3, axis=2) if real.shape[2] == 1 else real


def resized(real: Real, box: tuple[int, int, int, int], width: int, height: int) -> Real:
    """A box of a picture, (x, y, width, height), at another size by Lanczos."""
    x, y, across, down = box
    image = Image.fromarray(np.rint(real[y : y + down, x : x + across]).clip(0, 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)).astype(np.float64)


def half_a_pixel(real: Real, box: tuple[int, int, int, int], width: int, height: int) -> float:
    """The mean difference that half a pixel of the smaller size makes in this box.

    Pixel n of a level of JPEG 2000 is at pixel n * 2**r of the picture (T.800 equation B-15), not in the middle of
    those that it stands for, which is half a pixel further. OpenJPEG shows the same: of the sweep's `jp2` number 109,
    the 19×17 pixels that `opj_decompress -r 5` makes of 600×540 differ from the picture at that size by 8.94 levels, as
    ours do, and from one that is half a pixel off by 3.86.
    """
    across, down = box[2] // width // 2, box[3] // height // 2
    moved = np.pad(real, ((0, down), (0, across), (0, 0)), mode="edge")[down:, across:]
    return float(np.abs(resized(moved, box, width, height) - resized(real, box, width, height)).mean())


def upright(stored_picture: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `stored`."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return stored(stored_picture, inverse)
