"""Rasters to files: JPEG, PNG, WebP, GIF, TIFF and AVIF, without metadata but a profile.

One is embedded only where the colours are those of the master's own: all else is sRGB or grey by now, which is what
untagged pictures count as.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from special.codecs import colour, jpeg
from special.codecs.raster import Raster, VipsImage, flattened, to_vips
from special.errors import BadRequest
from special.geometry import Size
from special.iiif import OutputFormat

if TYPE_CHECKING:
    from special.images import StoredFormat

INCH_MM: Final = 25.4
LONGEST_SIDE: Final[dict[OutputFormat, int]] = {"jpg": jpeg.LONGEST_SIDE, "webp": 16_383, "gif": 65_535, "avif": 16_384}
"""The most that a format can say of width or height, in pixels; the others hold more than anyone makes."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How much care goes into each format."""

    jpeg_quality: int = 85
    """1 to 100; from 90 on colours keep their full resolution."""
    webp_quality: int = 80
    """1 to 100."""
    png_compression: int = 4
    """0 to 9; 9 makes a page of manuscript 2 % smaller in three times the time."""
    webp_effort: int = 2
    """0 to 6; 4 makes files 3 to 7 % smaller in 1.7 times the time."""
    gif_effort: int = 4
    """1 to 10: effort in the search for a palette."""
    avif_quality: int = 60
    """1 to 100."""
    avif_effort: int = 0
    """0 to 9; 1 makes files 10 to 12 % smaller in five times the time."""
    keep_profile: bool = False
    """Whether colours stay those of the master's own profile, grey or RGB, which is embedded; and its resolution."""

    def label(self, *formats: StoredFormat) -> str:
        """Formats and their qualities in words, such as `jpg 85, webp 80`."""
        qualities = {"jpg": self.jpeg_quality, "webp": self.webp_quality}
        return ", ".join(f"{name} {qualities[name]}" for name in formats)


def check_fits(size: Size, output: OutputFormat) -> None:
    """Raise `BadRequest` for a picture that the format cannot hold, before any work goes into it."""
    longest = LONGEST_SIDE.get(output)
    if longest is not None and size.long_side > longest:
        raise BadRequest(
            f"A {output} has at most {longest} pixels a side, not {size.width}×{size.height}; ask for a tif or a png."
        )


def encode(
    raster: Raster,
    output: OutputFormat,
    encoding: Encoding,
    profile: bytes | None = None,
    density: float | None = None,
) -> bytes:
    """The raster as a file. Opacity is kept where the format has it, and laid on white where not (JPEG).

    `profile` says what its colours are where they are not sRGB; a GIF has no place for one. `density`, in pixels per
    inch, is written where the format has a field of its own for it: JPEG, PNG, TIFF.
    """
    if output == "jpg":
        file = jpeg.encode(flattened(raster), quality=encoding.jpeg_quality, density=density)
        return file if profile is None else jpeg.with_profile(file, profile)
    image, keep = _image(raster, density), "none"
    if profile is not None:
        image, keep = colour.with_profile(image, profile), "icc"
    match output:
        case "png":
            data = image.pngsave_buffer(compression=encoding.png_compression, filter="up", keep=keep)
        case "webp":
            data = image.webpsave_buffer(Q=encoding.webp_quality, effort=encoding.webp_effort, keep=keep)
        case "gif":
            data = image.gifsave_buffer(effort=encoding.gif_effort, keep="none")
        case "tif":
            data = image.tiffsave_buffer(compression="deflate", predictor="horizontal", keep=keep)
        case "avif":
            data = image.heifsave_buffer(
                compression="av1", Q=encoding.avif_quality, effort=encoding.avif_effort, keep=keep
            )
    result: bytes = data
    return result


def encode_bitonal(raster: Raster, output: OutputFormat, encoding: Encoding, density: float | None = None) -> bytes:
    """A raster of black (0) and white (255) as a file: one bit a pixel where the format can (PNG, GIF, TIFF)."""
    image = _image(raster, density)
    match output:
        case "jpg":
            return jpeg.encode(raster, quality=encoding.jpeg_quality, density=density)
        case "png":
            data = image.pngsave_buffer(bitdepth=1, compression=encoding.png_compression, keep="none")
        case "webp":
            data = image.webpsave_buffer(lossless=True, keep="none")
        case "gif":
            data = image.gifsave_buffer(bitdepth=1, dither=0, keep="none")
        case "tif":
            data = image.tiffsave_buffer(compression="ccittfax4", bitdepth=1, keep="none")
        case "avif":
            data = image.heifsave_buffer(compression="av1", lossless=True, effort=encoding.avif_effort, keep="none")
    result: bytes = data
    return result


def _image(raster: Raster, density: float | None) -> VipsImage:
    image = to_vips(raster)
    return image if density is None else image.copy(xres=density / INCH_MM, yres=density / INCH_MM)
