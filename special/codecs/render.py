"""Encoded bytes and a job in, encoded bytes out: all work on pixels, as pure functions.

    decode -> crop, resize, colours to sRGB -> upright -> marks -> mirror -> rotate -> quality -> encode

The order after resizing is that of the specification (Image API 3.0, section 4). Turning upright
comes after resizing, since it is the same there and more expensive before. These functions run in a decoder
process (see `workers`), which has called `prepare`; nothing here waits for anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np

from special.codecs import colour, openjpeg, pdf, tiff_unpacking, vips
from special.codecs import raster as rasters
from special.codecs.decode import decode
from special.codecs.encode import Encoding, check_fits, encode, encode_bitonal
from special.codecs.marks import drawn
from special.codecs.raster import Raster, VipsImage
from special.codecs.resample import resample
from special.codecs.rotate import rotated
from special.formats import Piece
from special.geometry import Frame, Size
from special.iiif import Job

__all__ = ["MAX_PIXELS", "Encoding", "Rendered", "prepare", "render", "render_all"]

MAX_PIXELS: Final = 2_000_000_000
"""Largest picture that is decoded, where the caller sets no other bound: that of the settings' default."""
_ENOUGH: Final = 2
"""A picture this many times larger, on both sides, makes the same smaller one as the master does."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """An answer's bytes and what they cost."""

    data: bytes
    """A file in the job's format, of exactly `job.output`."""
    decode_ms: float
    """From the piece's bytes to pixels of the right size."""
    encode_ms: float
    """From those pixels to `data`."""


def prepare() -> None:
    """Make this process ready to render, and load all that this needs: a sandbox may allow no file afterwards.

    Raises `ConfigurationError` if its codecs are not the ones we trust.
    """
    vips.prepare()
    openjpeg.prepare()
    pdf.prepare()
    tiff_unpacking.prepare()


def render(piece: Piece, job: Job, encoding: Encoding, max_pixels: int = MAX_PIXELS) -> Rendered:
    """Make what the job asks of a piece that shows the job's box.

    Raises `Malformed` and `Unsupported` for the piece, `BadRequest` for a size that the format cannot hold.
    """
    return render_all(piece, [job], encoding, max_pixels)[0]


def render_all(piece: Piece, jobs: Sequence[Job], encoding: Encoding, max_pixels: int = MAX_PIXELS) -> list[Rendered]:
    """Several jobs of one box from one decode, in the order of the jobs.

    Each size is made from the smallest picture made so far that is at least twice as large, else from the decoded
    piece itself. The decode counts at the largest job. Raises as `render` does.
    """
    for job in jobs:
        check_fits(job.output, job.format)
    scaled, profile = _scale(piece, {job.size for job in jobs}, encoding, max_pixels)
    results: list[Rendered] = []
    for job in jobs:
        raster, decode_ms = scaled[job.size]
        start = perf_counter()
        data = _finish(raster, job, encoding, profile, _density(piece, job) if encoding.keep_profile else None)
        results.append(Rendered(data, decode_ms, _since_ms(start)))
    return results


def _scale(
    piece: Piece, sizes: Collection[Size], encoding: Encoding, max_pixels: int
) -> tuple[dict[Size, tuple[Raster, float]], bytes | None]:
    """The piece's crop upright, at each size, with the milliseconds that it took; the decode is in the first.

    And the profile whose colours they have; None: sRGB.
    """
    start = perf_counter()
    largest_first = sorted(sizes, key=lambda size: size.area, reverse=True)
    scaled: dict[Size, tuple[Raster, float]] = {}
    with vips.reading(piece.format):
        picture = decode(piece, max_pixels=max_pixels)
        profile = colour.own_profile(picture) if encoding.keep_profile else None
        colours = colour.to_srgb if profile is None else colour.to_8_bits
        if not isinstance(picture, np.ndarray) and len(sizes) > 1:
            picture = picture.copy_memory()  # what is decoded on demand is decoded once
        frame = piece.crop.within(_size_of(picture))
        for size in largest_first:
            large_enough = [done for done in scaled if done.covers(Size(size.width * _ENOUGH, size.height * _ENOUGH))]
            if large_enough:
                raster = resample(scaled[large_enough[-1]][0], Frame.whole(large_enough[-1]), size)
            else:
                stored = resample(picture, frame, piece.orientation.upright(size), colours)
                raster = rasters.upright(stored, piece.orientation)
            scaled[size] = raster, _since_ms(start)
            start = perf_counter()
    return scaled, profile


def _size_of(picture: Raster | VipsImage) -> Size:
    return rasters.size_of(picture) if isinstance(picture, np.ndarray) else Size(picture.width, picture.height)


def _density(piece: Piece, job: Job) -> float | None:
    """Pixels per inch of the answer; None where it has another number for each direction."""
    across, down = job.size.width / job.box.width, job.size.height / job.box.height
    scale = across if job.box.width > job.box.height else down
    differ = abs(across - scale) * job.box.width + abs(down - scale) * job.box.height
    return piece.density * scale if piece.density is not None and differ < 1 else None  # a side was rounded


def _finish(raster: Raster, job: Job, encoding: Encoding, profile: bytes | None, density: float | None) -> bytes:
    """Marks, mirror, rotate, quality, encode. What is defined in sRGB alone is made of that."""
    if profile is not None and (job.marks or job.format == "gif" or job.quality in ("gray", "bitonal")):
        raster, profile = colour.raster_to_srgb(raster, profile), None
    if job.marks:
        raster = drawn(raster, job.marks)
    if job.mirror:
        raster = rasters.mirrored(raster)
    quarters, oblique = divmod(job.angle, 90)
    raster = rotated(raster, job.angle) if oblique else rasters.quarter_turned(raster, int(quarters))
    if rasters.size_of(raster) != job.output:
        raise AssertionError(f"{rasters.size_of(raster)} pixels were made where {job.output} were asked for")
    if job.quality == "bitonal":
        return encode_bitonal(rasters.bitonal(raster), job.format, encoding, density)
    return encode(rasters.grey(raster) if job.quality == "gray" else raster, job.format, encoding, profile, density)


def _since_ms(start: float) -> float:
    return (perf_counter() - start) * 1000
